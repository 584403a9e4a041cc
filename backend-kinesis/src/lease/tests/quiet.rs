//! Members that send few requests to the table, and still learn of changes soon.

use std::time::Duration;

use millstream_core::ErrorKind;
use tokio::time::sleep;

use super::taking::{java_renews, java_takes};
use crate::lease::change;
use crate::lease::key::{KeyForm, Stream};
use crate::lease::options::WorkerOptions;
use crate::lease::row::{Progress, names};
use crate::lease::store::Outcome;
use crate::lease::testing::memory::{Call, Fault};
use crate::lease::testing::rig::{App, F, Rig, app, until};
use crate::lease::testing::source::id;

const SECOND: Duration = Duration::from_secs(1);

/// The tolerance for responses, which are immediate in tests.
const SLACK: Duration = Duration::from_millis(50);

fn options(rig: &Rig, id: &str, failover: Duration) -> WorkerOptions {
    WorkerOptions {
        failover,
        ..rig.options(id)
    }
}

/// Returns two members that have shared leases evenly for a while.
async fn pair(rig: &Rig, leases: usize, failover: Duration) -> (App, App) {
    let a = app(options(rig, "a", failover)).await;
    let b = app(options(rig, "b", failover)).await;
    let half = leases / 2;
    until(10 * failover, || (a.count(), b.count()) == (half, half)).await;
    sleep(3 * failover).await;
    (a, b)
}

/// Returns the measurements at different times of the members' turns, in order.
async fn times<T: Future<Output = Duration>>(
    failover: Duration,
    measure: impl Fn(Duration) -> T,
) -> Vec<Duration> {
    const TIMES: u32 = 30;
    // In this time, renewals and scans settle into their turns.
    let turns = failover * 2;
    let mut all = Vec::new();
    for time in 0..TIMES {
        all.push(measure(turns * time / TIMES).await);
    }
    all.sort_unstable();
    all
}

