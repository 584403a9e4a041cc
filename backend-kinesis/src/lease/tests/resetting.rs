//! Moving a group to another position, and reading its position.

use std::time::{Duration, SystemTime};

use millstream_core::{ErrorKind, Start};

use crate::config::LeaseKeys;
use crate::lease::ResumePoint;
use crate::lease::progress::read;
use crate::lease::reset::Reset;
use crate::lease::row::Progress;
use crate::lease::testing::memory::MemoryStore;
use crate::lease::testing::rig::{F, Rig, until};
use crate::lease::testing::source::id;

const SECOND: Duration = Duration::from_secs(1);

pub(super) async fn to(rig: &Rig, start: Start) -> millstream_core::Result<()> {
    over(&rig.store, rig, start).await
}

/// Moves the group over a connection of its own.
pub(super) async fn over(
    store: &MemoryStore,
    rig: &Rig,
    start: Start,
) -> millstream_core::Result<()> {
    let reset = Reset {
        store,
        source: &rig.source,
        keys: LeaseKeys::Single,
        failover: F,
        drain: SECOND,
    };
    reset.run("s", start).await
}

#[tokio::test(start_paused = true)]
async fn a_running_member_goes_on_from_the_new_place_in_a_new_epoch() {
    let rig = Rig::new(2);
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 2).await;
    app.checkpoint(0, 50).await.unwrap();
    let (_, epoch) = app.lease(0).unwrap();
    to(&rig, Start::Earliest).await.unwrap();
    let row = rig.store.row(&id(0)).unwrap();
    assert_eq!((row.progress, row.owner), (Progress::TrimHorizon, None));
    until(F, || app.lease(0).is_some_and(|(_, now)| now > epoch)).await;
    app.checkpoint(0, 20).await.unwrap();
    // It was asked, and could settle what was in flight.
    assert!(app.log().contains(&"asked 0".to_owned()));
    assert!(!app.log().contains(&"lost 0".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_does_not_give_its_lease_is_fenced() {
    let rig = Rig::new(1);
    let app = rig.stubborn("a").await;
    until(SECOND, || app.count() == 1).await;
    let begun = tokio::time::Instant::now();
    let (lease, epoch) = app.lease(0).unwrap();
    to(&rig, Start::Earliest).await.unwrap();
    assert!(begun.elapsed() >= SECOND, "it has its time to drain");
    let late = app.worker.checkpoint(&lease, epoch, 50.into()).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(
        rig.store.row(&id(0)).unwrap().progress,
        Progress::TrimHorizon
    );
}

#[tokio::test(start_paused = true)]
async fn parents_that_were_read_are_read_again_before_their_children() {
    let rig = Rig::new(1);
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 1).await;
    rig.source.split("s", 0);
    app.complete(0).await.unwrap();
    until(SECOND, || app.shards() == [1, 2]).await;
    for shard in [1, 2] {
        app.checkpoint(shard, 200).await.unwrap();
    }
    until(Duration::from_secs(120), || rig.store.row(&id(0)).is_none()).await;
    to(&rig, Start::Earliest).await.unwrap();
    until(2 * F, || app.shards() == [0]).await;
    app.complete(0).await.unwrap();
    until(SECOND, || app.shards() == [1, 2]).await;
}

#[tokio::test(start_paused = true)]
async fn the_latest_place_is_pinned_and_what_is_closed_is_finished() {
    let rig = Rig::new(1);
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 1).await;
    rig.source.split("s", 0);
    to(&rig, Start::Latest).await.unwrap();
    let row = |shard| rig.store.row(&id(shard)).unwrap();
    assert_eq!(row(0).progress, Progress::End);
    for shard in [1, 2] {
        assert_eq!(row(shard).progress, Progress::Latest);
        assert!(row(shard).pin().is_some());
    }
    until(2 * F, || app.shards() == [1, 2]).await;
}

#[tokio::test(start_paused = true)]
async fn a_time_is_kept_in_the_rows() {
    let rig = Rig::new(1);
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 1).await;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(77);
    to(&rig, Start::At(time)).await.unwrap();
    let row = rig.store.row(&id(0)).unwrap();
    assert_eq!(
        (row.progress, row.own.start),
        (Progress::AtTimestamp, Some(time))
    );
    assert!(row.own.resolved.is_some());
    let to_come = SystemTime::now() + Duration::from_secs(3_600);
    to(&rig, Start::At(to_come)).await.unwrap();
    let row = rig.store.row(&id(0)).unwrap();
    assert_eq!((row.progress, row.own.resolved), (Progress::Latest, None));
}

#[tokio::test(start_paused = true)]
async fn progress_is_read_with_the_epoch_that_wrote_it() {
    let rig = Rig::new(2);
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 2).await;
    app.checkpoint(0, 50).await.unwrap();
    let (_, epoch) = app.lease(0).unwrap();
    rig.source.split("s", 1);
    app.complete(1).await.unwrap();
    let stored = read(&rig.store, "?").await.unwrap();
    let shards: Vec<_> = stored
        .iter()
        .map(|stored| stored.lease.shard.clone())
        .collect();
    assert_eq!(shards, [id(0), id(1), id(2), id(3)]);
    assert!(stored.iter().all(|stored| &*stored.lease.stream == "s"));
    assert_eq!(
        (stored[0].resume.clone(), stored[0].epoch),
        (Some(ResumePoint::After(50.into())), Some(epoch))
    );
    let completed: Vec<bool> = stored
        .iter()
        .map(|stored| stored.resume.is_none())
        .collect();
    assert_eq!(completed, [false, true, false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_unknown_is_not_found() {
    let rig = Rig::new(1);
    rig.source.delete("s");
    let error = to(&rig, Start::Earliest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
