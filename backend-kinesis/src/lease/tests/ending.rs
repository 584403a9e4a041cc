//! Shard ends, child shards, and lease cleanup.

use std::time::{Duration, SystemTime};

use millstream_core::{ErrorKind, Start};
use tokio::time::sleep;

use super::taking::{java_renews, java_takes};
use crate::lease::row::{Progress, names};
use crate::lease::testing::memory::{Call, Fault};
use crate::lease::testing::rig::{App, F, Rig, join, until};
use crate::lease::testing::source::id;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

async fn owner(rig: &Rig, shards: usize) -> App {
    let app = rig.app("a").await;
    until(SECOND, || app.count() == shards).await;
    app
}

fn progress(rig: &Rig, shard: usize) -> Option<Progress> {
    rig.store.row(&id(shard)).map(|row| row.progress)
}

#[tokio::test(start_paused = true)]
async fn s50_children_have_their_leases_before_the_end_of_the_parent_is_stored() {
    let rig = Rig::new(1);
    let app = owner(&rig, 1).await;
    rig.source.split("s", 0);
    rig.store.calls();
    app.complete(0).await.unwrap();
    let calls = rig.store.calls();
    let at = |call: String| calls.iter().position(|other| *other == call).unwrap();
    let updates: Vec<usize> = (0..calls.len())
        .filter(|n| calls[*n] == format!("update {}", id(0)))
        .collect();
    assert!(at(format!("create {}", id(1))) < updates[0]);
    assert!(at(format!("create {}", id(2))) < updates[0]);
    assert_eq!(updates.len(), 2);
    let parent = rig.store.row(&id(0)).unwrap();
    assert_eq!(
        (parent.progress, parent.children),
        (Progress::End, vec![id(1), id(2)])
    );
    until(SECOND, || app.shards() == [1, 2]).await;
    let item = rig.store.item(&id(1)).unwrap();
    assert_eq!(item[names::ENTITY].as_s().unwrap(), "LEASE");
    assert_eq!(progress(&rig, 1), Some(Progress::TrimHorizon));
}

