//! Taking free and expired leases.

use std::time::Duration;

use millstream_core::Epoch;
use tokio::time::{Instant, sleep};

use crate::lease::change;
use crate::lease::options::WorkerOptions;
use crate::lease::row::names;
use crate::lease::row::new::{number, string};
use crate::lease::store::{Condition, Update};
use crate::lease::testing::memory::{Call, Fault};
use crate::lease::testing::rig::{App, F, Rig, app, join, until};
use crate::lease::testing::source::id;

const SECOND: Duration = Duration::from_secs(1);

/// Writes what a Java worker writes when it takes a lease.
pub(super) fn java_takes(rig: &Rig, shard: usize, worker: &str) {
    rig.store.change(&id(shard), |row| Update {
        set: vec![
            (names::OWNER, string(worker)),
            (names::COUNTER, number(row.counter + 1)),
        ],
        remove: Vec::new(),
        given: vec![Condition::Is(names::COUNTER, number(row.counter))],
    });
}

/// Writes what a Java worker writes when it renews a lease.
pub(super) fn java_renews(rig: &Rig, shard: usize) {
    rig.store.change(&id(shard), change::renew);
}

/// Returns a table whose leases belong to a Java worker.
async fn owned_by_java(shards: usize) -> Rig {
    let rig = Rig::new(shards);
    let first = join(rig.options("first")).await.unwrap();
    first.leave().await.unwrap();
    for shard in 0..shards {
        java_takes(&rig, shard, "java");
    }
    rig
}

#[tokio::test(start_paused = true)]
async fn s01_a_free_lease_is_taken_at_once() {
    let rig = Rig::new(3);
    let app = rig.app("a").await;
    let took = until(SECOND, || app.count() == 3).await;
    assert!(took < Duration::from_millis(50), "{took:?}");
    let row = rig.store.row(&id(0)).unwrap();
    assert_eq!(row.owner.as_deref(), Some("a"));
    assert_eq!(row.own.epoch, Some(Epoch(row.counter)));
    assert!(row.can_be_requested());
}

