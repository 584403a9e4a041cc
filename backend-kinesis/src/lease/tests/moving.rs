//! Moving a group whose members, and other workers, are at work meanwhile.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use millstream_core::{ErrorKind, Position, Start};
use tokio::time::{Instant, sleep};

use super::resetting::{over, to};
use crate::config::LeaseKeys;
use crate::lease::change;
use crate::lease::key::{KeyForm, Stream};
use crate::lease::reset::Reset;
use crate::lease::row::new::{checkpoint, string};
use crate::lease::row::{Begin, NewRow, Progress, Row, names};
use crate::lease::store::Update;
use crate::lease::testing::memory::{Call, Fault, MemoryStore};
use crate::lease::testing::rig::{F, Rig, until};
use crate::lease::testing::source::id;

const SECOND: Duration = Duration::from_secs(1);

/// The duration of each request to the table.
const SLOW: Duration = Duration::from_millis(20);

/// The old position.
fn old() -> Position {
    50.into()
}

fn stream(rig: &Rig) -> Stream {
    Stream::new(KeyForm::Single, &rig.source.described("s")).unwrap()
}

/// Returns whether an update moves a lease.
fn moves(update: &Update) -> bool {
    let owner = update.remove.contains(&names::OWNER);
    owner
        && update
            .set
            .iter()
            .any(|(name, _)| *name == names::CHECKPOINT)
}

/// Returns whether an update makes a worker the owner.
fn gives_to(update: &Update, worker: &str) -> bool {
    update.set.contains(&(names::OWNER, string(worker)))
}

/// Hands the lease over like an owner, when it is requested. Returns its progress at that time.
async fn hand_over(store: &MemoryStore, shard: usize, owner: &str) -> Progress {
    let requested = || {
        let row = store.row(&id(shard));
        row.filter(|row| row.owner.as_deref() == Some(owner) && row.next_owner().is_some())
    };
    until(10 * F, || requested().is_some()).await;
    let row = requested().unwrap();
    let next_owner = row.next_owner().unwrap().to_string();
    store.change(&id(shard), |row| change::assign(row, &next_owner));
    row.progress
}

#[tokio::test(start_paused = true)]
async fn no_lease_of_a_large_group_is_lost_or_taken_back_at_the_old_position() {
    const LEASES: usize = 400;
    let rig = Rig::new(LEASES);
    let (a, b) = tokio::join!(rig.app("a"), rig.app("b"));
    let is_shared = || (a.count(), b.count()) == (LEASES / 2, LEASES / 2);
    until(60 * SECOND, is_shared).await;
    for app in [&a, &b] {
        let stored = app.shards().into_iter();
        let stored = join_all(stored.map(|shard| app.checkpoint(shard, 50))).await;
        assert!(stored.iter().all(Result::is_ok), "{stored:?}");
    }
    let before = (a.log().len(), b.log().len());
    let (rows, taken_back) = (rig.store.clone(), Arc::new(Mutex::new(Vec::new())));
    let noted = taken_back.clone();
    rig.store.script(move |call| {
        if let Call::Update(key, update) = call
            && (gives_to(update, "a") || gives_to(update, "b"))
            && rows
                .row(key)
                .is_some_and(|row| row.progress == Progress::After(old()))
        {
            noted.lock().unwrap().push((*key).to_owned());
        }
        Some(Fault::Slow(SLOW))
    });
    to(&rig, Start::Earliest).await.unwrap();
    rig.store.heal();
    let log = [&a.log()[before.0..], &b.log()[before.1..]].concat();
    let count = |what: &str| log.iter().filter(|line| line.starts_with(what)).count();
    assert_eq!(count("lost"), 0, "leases were lost without a request");
    assert_eq!(count("asked"), LEASES, "each lease is requested once");
    let taken_back = taken_back.lock().unwrap().len();
    assert_eq!(taken_back, 0, "leases were taken at the old position");
    let moved = |row: &Row| row.progress == Progress::TrimHorizon;
    assert!(rig.store.rows().iter().all(moved), "all leases are moved");
    until(60 * SECOND, is_shared).await;
}

