//! Tables that are slow, throttled, or missing.

use std::time::Duration;

use millstream_core::ErrorKind;
use tokio::time::sleep;

use crate::lease::testing::memory::{Call, Fault};
use crate::lease::testing::rig::{F, Rig, until};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn every_third_request_may_fail_without_a_lease_being_lost() {
    let rig = Rig::new(6);
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 6).await;
    let mut random = fastrand::Rng::with_seed(3);
    let kinds = [
        ErrorKind::Throttled,
        ErrorKind::Unavailable,
        ErrorKind::Timeout,
    ];
    rig.store.script(move |_| match random.u8(..6) {
        0 => Some(Fault::Fail(*random.choice(&kinds)?)),
        1 => Some(Fault::Lose(*random.choice(&kinds[1..])?)),
        2 => Some(Fault::Slow(Duration::from_millis(random.u64(..800)))),
        _ => None,
    });
    for position in 1..40 {
        for shard in 0..6 {
            while let Err(error) = app.checkpoint(shard, position).await {
                assert!(error.is_retryable(), "{error}");
            }
        }
        sleep(SECOND).await;
    }
    assert_eq!(app.log().len(), 6, "{:?}", app.log());
}

#[tokio::test(start_paused = true)]
async fn throttled_renewals_are_tried_again_until_the_lease_expires() {
    let rig = Rig::new(2);
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 2).await;
    rig.store.script(|call| match call {
        Call::Update(..) => Some(Fault::Fail(ErrorKind::Throttled)),
        _ => None,
    });
    sleep(F / 2).await;
    assert_eq!(app.count(), 2);
    rig.store.heal();
    sleep(3 * F).await;
    assert_eq!(app.log().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_comes_back_in_time_ends_nothing() {
    let rig = Rig::new(1);
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 1).await;
    rig.store.script(|_| Some(Fault::Fail(ErrorKind::NotFound)));
    sleep(F / 2).await;
    rig.store.heal();
    sleep(3 * F).await;
    assert_eq!(app.log(), ["taken 0"]);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_stays_away_ends_the_member() {
    for (kind, told) in [
        (ErrorKind::NotFound, "failed not_found"),
        (ErrorKind::Denied, "failed denied"),
    ] {
        let rig = Rig::new(1);
        let app = rig.app("a").await;
        until(SECOND, || app.count() == 1).await;
        rig.store.script(move |_| Some(Fault::Fail(kind)));
        until(4 * F, || app.log().last().unwrap() == told).await;
        assert_eq!(
            app.worker.leave().await.unwrap_err().kind(),
            ErrorKind::Closed
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_throttled_for_long_ends_nothing() {
    let rig = Rig::new(2);
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 2).await;
    rig.store
        .script(|_| Some(Fault::Fail(ErrorKind::Throttled)));
    until(2 * F, || app.count() == 0).await;
    sleep(20 * F).await;
    rig.store.heal();
    until(2 * F, || app.count() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_quiet_member_that_is_alone_asks_little() {
    let rig = Rig::new(4);
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 4).await;
    rig.store.calls();
    sleep(Duration::from_secs(90)).await;
    let calls = rig.store.calls();
    let scans = calls.iter().filter(|call| *call == "scan").count();
    assert!((4..=6).contains(&scans), "{scans}");
    let renewals = calls.iter().filter(|call| call.starts_with("update"));
    let renewals = renewals.count();
    assert!((96..=104).contains(&renewals), "{renewals}");
}
