//! C12: a shutdown ends in a bounded time, whatever the member is doing and whether or not the broker
//! responds.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cases;
use crate::fleet::{Fleet, handler_fn};
use crate::{Fault, Harness};

cases! {
    c12_shutdown_ends_a_join [DELAY_JOIN],
    c12_one_deadline_bounds_a_shutdown [FREEZE],
}

/// The documented maximum duration of a shutdown after `drain_timeout`.
const LEAVE: Duration = Duration::from_secs(6);

async fn c12_shutdown_ends_a_join(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(4, 5).await;
    // It is shut down before it is polled for the first time.
    let early = fleet.member("early").start().await;
    let took = early.close().await;
    assert!(took <= timing.handover, "an early shutdown took {took:?}");

    // It is already connected: only the join is delayed.
    let client = fleet.harness.named_client("slow").await;
    fleet
        .inject(Fault::DelayJoin {
            group: fleet.group.clone(),
            member: "slow".into(),
            by: timing.timeout,
        })
        .await;
    let slow = fleet.member_on(&client, "slow").start().await;
    tokio::time::sleep(timing.handover).await;
    assert!(!slow.has_ended() && slow.owns() == 0, "it joins still");
    let took = slow.close().await;
    assert!(took <= timing.handover, "a shutdown took {took:?}");
    let member = fleet.member("b").start().await;
    let summary = fleet.check().await;
    assert_eq!(summary.duplicates, 0, "{summary:?}");
    member.close().await;
}

/// Its handlers hang, and its broker does not respond: neither to a checkpoint nor to a leave.
async fn c12_one_deadline_bounds_a_shutdown(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(3, 2).await;
    let hangs_on_one = handler_fn(|delivery| async move {
        if delivery.key().is_some_and(|key| key == "key-0") {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    // Settled records remain to be checkpointed.
    let rarely = Duration::from_secs(3_600);
    let member = fleet.member("a").handler(hangs_on_one);
    let member = member.with(|group| {
        let group = group.drain_timeout(timing.handover);
        group.checkpoint_interval(rarely)
    });
    let member = member.start().await;
    fleet
        .until("one handler hangs", || {
            let stats = member.handle().stats();
            stats.in_flight == 1 && stats.settled == 4
        })
        .await;
    fleet
        .inject(Fault::Freeze {
            group: fleet.group.clone(),
            member: "a".into(),
            duration: timing.timeout,
        })
        .await;
    let began = Instant::now();
    // Whether or not this is reported as an error, it ends in time.
    let (_, _) = member.shut_down().await;
    let took = began.elapsed();
    assert!(took <= timing.handover + LEAVE, "it took {took:?}");
    let other = fleet.member("b").start().await;
    fleet.check().await;
    other.close().await;
}
