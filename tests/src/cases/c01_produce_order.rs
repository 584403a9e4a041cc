//! C1: for one key, records are stored in the order of `send`, whatever faults affect the sends; other keys
//! continue.

use std::sync::Arc;
use std::time::Duration;

use super::cases;
use crate::fleet::{Fleet, TestProducer};
use crate::{Fault, Harness};

cases! {
    c01_order_of_many_keys,
    c01_order_under_partial_failure [FAIL_SENDS_BY_KEY],
    c01_order_when_every_send_fails_first [FAIL_SENDS],
    c01_order_under_throttling [THROTTLE_SENDS],
    c01_order_when_timed_out_sends_were_stored [TIME_OUT_SENDS],
    c01_order_of_clones_of_one_producer,
    c01_order_across_split_and_merge [RESHARD],
    c01_other_keys_flow_while_one_is_held [FAIL_SENDS_BY_KEY],
}

/// Sends without waiting for receipts, reads all, and checks.
async fn send_and_read(fleet: &Fleet, keys: usize, per_key: usize) -> TestProducer {
    let mut test_producer = fleet.test_producer().await;
    test_producer.send(keys, per_key).await;
    let member = fleet.member("reader").start().await;
    let summary = fleet.check().await;
    member.close().await;
    assert_eq!(
        summary.sent,
        (keys * per_key) as u64,
        "all records are sent"
    );
    assert_eq!(summary.acknowledged, summary.sent, "{summary:?}");
    test_producer
}

async fn c01_order_of_many_keys(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 4).await;
    let test_producer = send_and_read(&fleet, 50, 20).await;
    let stats = test_producer.producer.stats();
    assert_eq!(
        (stats.sent, stats.stored, stats.failed),
        (1_000, 1_000, 0),
        "all records are stored: {stats:?}"
    );
    assert_eq!(
        (stats.in_flight, stats.in_flight_bytes),
        (0, 0),
        "nothing is in flight: {stats:?}"
    );
    test_producer.close().await;
}

async fn order_survives(harness: Arc<dyn Harness>, fault: impl FnOnce(String) -> Fault) {
    let fleet = Fleet::new(harness, 3).await;
    fleet.inject(fault(fleet.stream.clone())).await;
    let test_producer = send_and_read(&fleet, 10, 30).await;
    assert!(
        fleet.harness.hits(&fleet.stream) >= 1,
        "no send was faulted"
    );
    test_producer.close().await;
}

async fn c01_order_under_partial_failure(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 3).await;
    for key in ["key-1", "key-4"] {
        let fault = Fault::FailSends {
            stream: fleet.stream.clone(),
            key: Some(key.into()),
            times: 3,
        };
        fleet.inject(fault).await;
    }
    let test_producer = send_and_read(&fleet, 10, 30).await;
    // All are stored, so each of these was retried.
    assert_eq!(
        fleet.harness.hits(&fleet.stream),
        6,
        "each planned fault was hit"
    );
    test_producer.close().await;
}

async fn c01_order_when_every_send_fails_first(harness: Arc<dyn Harness>) {
    let fail = |stream| Fault::FailSends {
        stream,
        key: None,
        times: 40,
    };
    order_survives(harness, fail).await;
}

async fn c01_order_under_throttling(harness: Arc<dyn Harness>) {
    let throttle = |stream| Fault::ThrottleSends { stream, times: 40 };
    order_survives(harness, throttle).await;
}

async fn c01_order_when_timed_out_sends_were_stored(harness: Arc<dyn Harness>) {
    order_survives(harness, |stream| Fault::TimeOutSends { stream, times: 10 }).await;
}

async fn c01_order_of_clones_of_one_producer(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    let mut test_producer = fleet.test_producer().await;
    let first = test_producer.producer.clone();
    for turn in 0..100 {
        // The next record is sent by another clone, and the order is still that of the sends.
        test_producer.producer = first.clone();
        test_producer
            .send_one(Some(&format!("key-{}", turn % 3)))
            .await;
    }
    test_producer.receipts().await;
    let member = fleet.member("reader").start().await;
    fleet.check().await;
    member.close().await;
    test_producer.close().await;
    assert!(
        first
            .send(millstream_core::Record::new("late"))
            .await
            .is_err(),
        "closing one closes all"
    );
}

async fn c01_order_across_split_and_merge(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    let test_producer = fleet.test_producer().await;
    let producer = test_producer.producer.clone();
    let background_load = test_producer.send_in_background(12, Duration::from_millis(1));
    let streams = fleet.client.streams();
    let enough = |count| {
        let producer = producer.clone();
        fleet.until("records are stored", move || {
            producer.stats().stored >= count
        })
    };
    enough(50).await;
    let open = fleet.open_partitions().await;
    streams
        .split(&open[0])
        .await
        .expect("the partition is split");
    enough(150).await;
    let open = fleet.open_partitions().await;
    assert_eq!(open.len(), 3, "a split makes 3 of 2: {open:?}");
    // The halves of the split partition are adjacent, for brokers that merge only adjacent partitions.
    let (one, other) = (&open[open.len() - 2], &open[open.len() - 1]);
    streams.merge(one, other).await.expect("they are merged");
    enough(300).await;
    background_load.stop().await;
    assert_eq!(
        fleet.open_partitions().await.len(),
        2,
        "a merge makes 2 of 3"
    );
    let member = fleet.member("reader").start().await;
    fleet.check().await;
    member.close().await;
}

async fn c01_other_keys_flow_while_one_is_held(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    let fault = Fault::FailSends {
        stream: fleet.stream.clone(),
        key: Some("held".into()),
        times: 5,
    };
    fleet.inject(fault).await;
    let mut held = fleet.test_producer().await;
    for _ in 0..5 {
        held.send_one(Some("held")).await;
    }
    let mut others = TestProducer::with(held.producer.clone(), &fleet.history, 1_000);
    for turn in 0..100 {
        others.send_one(Some(&format!("key-{}", turn % 10))).await;
    }
    let other = others.receipts().await;
    assert_eq!(other.len(), 100, "all records of the other keys are stored");
    let held = held.receipts().await;
    assert_eq!(held.len(), 5, "all records of the held key are stored");
    // One partition: the delayed records are stored after those that continued.
    let last = other.iter().map(|(_, metadata)| metadata.position).max();
    assert!(Some(held[0].1.position) > last, "the other keys waited");
    let member = fleet.member("reader").start().await;
    fleet.check().await;
    member.close().await;
}