#[tokio::test(start_paused = true)]
async fn two_idle_members_ask_less_than_two_workers_of_java() {
    for (failover, javas) in [(3, 70.0), (10, 21.0)] {
        let rig = Rig::new(4);
        let _pair = pair(&rig, 4, Duration::from_secs(failover)).await;
        rig.store.calls();
        let minutes = 10;
        sleep(60 * minutes * SECOND).await;
        let calls = rig.store.calls().len();
        let each = calls as f64 / 4.0 / f64::from(minutes);
        assert!(each < javas, "{each} at {failover} s");
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_heard_with_the_next_renewal_of_any_lease() {
    for seconds in [3, 10] {
        let failover = Duration::from_secs(seconds);
        let took = times(failover, async |phase| {
            let rig = Rig::new(4);
            let (a, b) = pair(&rig, 4, failover).await;
            sleep(phase).await;
            a.leave().await;
            until(failover, || b.count() == 4).await
        });
        let took = took.await;
        // With two leases, each is renewed in the middle between two renewals of the other.
        let between = failover * 2 / 5 / 2;
        assert!(took[took.len() - 1] <= between + SLACK, "{took:?}");
        assert!(took[took.len() / 2] <= between / 2 + SLACK, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_owner_is_noticed_at_a_look_after_its_last_renewal() {
    for seconds in [3, 10] {
        let failover = Duration::from_secs(seconds);
        let took = times(failover, async |phase| {
            let rig = Rig::new(4);
            let (a, b) = pair(&rig, 4, failover).await;
            sleep(phase).await;
            a.crash().await;
            until(2 * failover, || b.count() == 4).await
        });
        let took = took.await;
        let most = failover + failover * 2 / 3;
        assert!(took[took.len() - 1] <= most + SLACK, "{took:?}");
        let median = took[took.len() / 2];
        assert!(median <= failover * 7 / 5, "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_notification_is_handled_once_and_so_is_one_that_replaces_it() {
    let rig = Rig::new(4);
    let (_a, b) = pair(&rig, 4, F).await;
    let shard = b.shards()[0];
    let scans = || rig.store.calls().iter().filter(|c| *c == "scan").count();
    let notify = |mark| rig.store.change(&id(shard), |_| change::notify("b", mark));
    scans();
    sleep(6 * F).await;
    let quiet = scans();
    // The counter does not change, and nobody removes the mark.
    let counter = rig.store.row(&id(shard)).unwrap().counter;
    notify(1);
    assert_eq!(rig.store.row(&id(shard)).unwrap().counter, counter);
    sleep(F).await;
    assert!(scans() >= 4);
    sleep(6 * F).await;
    // An audit of each may run in between.
    assert!(scans() <= quiet + 2);
    assert_eq!(rig.store.row(&id(shard)).unwrap().own.rescan, Some(1));
    // This mark is replaced before it can be noticed.
    notify(2);
    notify(3);
    sleep(F).await;
    assert!(scans() >= 4);
    sleep(6 * F).await;
    // An audit of each may run in between.
    assert!(scans() <= quiet + 2);
}

#[tokio::test(start_paused = true)]
async fn the_next_owner_does_not_see_the_notifications_of_the_one_before() {
    let rig = Rig::new(1);
    let a = rig.app("a").await;
    until(SECOND, || a.count() == 1).await;
    rig.store.change(&id(0), |_| change::notify("a", 1));
    sleep(F).await;
    a.leave().await;
    assert_eq!(rig.store.row(&id(0)).unwrap().own.rescan, None);
    let b = rig.app("b").await;
    until(SECOND, || b.count() == 1).await;
    rig.store.change(&id(0), |_| change::notify("b", 1));
    b.crash().await;
    let c = rig.app("c").await;
    until(2 * F, || c.count() == 1).await;
    assert_eq!(rig.store.row(&id(0)).unwrap().own.rescan, None);
}

#[tokio::test(start_paused = true)]
async fn workers_of_java_are_not_notified() {
    let rig = Rig::new(2);
    let a = rig.app("a").await;
    until(SECOND, || a.count() == 2).await;
    java_takes(&rig, 0, "java");
    until(F, || a.count() == 1).await;
    java_renews(&rig, 0);
    sleep(F).await;
    java_renews(&rig, 0);
    rig.store.calls();
    a.leave().await;
    let update = format!("update {}", id(0));
    assert!(!rig.store.calls().contains(&update));
    assert!(!rig.store.item(&id(0)).unwrap().contains_key(names::RESCAN));
    // Nor if it has taken the lease since the last scan.
    let outcome = rig.store.apply(&id(0), &change::notify("java", 1));
    assert!(matches!(outcome, Outcome::Refused(Some(_))), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_changed_since_the_last_scan_is_notified_too() {
    let rig = Rig::new(2);
    let (a, b) = pair(&rig, 2, F).await;
    let shard = b.shards()[0];
    let info = rig.source.described("s");
    let stream = Stream::new(KeyForm::Single, &info).unwrap();
    b.crash().await;
    rig.store
        .change(&id(shard), |row| change::take(row, "c", &stream, None));
    a.leave().await;
    assert!(rig.store.row(&id(shard)).unwrap().own.rescan.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_member_that_leaves_tells_when_it_has_nothing_left() {
    let rig = Rig::new(4);
    let store = rig.store.beside();
    let a = app(rig.options_over("a", &store)).await;
    let b = rig.app("b").await;
    until(3 * F, || (a.count(), b.count()) == (2, 2)).await;
    sleep(F).await;
    // One of its leases is released long after the other.
    let last = id(a.shards()[1]);
    let rows = rig.store.clone();
    store.script(move |call| match call {
        Call::Update(key, update) if **key == *last && update.remove.len() > 2 => {
            Some(Fault::Slow(SECOND))
        }
        Call::Update(_, update) if update.set.iter().any(|(name, _)| *name == names::RESCAN) => {
            let owners = rows.rows().into_iter().map(|row| row.owner);
            assert!(owners.flatten().all(|owner| &*owner == "b"));
            None
        }
        _ => None,
    });
    a.leave().await;
    let between = F * 2 / 5 / 2;
    let took = until(F, || b.count() == 4).await;
    assert!(took <= between + SLACK, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_had_nothing_disturbs_nobody() {
    let rig = Rig::new(1);
    let a = rig.app("a").await;
    until(SECOND, || a.count() == 1).await;
    let spare = rig.app("b").await;
    sleep(F).await;
    rig.store.calls();
    spare.leave().await;
    let updates = rig.store.calls();
    assert!(!updates.iter().any(|call| call.starts_with("update")));
}

#[tokio::test(start_paused = true)]
async fn a_member_without_a_lease_takes_over_within_a_second() {
    let rig = Rig::new(1);
    let a = app(options(&rig, "a", 10 * SECOND)).await;
    until(SECOND, || a.count() == 1).await;
    let spare = app(options(&rig, "b", 10 * SECOND)).await;
    sleep(30 * SECOND).await;
    a.leave().await;
    let took = until(10 * SECOND, || spare.count() == 1).await;
    assert!(took <= SECOND + SLACK, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_children_of_a_shard_begin_where_others_have_them() {
    let rig = Rig::new(4);
    let (a, b) = pair(&rig, 4, F).await;
    let (mine, other) = (a.shards(), b.shards());
    rig.source.split("s", mine[0]);
    a.complete(mine[0]).await.unwrap();
    // Six leases, including the one at shard end: three each.
    let took = until(F, || a.count() == 2 && b.count() == 3).await;
    assert!(took <= F * 2 / 5 / 2 + SLACK, "{took:?}");
    // A child of two parents begins when the second is at shard end, whoever holds them.
    sleep(F).await;
    let child = rig.source.merge("s", mine[1], other[0]).remove(0);
    a.complete(mine[1]).await.unwrap();
    sleep(3 * F).await;
    let begun = || {
        let number = child.id["shardId-".len()..].parse().unwrap();
        a.shards().contains(&number) || b.shards().contains(&number)
    };
    assert!(!begun());
    b.complete(other[0]).await.unwrap();
    let took = until(F, begun).await;
    assert!(took <= F * 2 / 5 / 2 + SLACK, "{took:?}");
    let ended = |shard| rig.store.row(&id(shard)).unwrap().progress == Progress::End;
    assert!(ended(mine[1]) && ended(other[0]));
}

#[tokio::test(start_paused = true)]
async fn who_cannot_look_does_not_take_for_dead_whom_it_does_not_see() {
    let rig = Rig::new(4);
    let store = rig.store.beside();
    let a = app(rig.options_over("a", &store)).await;
    let b = rig.app("b").await;
    until(3 * F, || (a.count(), b.count()) == (2, 2)).await;
    sleep(F).await;
    store.script(|call| match call {
        Call::Scan => Some(Fault::Fail(ErrorKind::Throttled)),
        _ => None,
    });
    store.calls();
    sleep(5 * F).await;
    let mine: Vec<String> = a.shards().into_iter().map(|n| id(n).to_string()).collect();
    let calls = store.calls();
    let taken = calls.iter().filter_map(|call| call.strip_prefix("update "));
    assert!({ taken }.all(|key| mine.iter().any(|own| own == key)));
    b.crash().await;
    store.heal();
    until(2 * F, || a.count() == 4).await;
}