#[tokio::test(start_paused = true)]
async fn s50_a_crash_between_any_two_steps_loses_no_child() {
    for steps in 0..6 {
        let rig = Rig::new(1);
        let store = rig.store.beside();
        let worker = join(rig.options_over("a", &store)).await.unwrap();
        until(SECOND, || rig.owners() == ["a"]).await;
        let crate::lease::LeaseEvent::Taken { lease, epoch, .. } = worker.next().await else {
            panic!("not taken");
        };
        rig.source.split("s", 0);
        let mut left = steps;
        store.script(move |call| {
            let writes = !matches!(call, Call::Scan | Call::Get(_));
            left -= i32::from(writes);
            (left < 0).then_some(Fault::Fail(ErrorKind::Unavailable))
        });
        let done = tokio::time::timeout(F, worker.complete(&lease, epoch, &[])).await;
        drop((worker, done));
        let next = rig.app("b").await;
        until(3 * F, || next.count() > 0).await;
        if next.shards() == [0] {
            next.complete(0).await.unwrap();
        }
        until(3 * F, || next.shards() == [1, 2]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn s51_the_child_of_a_merge_waits_for_both_parents() {
    let rig = Rig::new(2);
    let app = owner(&rig, 2).await;
    rig.source.merge("s", 0, 1);
    app.complete(0).await.unwrap();
    sleep(3 * F).await;
    assert_eq!(rig.owners(), ["a", "a", "a"]);
    assert_eq!(app.shards(), [1]);
    app.complete(1).await.unwrap();
    let took = until(SECOND, || app.shards() == [2]).await;
    assert!(took < Duration::from_millis(50), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn s51_a_merge_is_held_up_while_the_other_parent_has_no_lease() {
    let rig = Rig::new(2);
    let app = owner(&rig, 2).await;
    rig.source.merge("s", 0, 1);
    rig.store.remove(&id(1));
    until(F, || app.count() == 1).await;
    let error = app.complete(0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(progress(&rig, 0), Some(Progress::TrimHorizon));
    // The missing lease is created at once, and then the call succeeds.
    until(F, || app.shards() == [0, 1]).await;
    app.complete(0).await.unwrap();
    app.complete(1).await.unwrap();
    until(SECOND, || app.shards() == [2]).await;
}

#[tokio::test(start_paused = true)]
async fn s51_a_parent_that_is_gone_holds_nothing_up() {
    let rig = Rig::new(2);
    let app = owner(&rig, 2).await;
    rig.source.merge("s", 0, 1);
    rig.store.remove(&id(1));
    rig.source.trim("s", 1);
    until(F, || app.count() == 1).await;
    app.complete(0).await.unwrap();
    until(SECOND, || app.shards() == [2]).await;
}

#[tokio::test(start_paused = true)]
async fn a_child_waits_for_a_parent_that_a_java_worker_reads() {
    let rig = Rig::new(2);
    let app = owner(&rig, 2).await;
    rig.source.merge("s", 0, 1);
    app.complete(0).await.unwrap();
    java_takes(&rig, 1, "java");
    until(F, || app.count() == 0).await;
    for _ in 0..10 {
        java_renews(&rig, 1);
        sleep(F / 3).await;
    }
    assert_eq!(app.count(), 0);
    rig.store.change(&id(1), |row| {
        crate::lease::change::store(row, Progress::End)
    });
    until(2 * SECOND, || app.shards() == [2]).await;
}

#[tokio::test(start_paused = true)]
async fn s52_who_lost_the_lease_makes_no_children() {
    let rig = Rig::new(1);
    let app = owner(&rig, 1).await;
    let (lease, epoch) = app.lease(0).unwrap();
    rig.source.split("s", 0);
    java_takes(&rig, 0, "java");
    until(F, || app.count() == 0).await;
    let error = app.worker.complete(&lease, epoch, &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert_eq!(rig.store.rows().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn s54_a_shard_without_children_has_not_ended() {
    let rig = Rig::new(1);
    let app = owner(&rig, 1).await;
    let error = app.complete(0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(progress(&rig, 0), Some(Progress::TrimHorizon));
    let strangers = rig.source.split("s", 0);
    let (lease, epoch) = app.lease(0).unwrap();
    let mut stranger = strangers[0].clone();
    stranger.parents = Vec::new();
    let error = app
        .worker
        .complete(&lease, epoch, &[stranger])
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    app.worker
        .complete(&lease, epoch, &strangers)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn children_of_a_parent_that_had_nothing_since_the_time_begin_at_the_time() {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    for checkpointed in [false, true] {
        let rig = Rig::new(1);
        let mut options = rig.options("a");
        options.start = Start::At(time);
        let worker = join(options).await.unwrap();
        let crate::lease::LeaseEvent::Taken {
            lease, epoch, from, ..
        } = worker.next().await
        else {
            panic!("not taken");
        };
        assert_eq!(from, crate::lease::ResumePoint::At(time));
        if checkpointed {
            worker.checkpoint(&lease, epoch, 9.into()).await.unwrap();
        }
        rig.source.split("s", 0);
        worker.complete(&lease, epoch, &[]).await.unwrap();
        let child = rig.store.row(&id(1)).unwrap();
        let expected = match checkpointed {
            true => (Progress::TrimHorizon, None),
            false => (Progress::AtTimestamp, Some(time)),
        };
        assert_eq!((child.progress, child.own.start), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn s45_a_parent_is_deleted_when_all_its_children_have_begun() {
    let rig = Rig::new(1);
    let app = owner(&rig, 1).await;
    rig.source.split("s", 0);
    app.complete(0).await.unwrap();
    until(SECOND, || app.shards() == [1, 2]).await;
    app.checkpoint(1, 200).await.unwrap();
    sleep(3 * MINUTE).await;
    assert_eq!(progress(&rig, 0), Some(Progress::End));
    app.checkpoint(2, 200).await.unwrap();
    until(2 * MINUTE, || progress(&rig, 0).is_none()).await;
    assert_eq!(app.shards(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn s46_both_parents_of_a_merge_are_deleted() {
    let rig = Rig::new(2);
    let app = owner(&rig, 2).await;
    rig.source.merge("s", 0, 1);
    app.complete(0).await.unwrap();
    app.complete(1).await.unwrap();
    until(SECOND, || app.shards() == [2]).await;
    app.checkpoint(2, 200).await.unwrap();
    until(2 * MINUTE, || rig.store.rows().len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn s47_a_grandparent_goes_before_a_parent() {
    let rig = Rig::new(1);
    let app = owner(&rig, 1).await;
    rig.source.split("s", 0);
    app.complete(0).await.unwrap();
    until(SECOND, || app.shards() == [1, 2]).await;
    rig.source.split("s", 1);
    app.complete(1).await.unwrap();
    until(SECOND, || app.shards() == [2, 3, 4]).await;
    app.checkpoint(3, 300).await.unwrap();
    app.checkpoint(4, 300).await.unwrap();
    sleep(4 * MINUTE).await;
    // Shard 2 has not begun, so the leases of 0 and 1 stay.
    assert_eq!(
        (progress(&rig, 0), progress(&rig, 1)),
        (Some(Progress::End), Some(Progress::End))
    );
    app.checkpoint(2, 300).await.unwrap();
    until(3 * MINUTE, || rig.store.rows().len() == 3).await;
}

#[tokio::test(start_paused = true)]
async fn s48_a_lease_of_a_shard_that_is_gone_is_deleted() {
    let rig = Rig::new(2);
    join(rig.options("first"))
        .await
        .unwrap()
        .leave()
        .await
        .unwrap();
    rig.store.change(&id(0), |row| {
        crate::lease::change::store(row, Progress::End)
    });
    let app = owner(&rig, 1).await;
    sleep(3 * MINUTE).await;
    assert_eq!(progress(&rig, 0), Some(Progress::End));
    rig.source.trim("s", 0);
    until(2 * MINUTE, || progress(&rig, 0).is_none()).await;
    drop(app);
}

#[tokio::test(start_paused = true)]
async fn s49_without_cleanup_nothing_is_deleted() {
    let rig = Rig::new(1);
    let mut options = rig.options("a");
    options.cleanup = false;
    let worker = join(options).await.unwrap();
    let crate::lease::LeaseEvent::Taken { lease, epoch, .. } = worker.next().await else {
        panic!("not taken");
    };
    rig.source.split("s", 0);
    worker.complete(&lease, epoch, &[]).await.unwrap();
    for shard in [1, 2] {
        until(SECOND, || {
            rig.store.row(&id(shard)).unwrap().owner.is_some()
        })
        .await;
    }
    for _ in 0..2 {
        let crate::lease::LeaseEvent::Taken { lease, epoch, .. } = worker.next().await else {
            panic!("not taken");
        };
        worker.checkpoint(&lease, epoch, 200.into()).await.unwrap();
    }
    sleep(10 * MINUTE).await;
    assert_eq!(rig.store.rows().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_finished_lease_of_a_member_that_crashed_is_cleaned_up_by_another() {
    let rig = Rig::new(1);
    let app = owner(&rig, 1).await;
    rig.source.split("s", 0);
    app.complete(0).await.unwrap();
    until(SECOND, || app.shards() == [1, 2]).await;
    app.checkpoint(1, 200).await.unwrap();
    app.checkpoint(2, 200).await.unwrap();
    app.crash().await;
    let next = rig.app("b").await;
    until(3 * F, || next.shards() == [1, 2]).await;
    assert!(!next.log().contains(&"taken 0".to_owned()));
    until(2 * MINUTE, || progress(&rig, 0).is_none()).await;
}
