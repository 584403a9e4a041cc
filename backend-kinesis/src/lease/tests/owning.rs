//! Renewals, checkpoints, and lost responses.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream_core::ErrorKind::{self, Fenced, Timeout};
use tokio::time::{Instant, sleep};

use super::taking::java_takes;
use crate::lease::row::new::string;
use crate::lease::row::{Progress, names};
use crate::lease::store::Update;
use crate::lease::testing::memory::{Call, Fault};
use crate::lease::testing::rig::{App, F, Rig, join, until};
use crate::lease::testing::source::id;

const SECOND: Duration = Duration::from_secs(1);

async fn owner(rig: &Rig) -> App {
    let app = rig.app("a").await;
    until(SECOND, || app.count() == 1).await;
    app
}

/// Loses the response to the next change for which `is` returns true.
fn lose_one(rig: &Rig, is: impl Fn(&Update) -> bool + Send + 'static) -> Arc<Mutex<u32>> {
    let lost = Arc::new(Mutex::new(0));
    let counted = lost.clone();
    rig.store.script(move |call| match call {
        Call::Update(_, update) if is(update) && *counted.lock().unwrap() == 0 => {
            *counted.lock().unwrap() += 1;
            Some(Fault::Lose(Timeout))
        }
        _ => None,
    });
    lost
}

fn stores(update: &Update) -> bool {
    update
        .set
        .iter()
        .any(|(name, _)| *name == names::CHECKPOINT)
}

fn renews(update: &Update) -> bool {
    update.set.len() == 1
}

#[tokio::test(start_paused = true)]
async fn s17_a_lease_is_renewed_every_two_fifths_of_a_time_out() {
    let rig = Rig::new(1);
    let app = owner(&rig).await;
    let before = rig.store.row(&id(0)).unwrap().counter;
    sleep(10 * F).await;
    let row = rig.store.row(&id(0)).unwrap();
    let renewals = row.counter - before;
    assert!((24..=25).contains(&renewals), "{renewals}");
    assert_eq!(row.owner.as_deref(), Some("a"));
    assert_eq!(app.log(), ["taken 0"]);
}

#[tokio::test(start_paused = true)]
async fn s18_a_lease_that_another_has_taken_is_lost_with_the_next_renewal() {
    let rig = Rig::new(1);
    let app = owner(&rig).await;
    java_takes(&rig, 0, "java");
    let took = until(F, || app.count() == 0).await;
    assert!(took <= F / 3 + SECOND, "{took:?}");
    assert_eq!(rig.owners(), ["java"]);
}

#[tokio::test(start_paused = true)]
async fn s19_a_renewal_whose_answer_got_lost_was_one() {
    let rig = Rig::new(1);
    let app = owner(&rig).await;
    let lost = lose_one(&rig, renews);
    until(F, || *lost.lock().unwrap() == 1).await;
    sleep(3 * F).await;
    assert_eq!(app.log(), ["taken 0"]);
}