#[tokio::test(start_paused = true)]
async fn what_another_member_takes_meanwhile_is_requested_before_it_is_moved() {
    let rig = Rig::new(3);
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 3).await;
    app.checkpoint(1, 50).await.unwrap();
    let (store, rows, stream) = (rig.store.beside(), rig.store.clone(), stream(&rig));
    let mut is_taken = false;
    store.script(move |call| {
        if let Call::Update(key, update) = call
            && **key == *id(1)
            && moves(update)
            && !std::mem::replace(&mut is_taken, true)
        {
            rows.change(key, |row| change::take(row, "thief", &stream, None));
        }
        None
    });
    let (moved, progress) = tokio::join!(
        over(&store, &rig, Start::Earliest),
        hand_over(&rig.store, 1, "thief")
    );
    moved.unwrap();
    assert_eq!(progress, Progress::After(old()), "it was moved in use");
    let row = rig.store.row(&id(1)).unwrap();
    assert_eq!(row.progress, Progress::TrimHorizon, "it is not moved");
}

#[tokio::test(start_paused = true)]
async fn leases_that_are_created_meanwhile_are_moved_too() {
    let rig = Rig::new(1);
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 1).await;
    let (store, rows) = (rig.store.beside(), rig.store.clone());
    let (source, stream) = (rig.source.clone(), stream(&rig));
    let mut is_split = false;
    store.script(move |call| {
        if matches!(call, Call::Update(..)) && !std::mem::replace(&mut is_split, true) {
            // Its owner completes the shard, and a Java worker has read more of a child already.
            let shard = source.split("s", 0).remove(0);
            let begin = Begin::TrimHorizon;
            let mut child = NewRow { shard, begin }.item(&stream);
            let position = checkpoint(Progress::After(200.into()));
            child.insert(names::CHECKPOINT.into(), string(&position));
            child.insert(names::OWNER.into(), string("java"));
            rows.put(child);
        }
        None
    });
    over(&store, &rig, Start::Earliest).await.unwrap();
    for shard in 0..3 {
        let row = rig.store.row(&id(shard)).unwrap();
        assert_eq!(row.progress, Progress::TrimHorizon, "shard {shard}");
        assert_ne!(row.owner.as_deref(), Some("java"), "shard {shard}");
    }
}

#[tokio::test(start_paused = true)]
async fn members_do_not_request_leases_that_are_about_to_be_moved() {
    let rig = Rig::new(4);
    let a = rig.app("a").await;
    until(SECOND, || a.count() == 4).await;
    // One owner drains for long.
    let (slow, stream) = (id(3), stream(&rig));
    rig.store
        .change(&slow, |row| change::take(row, "slow", &stream, None));
    until(F, || a.count() == 3).await;
    let b = rig.app("b").await;
    let drained = async {
        for _ in 0..10 {
            sleep(F / 3).await;
            rig.store.change(&slow, change::renew);
        }
        hand_over(&rig.store, 3, "slow").await
    };
    let reset = Reset {
        store: &rig.store,
        source: &rig.source,
        keys: LeaseKeys::Single,
        failover: F,
        drain: 10 * F,
    };
    let held = || {
        let rows = rig.store.rows();
        let by_reset = |row: &Row| row.owner.as_ref().is_some_and(|id| id.starts_with("reset"));
        rows.iter().filter(|row| by_reset(row)).count()
    };
    let watched = async {
        until(F, || held() == 3).await;
        // As long as the members are at work, the others stay where they are.
        for _ in 0..60 {
            sleep(SECOND / 3).await;
            assert_eq!(held(), 3, "a lease was taken back before it was moved");
        }
    };
    let (moved, _, ()) = tokio::join!(reset.run("s", Start::Earliest), drained, watched);
    moved.unwrap();
    until(3 * F, || a.count() + b.count() == 4).await;
}

#[tokio::test(start_paused = true)]
async fn what_members_take_back_in_an_outage_is_requested_again() {
    let rig = Rig::new(8);
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 8).await;
    for shard in 0..8 {
        app.checkpoint(shard, 50).await.unwrap();
    }
    let store = rig.store.beside();
    let (mut moved, mut down) = (0, None);
    store.script(move |call| {
        moved += usize::from(matches!(call, Call::Update(_, update) if moves(update)));
        if moved == 4 {
            down.get_or_insert_with(Instant::now);
        }
        // Longer than leases last, but requests are repeated for longer.
        let is_down = down.is_some_and(|at| at.elapsed() < 2 * F);
        is_down.then_some(Fault::Fail(ErrorKind::Unavailable))
    });
    over(&store, &rig, Start::Earliest).await.unwrap();
    for row in rig.store.rows() {
        assert_eq!(row.progress, Progress::TrimHorizon, "{row:?}");
    }
    let log = app.log();
    let count = |what: &str| log.iter().filter(|line| line.starts_with(what)).count();
    assert!(count("asked") > 8, "none was taken back: {log:?}");
    assert_eq!(count("lost"), 0, "{log:?}");
}
