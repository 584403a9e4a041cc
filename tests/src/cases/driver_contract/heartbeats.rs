//! Heartbeats depend on no call of the runtime and on no handler. A member that is cut off detects it by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use millstream_core::Delivery;
use millstream_core::driver::CheckpointUpdate;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::driver_fleet::DriverFleet;
use super::driver_member::{DriverMember, Stage, until_both};
use crate::cases::cases;
use crate::fleet::{Fleet, handler_fn};
use crate::{Fault, Harness};

cases! {
    c07_member_that_is_cut_off_reports_the_loss_itself [FREEZE, OWN_SESSION_CLOCK],
    c07_member_that_was_cut_off_joins_again [FREEZE],
    c08_heartbeats_continue_while_next_is_not_called,
    c08_handler_that_blocks_its_thread_keeps_its_membership [RUNNING_CLOCK],
}

async fn c08_heartbeats_continue_while_next_is_not_called(harness: Arc<dyn Harness>) {
    let fleet = DriverFleet::new(harness, 2).await;
    let stored = fleet.fill(1).await;
    let mut a = fleet.join("a").await;
    let mut b = fleet.join("b").await;
    until_both(&mut a, &mut b, "each owns one partition", |a, b| {
        a.owned().len() == 1 && b.owned().len() == 1
    })
    .await;
    let owned = [a.owned(), b.owned()];
    // Nobody calls next() of a.
    b.run_for(fleet.timing.session * 3).await;
    a.run_for(fleet.timing.handover).await;
    let lost = a.partitions(Stage::Lost);
    assert!(
        lost.is_empty(),
        "a, whose next() was not called, lost {lost:?}"
    );
    assert_eq!([a.owned(), b.owned()], owned, "no partition has moved");
    for (partition, epoch) in a.owned() {
        let update = CheckpointUpdate {
            position: stored[&partition][0],
            partition,
            epoch,
        };
        for result in a.checkpoint(&[update]).await {
            result.expect("a still owns the partition");
        }
    }
    a.leave().await;
    b.leave().await;
}

/// A runtime of one thread: a handler that blocks it stops every task of a member, like the handlers of a
/// busy application that block all threads at once. Dropping this ends it.
struct OneThread {
    runtime: Handle,
    _end: oneshot::Sender<()>,
}

impl OneThread {
    fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (end, ended) = oneshot::channel();
        let handle = runtime.handle().clone();
        thread::spawn(move || {
            // The channel's error is the end.
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        });
        Self {
            runtime: handle,
            _end: end,
        }
    }
}

async fn c08_handler_that_blocks_its_thread_keeps_its_membership(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Arc::new(Fleet::new(harness, 2).await);
    let b = fleet.member("b").start().await;
    let one_thread = OneThread::start();
    let blocks = Arc::new(AtomicBool::new(false));
    let a = {
        let (fleet, blocks) = (fleet.clone(), blocks.clone());
        let handler = handler_fn(move |_: Delivery| {
            if blocks.swap(false, Relaxed) {
                thread::sleep(timing.session * 2);
            }
            async { Ok(()) }
        });
        let start = async move { fleet.member("a").handler(handler).start().await };
        one_thread.runtime.spawn(start).await.expect("a starts")
    };
    fleet
        .until("each owns one partition", || a.owns() == 1 && b.owns() == 1)
        .await;
    blocks.store(true, Relaxed);
    let mut producer = fleet.test_producer().await;
    while blocks.load(Relaxed) {
        producer.send(10, 1).await;
    }
    producer.close().await;
    let summary = fleet.check().await;
    assert_eq!(
        (a.handle().stats().lost, b.handle().stats().lost),
        (0, 0),
        "a has lost its partition to b while a handler of a blocked its thread: {summary:?}"
    );
    assert_eq!(summary.duplicates, 0, "{summary:?}");
    assert_eq!((a.owns(), b.owns()), (1, 1), "each keeps its partition");
    a.close().await;
    b.close().await;
}

async fn c07_member_that_is_cut_off_reports_the_loss_itself(harness: Arc<dyn Harness>) {
    let fleet = DriverFleet::new(harness, 4).await;
    let timing = fleet.timing;
    let (mut a, mut b) = join_both(&fleet).await;
    let owned = a.owned();
    let duration = timing.session * 6;
    let cut_off = Instant::now();
    freeze(&fleet, duration).await;
    let what = "a reports the loss of all its partitions";
    until_both(&mut a, &mut b, what, |a, _| a.has_lost(&owned)).await;
    let took = cut_off.elapsed();
    assert!(
        took < duration,
        "a was cut off for {duration:?}, and reported the loss only when it was back"
    );
    // The rest is for a busy machine: the session began before.
    let longest = timing.session + timing.session / 2 + timing.handover;
    assert!(
        took <= longest,
        "a session is {:?}, and a was cut off for {took:?} when it reported the loss",
        timing.session
    );
    let lost = a.partitions(Stage::Lost);
    assert_eq!(lost, owned, "what a has lost, each in its epoch");
    until_both(&mut a, &mut b, "b owns all", |_, b| b.owned().len() == 4).await;
    // It is still cut off, and could not leave.
    drop(a);
    b.leave().await;
}

async fn c07_member_that_was_cut_off_joins_again(harness: Arc<dyn Harness>) {
    let fleet = DriverFleet::new(harness, 2).await;
    let (mut a, mut b) = join_both(&fleet).await;
    let owned = a.owned();
    freeze(&fleet, fleet.timing.case_limit()).await;
    until_both(&mut a, &mut b, "b owns both partitions", |_, b| {
        b.owned().len() == 2
    })
    .await;
    thaw(&fleet).await;
    // It has lost its partitions, so only a new epoch gives it something.
    let what = "a, which is back, owns a partition in a new epoch";
    until_both(&mut a, &mut b, what, |a, b| {
        let is_new = |(of, epoch)| owned.get(&of).is_none_or(|before| epoch > *before);
        a.owned().len() == 1 && b.owned().len() == 1 && a.owned().into_iter().all(is_new)
    })
    .await;
    a.leave().await;
    b.leave().await;
}

/// Returns two members, each with its share.
async fn join_both(fleet: &DriverFleet) -> (DriverMember, DriverMember) {
    let mut a = fleet.join("a").await;
    let mut b = fleet.join("b").await;
    until_both(&mut a, &mut b, "each owns its share", |a, b| {
        !a.owned().is_empty()
            && a.owned().len() == b.owned().len()
            && a.partitions(Stage::Revoking).is_empty()
    })
    .await;
    (a, b)
}

/// Cuts off member `a`.
async fn freeze(fleet: &DriverFleet, duration: Duration) {
    let freeze = Fault::Freeze {
        group: fleet.group.clone(),
        member: "a".into(),
        duration,
    };
    fleet.harness.inject(freeze).await;
}

/// Ends the freeze of member `a`.
async fn thaw(fleet: &DriverFleet) {
    freeze(fleet, Duration::ZERO).await;
}
