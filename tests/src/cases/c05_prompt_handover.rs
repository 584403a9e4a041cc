//! C5: a handover does not wait for records that cannot settle in time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use millstream_core::{Partition, Retry};
use tokio::time::Instant;

use super::c05_clean_handover::by;
use super::cases;
use super::reader::pull;
use crate::Harness;
use crate::fleet::{Fleet, handler_fn};
use crate::history::{Event, Observer, Outcome};

cases! {
    c05_record_that_waits_for_its_retry_holds_up_no_handover,
    c05_rebalance_takes_back_what_was_not_pulled,
}

/// Enough keys for both of two partitions to have some.
const KEYS: usize = 12;

/// The drain of the member that hands over, in session timeouts: a handover that waits for the drain's end
/// takes too long.
const DRAIN: u32 = 4;

/// The maximum duration of a handover that waits for no record, in session timeouts. It includes a join, which takes
/// seconds with a slow emulator.
const PROMPT: u32 = DRAIN / 2;

/// Sends one record of each of several keys, and returns how many of them are in each of the two
/// partitions.
async fn send_to_both(fleet: &Fleet, prefix: &str) -> Vec<(Partition, usize)> {
    let mut test_producer =
        crate::fleet::TestProducer::open(&fleet.client, &fleet.stream, &fleet.history, 500).await;
    for key in 0..KEYS {
        test_producer
            .send_one(Some(&format!("{prefix}-{key}")))
            .await;
    }
    let stored = test_producer.receipts().await;
    test_producer.close().await;
    assert_eq!(stored.len(), KEYS, "all are stored");
    let partitions: BTreeSet<_> = stored.iter().map(|(_, at)| at.partition.clone()).collect();
    assert_eq!(partitions.len(), 2, "both partitions have keys");
    let count = |of| stored.iter().filter(|(_, at)| at.partition == of).count();
    let counted = |of: Partition| (of.clone(), count(of));
    partitions.into_iter().map(counted).collect()
}

async fn c05_record_that_waits_for_its_retry_holds_up_no_handover(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 2).await;
    fleet.send(6, 4).await;
    let not_yet = handler_fn(|delivery| async move {
        match delivery.key().is_some_and(|key| key.starts_with(b"later")) {
            true => Err("not yet".into()),
            false => Ok(()),
        }
    });
    let retry = Retry::fixed(Duration::from_secs(3_600));
    let a = fleet.member("a").handler(not_yet).with(|group| {
        let drain = timing.session * DRAIN;
        group.drain_timeout(drain).on_failure(retry)
    });
    let a = a.start().await;
    fleet.settled().await;
    // They are the last of both partitions, so nothing else is unsettled.
    send_to_both(&fleet, "later").await;
    fleet
        .until("each of them waits for its retry", || {
            a.handle().stats().failures == KEYS as u64
        })
        .await;

    let began = Instant::now();
    let b = fleet.member("b").start().await;
    fleet
        .until("b has taken over", || {
            b.owns() == 1 && by(&fleet, "b")() > 0
        })
        .await;
    let took = began.elapsed();
    assert!(
        took < timing.session * PROMPT,
        "the rebalance took {took:?}"
    );
    let took = a.close().await;
    // With Kafka's classic protocol, a leave right after a rebalance waits for it, for two seconds at most.
    assert!(took < timing.session * PROMPT, "the close took {took:?}");
    let summary = fleet.check().await;
    assert_eq!(summary.duplicates, 0, "{summary:?}");
    assert_eq!(
        by(&fleet, "b")(),
        KEYS,
        "b handles what was not settled, once"
    );
    b.close().await;
    fleet.caught_up().await;
}

/// The application is busy elsewhere. Records that it never saw go to the next owner.
async fn c05_rebalance_takes_back_what_was_not_pulled(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 2).await;
    let observer = Observer::new(&fleet.history, &fleet.group, "a");
    let group = fleet.handle().await.member("a");
    let group = group.drain_timeout(timing.session * DRAIN);
    let mut consumer = group.join().await.expect("the puller joins");
    let sent = send_to_both(&fleet, "key").await;
    fleet
        .until("all of them wait to be pulled", || {
            consumer.handle().stats().in_flight == KEYS as u64
        })
        .await;

    let began = Instant::now();
    let b = fleet.member("b").start().await;
    fleet
        .until("b has taken over", || {
            b.owns() == 1 && by(&fleet, "b")() > 0
        })
        .await;
    let took = began.elapsed();
    assert!(
        took < timing.session * PROMPT,
        "the rebalance took {took:?}"
    );
    let moved = b.handle().partitions();
    let kept = sent.iter().filter(|(of, _)| !moved.contains_key(of));
    let kept: usize = kept.map(|(_, count)| count).sum();
    for _ in 0..kept {
        let delivery = pull(timing, &mut consumer).await;
        observer.begin(&delivery).end(Outcome::Acked);
        delivery.ack();
    }
    let summary = fleet.check().await;
    assert_eq!(summary.duplicates, 0, "{summary:?}");
    let by_a = |event: &Event| matches!(event, Event::Began(h) if *h.by.member == *"a");
    assert_eq!(
        (fleet.history.count(by_a), by(&fleet, "b")()),
        (kept, KEYS - kept),
        "each handles the records of its partition, once"
    );
    consumer.close().await.expect("the puller closes");
    observer.left();
    b.close().await;
    fleet.caught_up().await;
}