#[tokio::test(start_paused = true)]
async fn a_take_whose_answer_got_lost_was_one() {
    let rig = Rig::new(1);
    let lost = lose_one(&rig, |update| {
        update.set.iter().any(|(name, _)| *name == names::OWNER)
    });
    let app = owner(&rig).await;
    assert_eq!(*lost.lock().unwrap(), 1);
    let row = rig.store.row(&id(0)).unwrap();
    assert_eq!(Some(app.lease(0).unwrap().1), row.own.epoch);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_whose_answer_got_lost_was_one() {
    let rig = Rig::new(1);
    let app = owner(&rig).await;
    let lost = lose_one(&rig, stores);
    app.checkpoint(0, 7).await.unwrap();
    assert_eq!(*lost.lock().unwrap(), 1);
    app.checkpoint(0, 8).await.unwrap();
    assert_eq!(
        rig.store.row(&id(0)).unwrap().progress,
        Progress::After(8.into())
    );
    sleep(3 * F).await;
    assert_eq!(app.log(), ["taken 0"]);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_is_heard_late_disturbs_nothing() {
    let rig = Rig::new(1);
    let app = owner(&rig).await;
    let late = Arc::new(Mutex::new(None));
    let kept = late.clone();
    rig.store.script(move |call| match call {
        Call::Update(_, update) if stores(update) && kept.lock().unwrap().is_none() => {
            *kept.lock().unwrap() = Some((*update).clone());
            Some(Fault::Fail(Timeout))
        }
        _ => None,
    });
    let error = app.checkpoint(0, 7).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let update = late.lock().unwrap().clone().unwrap();
    rig.store.apply(&id(0), &update);
    app.checkpoint(0, 8).await.unwrap();
    assert_eq!(
        rig.store.row(&id(0)).unwrap().progress,
        Progress::After(8.into())
    );
    rig.store.apply(&id(0), &update);
    assert_eq!(
        rig.store.row(&id(0)).unwrap().progress,
        Progress::After(8.into())
    );
    sleep(3 * F).await;
    assert_eq!(app.log(), ["taken 0"]);
}

#[tokio::test(start_paused = true)]
async fn s20_a_lease_that_was_not_renewed_in_time_is_lost_and_not_renewed() {
    let rig = Rig::new(1);
    let app = owner(&rig).await;
    let (lease, epoch) = app.lease(0).unwrap();
    let before = rig.store.row(&id(0)).unwrap().counter;
    let begun = Instant::now();
    rig.store
        .script(|_| Some(Fault::Fail(ErrorKind::Unavailable)));
    let took = until(2 * F, || app.count() == 0).await;
    assert!(took <= F, "{:?}", begun.elapsed());
    let error = app.worker.checkpoint(&lease, epoch, 5.into()).await;
    assert_eq!(error.unwrap_err().kind(), Fenced);
    sleep(2 * F).await;
    assert_eq!(rig.store.row(&id(0)).unwrap().counter, before);
}

#[tokio::test(start_paused = true)]
async fn requests_that_hang_do_not_keep_a_lease_from_its_renewal() {
    let rig = Rig::new(1);
    let app = owner(&rig).await;
    let hung = Arc::new(Mutex::new(0));
    let counted = hung.clone();
    rig.store.script(move |call| {
        let mut hung = counted.lock().unwrap();
        let hangs = matches!(call, Call::Update(..)) && *hung == 0;
        *hung += u32::from(hangs);
        hangs.then_some(Fault::Slow(Duration::from_secs(3_600)))
    });
    sleep(5 * F).await;
    assert_eq!(*hung.lock().unwrap(), 1);
    assert_eq!(app.log(), ["taken 0"]);
}

#[tokio::test(start_paused = true)]
async fn s23_a_checkpoint_of_an_earlier_epoch_is_refused_and_the_lease_kept() {
    let rig = Rig::new(1);
    let app = owner(&rig).await;
    let (lease, old) = app.lease(0).unwrap();
    java_takes(&rig, 0, "java");
    until(F, || app.count() == 0).await;
    until(3 * F, || app.count() == 1).await;
    let error = app
        .worker
        .checkpoint(&lease, old, 5.into())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Fenced);
    app.checkpoint(0, 5).await.unwrap();
    assert!(app.lease(0).unwrap().1 > old);
}

#[tokio::test(start_paused = true)]
async fn s24_a_checkpoint_on_a_lost_lease_is_fenced_and_stores_nothing() {
    let rig = Rig::new(1);
    let app = owner(&rig).await;
    java_takes(&rig, 0, "java");
    assert_eq!(app.checkpoint(0, 5).await.unwrap_err().kind(), Fenced);
    until(Duration::from_millis(100), || app.count() == 0).await;
    assert_eq!(
        rig.store.row(&id(0)).unwrap().progress,
        Progress::TrimHorizon
    );
}

#[tokio::test(start_paused = true)]
async fn s24_a_checkpoint_that_failed_can_be_stored_again() {
    let rig = Rig::new(1);
    let app = owner(&rig).await;
    rig.store.script(|call| match call {
        Call::Update(..) => Some(Fault::Fail(ErrorKind::Throttled)),
        _ => None,
    });
    assert_eq!(
        app.checkpoint(0, 5).await.unwrap_err().kind(),
        ErrorKind::Throttled
    );
    rig.store.heal();
    app.checkpoint(0, 6).await.unwrap();
    assert_eq!(app.log(), ["taken 0"]);
}

#[tokio::test(start_paused = true)]
async fn s25_an_owner_goes_on_until_its_handover_by_the_kcl_3_is_answered() {
    let rig = Rig::new(1);
    let app = rig.stubborn("a").await;
    until(SECOND, || app.count() == 1).await;
    rig.store.change(&id(0), |_| Update {
        set: vec![
            (names::OWNER, string("java")),
            (names::CHECKPOINT_OWNER, string("a")),
        ],
        remove: Vec::new(),
        given: vec![crate::lease::store::Condition::Exists],
    });
    until(F, || app.log() == ["taken 0", "asked 0"]).await;
    app.checkpoint(0, 5).await.unwrap();
    let (lease, epoch) = app.lease(0).unwrap();
    app.worker.release(&lease, epoch).await.unwrap();
    let row = rig.store.row(&id(0)).unwrap();
    assert_eq!(
        (row.owner.as_deref(), row.checkpoint_owner),
        (Some("java"), None)
    );
}

#[tokio::test(start_paused = true)]
async fn s56_the_same_checkpoint_is_not_written_again() {
    let rig = Rig::new(1);
    let app = owner(&rig).await;
    app.checkpoint(0, 5).await.unwrap();
    rig.store.calls();
    app.checkpoint(0, 5).await.unwrap();
    assert_eq!(rig.store.calls(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn s57_a_checkpoint_does_not_go_back() {
    let rig = Rig::new(1);
    let app = owner(&rig).await;
    app.checkpoint(0, 5).await.unwrap();
    assert_eq!(
        app.checkpoint(0, 4).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

#[tokio::test(start_paused = true)]
async fn s55_a_place_inside_an_aggregate_is_stored_as_the_kcl_does() {
    let rig = Rig::new(1);
    let app = owner(&rig).await;
    let (lease, epoch) = app.lease(0).unwrap();
    let position: millstream_core::Position =
        "49680487875297799117750197684405414020555427567586246690.8"
            .parse()
            .unwrap();
    app.worker
        .checkpoint(&lease, epoch, position)
        .await
        .unwrap();
    let item = rig.store.item(&id(0)).unwrap();
    let number = "49680487875297799117750197684405414020555427567586246690";
    assert_eq!(item[names::CHECKPOINT].as_s().unwrap(), number);
    assert_eq!(item[names::SUB].as_n().unwrap(), "8");
    assert_eq!(
        rig.store.row(&id(0)).unwrap().progress,
        Progress::After(position)
    );
}

/// Writes what a Java worker writes when it prepares a checkpoint.
fn java_prepares(rig: &Rig) {
    let mut item = rig.store.item(&id(0)).unwrap();
    for name in names::PENDING {
        item.insert(name.into(), string("9"));
    }
    rig.store.put(item);
}

#[tokio::test(start_paused = true)]
async fn s59_a_checkpoint_clears_what_was_prepared_before() {
    let rig = Rig::new(1);
    let app = owner(&rig).await;
    java_prepares(&rig);
    app.checkpoint(0, 5).await.unwrap();
    let item = rig.store.item(&id(0)).unwrap();
    assert!(names::PENDING.iter().all(|name| !item.contains_key(*name)));
}

#[tokio::test(start_paused = true)]
async fn s60_what_a_java_worker_has_prepared_is_there_for_the_next_one() {
    let rig = Rig::new(1);
    let app = owner(&rig).await;
    java_prepares(&rig);
    sleep(F).await;
    app.leave().await;
    let app = rig.app("b").await;
    until(SECOND, || app.count() == 1).await;
    let item = rig.store.item(&id(0)).unwrap();
    assert!(names::PENDING.iter().all(|name| item.contains_key(*name)));
}

#[tokio::test(start_paused = true)]
async fn a_lease_with_checkpoints_needs_no_renewals() {
    let rig = Rig::new(1);
    let app = owner(&rig).await;
    rig.store.calls();
    for position in 1..=30 {
        app.checkpoint(0, position).await.unwrap();
        sleep(F / 10).await;
    }
    let updates = rig
        .store
        .calls()
        .iter()
        .filter(|call| call.starts_with("update"))
        .count();
    assert_eq!(updates, 30);
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_is_dropped_stops_renewing() {
    let rig = Rig::new(1);
    let worker = join(rig.options("a")).await.unwrap();
    until(SECOND, || rig.owners() == ["a"]).await;
    drop(worker);
    sleep(SECOND).await;
    let counter = rig.store.row(&id(0)).unwrap().counter;
    sleep(3 * F).await;
    assert_eq!(rig.store.row(&id(0)).unwrap().counter, counter);
}
