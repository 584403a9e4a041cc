//! Heartbeats depend on no call of the runtime and on no handler; who is cut off knows it by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use millstream_core::Delivery;
use millstream_core::driver::CheckpointUpdate;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::driver_fleet::DriverFleet;
use super::driver_member::{Stage, until_both};
use crate::cases::cases;
use crate::fleet::{Fleet, handler_fn};
use crate::{Fault, Harness};

cases! {
    c07_member_that_is_cut_off_reports_the_loss_itself [FREEZE, OWN_SESSION_CLOCK],
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

/// A runtime of one thread: a handler that blocks it stops every task of a member, as the handlers of a
/// busy application stop all threads at once. Ends when it is dropped.
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
            // The end is an error of the channel.
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
    assert_eq!((a.owns(), b.owns()), (1, 1));
    a.close().await;
    b.close().await;
}

async fn c07_member_that_is_cut_off_reports_the_loss_itself(harness: Arc<dyn Harness>) {
    let fleet = DriverFleet::new(harness, 2).await;
    let mut a = fleet.join("a").await;
    let mut b = fleet.join("b").await;
    until_both(&mut a, &mut b, "each owns one partition", |a, b| {
        a.owned().len() == 1 && b.owned().len() == 1
    })
    .await;
    let duration = fleet.timing.session * 6;
    let back = Instant::now() + duration;
    let freeze = Fault::Freeze {
        group: fleet.group.clone(),
        member: "a".into(),
        duration,
    };
    fleet.harness.inject(freeze).await;
    until_both(&mut a, &mut b, "a reports the loss", |a, _| {
        !a.partitions(Stage::Lost).is_empty()
    })
    .await;
    let early = back.saturating_duration_since(Instant::now());
    assert!(
        !early.is_zero(),
        "a was cut off for {duration:?}, and reported the loss only when it was back"
    );
    until_both(&mut a, &mut b, "b owns both", |_, b| b.owned().len() == 2).await;
    // It is still cut off, and could not leave.
    drop(a);
    b.leave().await;
}
