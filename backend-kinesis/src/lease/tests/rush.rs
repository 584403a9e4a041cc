//! Many members that see free leases at the same time.

use std::time::Duration;

use futures_util::future::join_all;
use millstream_core::ErrorKind;
use tokio::time::sleep;

use crate::lease::testing::memory::{Call, Fault};
use crate::lease::testing::rig::{App, F, Rig, until};

const SECOND: Duration = Duration::from_secs(1);

const MEMBERS: usize = 50;
const LEASES: usize = 500;

/// Delays each request to the table.
fn slow(rig: &Rig) {
    let mut random = fastrand::Rng::with_seed(7);
    rig.store
        .script(move |_| Some(Fault::Slow(Duration::from_millis(random.u64(5..25)))));
}

/// Returns a group whose leases are all free.
async fn free_leases(leases: usize) -> Rig {
    let rig = Rig::new(leases);
    rig.app("before").await.leave().await;
    assert!(rig.owners().iter().all(String::is_empty), "all are free");
    slow(&rig);
    rig
}

async fn members(rig: &Rig, members: usize) -> Vec<App> {
    join_all((0..members).map(async |number| rig.app(&format!("m{number}")).await)).await
}

fn is_owned(rig: &Rig) -> bool {
    !rig.owners().iter().any(String::is_empty)
}

fn is_balanced(apps: &[App]) -> bool {
    apps.iter().all(|app| app.count() == LEASES / MEMBERS)
}

#[tokio::test(start_paused = true)]
async fn members_that_start_together_seldom_try_the_same_leases() {
    let rig = free_leases(LEASES).await;
    let refused = rig.store.refused();
    let apps = members(&rig, MEMBERS).await;
    let took = until(2 * F, || is_owned(&rig)).await;
    assert!(took <= SECOND, "leases were free for {took:?}");
    until(2 * F, || is_balanced(&apps)).await;
    let refused = rig.store.refused() - refused;
    assert!(refused < LEASES / 5, "{refused} writes were refused");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_starts_alone_has_all_leases_soon() {
    let rig = free_leases(LEASES).await;
    let refused = rig.store.refused();
    let app = rig.app("a").await;
    let took = until(F, || app.count() == LEASES).await;
    assert!(took <= SECOND / 2, "leases were free for {took:?}");
    assert_eq!(rig.store.refused(), refused, "nobody else took leases");
}

#[tokio::test(start_paused = true)]
async fn members_that_come_back_after_an_outage_do_not_each_try_all_leases() {
    let rig = free_leases(LEASES).await;
    let apps = members(&rig, MEMBERS).await;
    until(4 * F, || is_balanced(&apps)).await;
    rig.store
        .script(|_| Some(Fault::Fail(ErrorKind::Unavailable)));
    sleep(2 * F).await;
    slow(&rig);
    let refused = rig.store.refused();
    until(10 * F, || is_balanced(&apps)).await;
    let refused = rig.store.refused() - refused;
    // Who comes back first takes what others are about to take back.
    assert!(refused < 2 * LEASES, "{refused} writes were refused");
}

#[tokio::test(start_paused = true)]
async fn who_is_preferred_and_takes_nothing_keeps_no_lease_free() {
    let rig = Rig::new(40);
    let bound = |id| {
        let mut options = rig.options(id);
        options.max_leases = Some(1);
        options
    };
    let small = [
        crate::lease::testing::rig::app(bound("small1")).await,
        crate::lease::testing::rig::app(bound("small2")).await,
    ];
    until(SECOND, || small.iter().all(|app| app.count() == 1)).await;
    rig.store.script(|call| match call {
        Call::Scan => None,
        _ => Some(Fault::Slow(SECOND / 50)),
    });
    // Its share is 14 leases.
    let app = rig.app("a").await;
    let took = until(F, || app.count() == 14).await;
    assert!(took <= SECOND, "leases were free for {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_table_that_cannot_be_scanned_keeps_no_lease_free() {
    let rig = free_leases(20).await;
    let mut scans = 0;
    rig.store.script(move |call| {
        scans += usize::from(matches!(call, Call::Scan));
        match call {
            // The first scan is the join's.
            Call::Scan if scans > 1 => Some(Fault::Fail(ErrorKind::Throttled)),
            _ => None,
        }
    });
    let app = rig.app("a").await;
    until(F, || app.count() == 20).await;
}
