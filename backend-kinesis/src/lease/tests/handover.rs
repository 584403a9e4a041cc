//! Handovers of leases between members.

use std::time::Duration;

use millstream_core::ErrorKind::Fenced;
use tokio::time::sleep;

use crate::lease::change;
use crate::lease::key::{KeyForm, Stream};
use crate::lease::options::WorkerOptions;
use crate::lease::testing::memory::{Call, Fault};
use crate::lease::testing::rig::{App, F, Rig, app, until};
use crate::lease::testing::source::id;

const SECOND: Duration = Duration::from_secs(1);

async fn alone(rig: &Rig, shards: usize, id: &str) -> App {
    let app = rig.app(id).await;
    until(SECOND, || app.count() == shards).await;
    sleep(F).await;
    app
}

#[tokio::test(start_paused = true)]
async fn who_joins_gets_its_share_by_asking_before_the_next_renewals() {
    let rig = Rig::new(8);
    let a = alone(&rig, 8, "a").await;
    let b = rig.app("b").await;
    let took = until(F, || b.count() == 4).await;
    assert!(took <= F / 3 + Duration::from_millis(300), "{took:?}");
    assert_eq!(a.count(), 4);
    // Each was requested and handed over, none was stolen.
    assert!(
        !a.log().iter().any(|what| what.starts_with("lost")),
        "{:?}",
        a.log()
    );
    sleep(5 * F).await;
    assert_eq!((a.count(), b.count()), (4, 4));
    assert_eq!(b.log().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn who_joins_asks_at_once() {
    let rig = Rig::new(2);
    let _a = alone(&rig, 2, "a").await;
    let _b = rig.app("b").await;
    let requested = || {
        rig.store
            .rows()
            .iter()
            .any(|row| row.own.requester.as_deref() == Some("b"))
    };
    until(Duration::from_millis(10), requested).await;
}

#[tokio::test(start_paused = true)]
async fn epochs_grow_with_every_owner() {
    let rig = Rig::new(1);
    let a = alone(&rig, 1, "a").await;
    a.checkpoint(0, 5).await.unwrap();
    let (lease, first) = a.lease(0).unwrap();
    a.leave().await;
    let b = rig.app("b").await;
    until(SECOND, || b.count() == 1).await;
    assert!(b.lease(0).unwrap().1 > first);
    assert_eq!(
        b.worker.release(&lease, first).await.unwrap_err().kind(),
        Fenced
    );
}

#[tokio::test(start_paused = true)]
async fn four_members_one_after_the_other_come_to_a_balance() {
    let rig = Rig::new(10);
    let mut apps = Vec::new();
    for id in ["a", "b", "c", "d"] {
        apps.push(rig.app(id).await);
        sleep(SECOND).await;
    }
    let sorted = || {
        let mut counts: Vec<usize> = apps.iter().map(App::count).collect();
        counts.sort_unstable();
        counts
    };
    until(5 * F, || {
        sorted().iter().sum::<usize>() == 10 && sorted()[3] <= 3
    })
    .await;
    sleep(5 * F).await;
    let counts = sorted();
    assert!(
        counts.iter().sum::<usize>() == 10 && counts[3] <= 3,
        "{counts:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_does_not_give_a_lease_in_time_loses_it() {
    let rig = Rig::new(2);
    let a = rig.stubborn("a").await;
    until(SECOND, || a.count() == 2).await;
    let b = rig.app("b").await;
    let took = until(3 * F, || b.count() == 1).await;
    let drain = rig.options("x").drain;
    assert!(took >= drain && took <= drain + F, "{took:?}");
    until(SECOND, || a.count() == 1).await;
    assert!(a.log().last().unwrap().starts_with("lost"));
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_never_hears_the_question_is_robbed() {
    let rig = Rig::new(2);
    let store = rig.store.beside();
    // For this member, no row ever shows a request.
    let a = crate::lease::testing::rig::join(rig.options_over("a", &store))
        .await
        .unwrap();
    until(SECOND, || rig.owners() == ["a", "a"]).await;
    store.deaf();
    let b = rig.app("b").await;
    let took = until(5 * F, || b.count() == 1).await;
    let drain = rig.options("x").drain;
    assert!(took >= drain + F && took <= drain + 2 * F, "{took:?}");
    drop(a);
}

#[tokio::test(start_paused = true)]
async fn what_a_leaving_member_frees_is_found_at_the_next_look_at_the_latest() {
    let rig = Rig::new(6);
    let often = |id| WorkerOptions {
        scan_interval: Some(SECOND),
        ..rig.options(id)
    };
    let (a, b) = tokio::join!(app(often("a")), app(often("b")));
    until(20 * SECOND, || a.count() == 3 && b.count() == 3).await;
    sleep(F).await;
    a.checkpoint(a.shards()[0], 5).await.unwrap();
    a.leave().await;
    assert_eq!(rig.owners().iter().filter(|id| *id == "a").count(), 0);
    let took = until(F, || b.count() == 6).await;
    assert!(took <= SECOND + Duration::from_millis(50), "{took:?}");
}

/// Returns whether any lease is requested from its holder.
fn is_requested(rig: &Rig) -> bool {
    let rows = rig.store.rows();
    rows.iter().any(|row| row.own.requester.is_some())
}

#[tokio::test(start_paused = true)]
async fn who_leaves_takes_its_questions_back() {
    let rig = Rig::new(2);
    let a = alone(&rig, 2, "a").await;
    let b = rig.app("b").await;
    until(SECOND, || is_requested(&rig)).await;
    b.leave().await;
    until(SECOND, || !is_requested(&rig)).await;
    sleep(3 * F).await;
    assert_eq!(a.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_a_table_that_is_down_leaves_when_its_leases_have_expired() {
    let rig = Rig::new(2);
    let store = rig.store.beside();
    let worker = crate::lease::testing::rig::join(rig.options_over("a", &store))
        .await
        .unwrap();
    until(SECOND, || rig.owners() == ["a", "a"]).await;
    store.script(|_| Some(Fault::Fail(millstream_core::ErrorKind::Unavailable)));
    let error = tokio::time::timeout(F + SECOND, worker.leave())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), millstream_core::ErrorKind::Timeout);
    let b = rig.app("b").await;
    until(2 * F, || b.count() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_release_whose_answer_got_lost_was_one() {
    let rig = Rig::new(1);
    let a = rig.stubborn("a").await;
    until(SECOND, || a.count() == 1).await;
    let lost = std::sync::Mutex::new(false);
    rig.store.script(move |call| match call {
        Call::Update(_, update) if !update.remove.is_empty() && !*lost.lock().unwrap() => {
            *lost.lock().unwrap() = true;
            Some(Fault::Lose(millstream_core::ErrorKind::Unavailable))
        }
        _ => None,
    });
    let (lease, epoch) = a.lease(0).unwrap();
    a.worker.release(&lease, epoch).await.unwrap();
    let error = a
        .worker
        .checkpoint(&lease, epoch, 5.into())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Fenced);
    assert!(rig.store.row(&id(0)).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_question_to_an_owner_that_is_gone_is_none_to_the_next() {
    let rig = Rig::new(2);
    let a = rig.stubborn("a").await;
    until(SECOND, || a.count() == 2).await;
    let b = rig.app("b").await;
    until(SECOND, || is_requested(&rig)).await;
    sleep(2 * F / 3).await;
    // Another worker takes both leases, as after an expiry.
    a.crash().await;
    let info = rig.source.described("s");
    let stream = Stream::new(KeyForm::Single, &info).unwrap();
    for shard in [0, 1] {
        rig.store
            .change(&id(shard), |row| change::take(row, "c", &stream, None));
    }
    // The new owner has as long to respond as the first owner had.
    for _ in 0..4 {
        sleep(F / 3).await;
        for shard in [0, 1] {
            rig.store.change(&id(shard), change::renew);
        }
    }
    assert_eq!((b.count(), rig.owners()), (0, vec!["c".into(), "c".into()]));
    assert!(is_requested(&rig));
}
