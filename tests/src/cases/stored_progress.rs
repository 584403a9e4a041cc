//! The stored progress of a group when nothing was settled.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use millstream_core::{Checkpoint, Start};

use super::cases;
use crate::fleet::{Fleet, TestProducer, handler_fn};
use crate::{Harness, eventually};

cases! {
    operate_a_start_is_no_settled_position,
    operate_reset_shows_the_new_position_at_once,
}

/// Returns the progress in the one partition.
async fn progress(fleet: &Fleet) -> Checkpoint {
    let mut checkpoints = fleet.checkpoints().await;
    assert_eq!(
        checkpoints.len(),
        1,
        "one of each partition: {checkpoints:?}"
    );
    checkpoints.remove(0)
}

async fn operate_a_start_is_no_settled_position(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(1, 5).await;
    let member = fleet.member("a").with(|group| group.start(Start::Latest));
    let member = member.start().await;
    fleet
        .until("it owns the partition", || member.owns() == 1)
        .await;
    let fresh = progress(&fleet).await;
    assert_eq!(fresh.position, None, "nothing was settled: {fresh:?}");
    let lag = fresh.lag;
    assert!(
        lag.records.is_none_or(|records| records == 0),
        "nothing is left after the start: {fresh:?}"
    );
    assert!(
        lag.time.is_none_or(|time| time == Duration::ZERO),
        "nothing is left after the start: {fresh:?}"
    );
    member.close().await;
}

/// The member drains for as long as it may. A reset that returned before that would show the position
/// from which it moves the group away.
async fn operate_reset_shows_the_new_position_at_once(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(1, 10).await;
    let hangs = Arc::new(AtomicBool::new(false));
    let handler = {
        let hangs = hangs.clone();
        handler_fn(move |_| {
            let hangs = hangs.load(Relaxed);
            async move {
                match hangs {
                    true => pending().await,
                    false => Ok(()),
                }
            }
        })
    };
    let member = fleet.member("a").handler(handler);
    let member = member.with(|group| group.drain_timeout(timing.handover));
    let member = member.start().await;
    fleet.settled().await;
    eventually(timing, "the progress is stored", || async {
        progress(&fleet).await.position
    })
    .await;
    hangs.store(true, Relaxed);
    let producer = TestProducer::open(&fleet.client, &fleet.stream, &fleet.history, 1_000);
    let mut producer = producer.await;
    producer.send_one(Some("key")).await;
    producer.close().await;
    fleet
        .until("its handler hangs", || {
            member.handle().stats().in_flight == 1
        })
        .await;
    let group = fleet.client.group(fleet.group.as_str());
    let reset = group.reset(&fleet.stream, Start::Earliest).await;
    reset.expect("the group is moved");
    let moved = progress(&fleet).await;
    assert_eq!(moved.position, None, "it was moved: {moved:?}");
    assert!(
        moved.lag.records.is_none_or(|records| records == 11),
        "all 11 records are left: {moved:?}"
    );
    member.crash().await;
}