#[tokio::test(start_paused = true)]
async fn s02_a_lease_that_is_renewed_is_not_taken() {
    let rig = owned_by_java(1).await;
    let app = rig.app("a").await;
    for _ in 0..40 {
        sleep(F / 3).await;
        java_renews(&rig, 0);
    }
    assert_eq!(app.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn s03_a_lease_is_its_owners_for_the_whole_time_out_from_the_first_sight() {
    let rig = owned_by_java(1).await;
    sleep(10 * F).await;
    let begun = Instant::now();
    let app = rig.app("a").await;
    let took = until(2 * F, || app.count() > 0).await;
    assert!(begun.elapsed() >= F, "{took:?}");
    // At the moment it expires, not a scan later.
    assert!(took < F + Duration::from_millis(50), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn s04_an_own_lease_that_has_expired_is_taken_back_in_a_new_epoch() {
    let rig = Rig::new(1);
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 1).await;
    let (_, epoch) = app.lease(0).unwrap();
    rig.store.script(|call| match call {
        Call::Update(..) => Some(Fault::Fail(millstream_core::ErrorKind::Throttled)),
        _ => None,
    });
    until(2 * F, || app.count() == 0).await;
    rig.store.heal();
    until(F, || app.count() == 1).await;
    assert!(app.lease(0).unwrap().1 > epoch);
    assert_eq!(rig.store.row(&id(0)).unwrap().switches, 0);
}

#[tokio::test(start_paused = true)]
async fn s05_members_that_come_together_come_to_a_balance() {
    let rig = Rig::new(8);
    let (a, b, c) = tokio::join!(rig.app("a"), rig.app("b"), rig.app("c"));
    let balanced = || {
        let mut counts = [a.count(), b.count(), c.count()];
        counts.sort_unstable();
        counts == [2, 3, 3]
    };
    until(20 * SECOND, balanced).await;
    sleep(5 * F).await;
    assert!(balanced());
}

#[tokio::test(start_paused = true)]
async fn s06_more_members_than_leases_have_one_each() {
    let rig = Rig::new(2);
    let mut apps = Vec::new();
    for id in ["a", "b", "c"] {
        apps.push(rig.app(id).await);
    }
    let counts = || {
        let mut counts: Vec<usize> = apps.iter().map(App::count).collect();
        counts.sort_unstable();
        counts
    };
    until(20 * SECOND, || counts() == [0, 1, 1]).await;
    sleep(5 * F).await;
    assert_eq!(counts(), [0, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn s07_what_nobody_takes_for_long_is_taken_beyond_the_balance() {
    let rig = Rig::new(4);
    let mut options = rig.options("small");
    options.max_leases = Some(1);
    let small = join(options).await.unwrap();
    until(SECOND, || rig.owners().iter().any(|id| id == "small")).await;
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 2).await;
    sleep(2 * F).await;
    assert_eq!(app.count(), 2);
    until(2 * F, || app.count() == 3).await;
    drop(small);
}

#[tokio::test(start_paused = true)]
async fn s09_no_more_leases_are_taken_than_the_bound() {
    let rig = Rig::new(4);
    let mut options = rig.options("a");
    options.max_leases = Some(3);
    let _worker = join(options).await.unwrap();
    sleep(10 * F).await;
    let owned = rig.owners().iter().filter(|id| *id == "a").count();
    assert_eq!(owned, 3);
}

#[tokio::test(start_paused = true)]
async fn s10_a_java_worker_is_robbed_of_one_lease_per_round_of_the_kcl() {
    let rig = owned_by_java(6).await;
    let app = rig.app("a").await;
    let mut at = Vec::new();
    let begun = Instant::now();
    for _ in 0..25 {
        for shard in 0..6 {
            if rig.store.row(&id(shard)).unwrap().owner.as_deref() == Some("java") {
                java_renews(&rig, shard);
            }
        }
        if app.count() > at.len() {
            at.push(begun.elapsed());
        }
        sleep(F / 3).await;
    }
    assert_eq!(app.count(), 3, "{at:?}");
    for pair in at.windows(2) {
        assert!(pair[1] - pair[0] >= 2 * F - F / 3, "{at:?}");
    }
    let stolen = rig.store.row(&id(app.shards()[0])).unwrap();
    assert_eq!(stolen.switches, 1);
}

#[tokio::test(start_paused = true)]
async fn s13_of_two_that_race_for_a_lease_one_gets_it() {
    let rig = Rig::new(1);
    let (a, b) = tokio::join!(rig.app("a"), rig.app("b"));
    until(SECOND, || a.count() + b.count() == 1).await;
    sleep(5 * F).await;
    assert_eq!(a.count() + b.count(), 1);
    assert_eq!(a.log().len() + b.log().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn s14_a_lease_is_stolen_though_its_counter_moved_after_the_scan() {
    let rig = owned_by_java(2).await;
    let store = rig.store.beside();
    let (rows, moved) = (rig.store.clone(), std::sync::Mutex::new(0));
    // Each first attempt meets a counter that has just changed.
    store.script(move |call| {
        if let Call::Update(key, _) = call {
            let mut moved = moved.lock().unwrap();
            *moved += 1;
            if *moved % 2 == 1 {
                rows.change(key, change::renew);
            }
        }
        None
    });
    let worker = join(rig.options_over("a", &store)).await.unwrap();
    until(SECOND, || rig.owners().contains(&"a".to_owned())).await;
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn s15_a_throttled_scan_takes_nothing_and_ends_nothing() {
    let rig = owned_by_java(1).await;
    let app = rig.app("a").await;
    rig.store.script(|call| match call {
        Call::Scan => Some(Fault::Fail(millstream_core::ErrorKind::Throttled)),
        _ => None,
    });
    for _ in 0..10 {
        sleep(F / 3).await;
        java_renews(&rig, 0);
    }
    assert_eq!(app.log(), Vec::<String>::new());
    rig.store.heal();
    until(2 * F, || app.count() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn s22_rows_that_are_no_leases_are_passed_over() {
    let rig = Rig::new(2);
    rig.store.put(
        [
            (names::KEY.to_owned(), string("worker-1")),
            (names::ENTITY.to_owned(), string("WORKER_METRIC_STATS")),
        ]
        .into(),
    );
    rig.store
        .put([(names::KEY.to_owned(), string("broken"))].into());
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 2).await;
    sleep(3 * F).await;
    assert_eq!(app.count(), 2);
    assert_eq!(rig.store.item("broken").unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn s30_a_take_ends_a_handover_of_the_kcl_3_that_was_cut_off() {
    let rig = owned_by_java(1).await;
    let mut item = rig.store.item(&id(0)).unwrap();
    item.insert(names::CHECKPOINT_OWNER.into(), string("dead"));
    rig.store.put(item);
    let app = rig.app("a").await;
    until(2 * F, || app.count() == 1).await;
    let item = rig.store.item(&id(0)).unwrap();
    assert!(!item.contains_key(names::CHECKPOINT_OWNER));
}

#[tokio::test(start_paused = true)]
async fn a_crashed_members_leases_are_taken_within_a_time_out_and_a_scan() {
    let rig = Rig::new(6);
    let often = |id| WorkerOptions {
        scan_interval: Some(SECOND),
        ..rig.options(id)
    };
    let (a, b) = tokio::join!(app(often("a")), app(often("b")));
    until(20 * SECOND, || a.count() == 3 && b.count() == 3).await;
    sleep(F).await;
    a.crash().await;
    let took = until(2 * F, || b.count() == 6).await;
    assert!(took >= F - F / 3 && took <= F + 2 * SECOND, "{took:?}");
}
