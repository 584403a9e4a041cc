//! C5: a handover does not wait for records that cannot settle in time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use millstream_core::{Consumer, Partition, Retry};
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

/// A member that takes over from another one, and handles what it pulls.
struct NextOwner<'a> {
    fleet: &'a Fleet,
    observer: Observer,
    consumer: Consumer,
}

impl<'a> NextOwner<'a> {
    /// Joins, and handles one record of the partition that it gets. The handover, counted from the join, takes no
    /// longer than a session.
    async fn take_over(fleet: &'a Fleet) -> Self {
        let observer = Observer::new(&fleet.history, &fleet.group, "b");
        let group = fleet.handle().await.member("b");
        let mut next = Self {
            consumer: group.join().await.expect("b joins"),
            observer,
            fleet,
        };
        let began = Instant::now();
        next.handle_up_to(1).await;
        let took = began.elapsed();
        let session = fleet.harness.timing().session;
        assert!(took < session, "the rebalance took {took:?}");
        let owned = next.consumer.handle().partitions();
        assert_eq!(owned.len(), 1, "b owns one of two partitions: {owned:?}");
        next
    }

    /// Handles records until it has handled so many.
    async fn handle_up_to(&mut self, records: usize) {
        while by(self.fleet, "b")() < records {
            let delivery = pull(self.fleet.harness.timing(), &mut self.consumer).await;
            self.observer.begin(&delivery).end(Outcome::Acked);
            delivery.ack();
        }
    }

    async fn close(self) {
        self.consumer.close().await.expect("b closes");
        self.observer.left();
    }
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

    let mut b = NextOwner::take_over(&fleet).await;
    let took = a.close().await;
    // With Kafka's classic protocol, a leave right after a rebalance waits for it, for two seconds at most.
    assert!(took < timing.session * DRAIN / 2, "the close took {took:?}");
    b.handle_up_to(KEYS).await;
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

    let mut b = NextOwner::take_over(&fleet).await;
    let moved = b.consumer.handle().partitions();
    let kept = sent.iter().filter(|(of, _)| !moved.contains_key(of));
    let kept: usize = kept.map(|(_, count)| count).sum();
    for _ in 0..kept {
        let delivery = pull(timing, &mut consumer).await;
        observer.begin(&delivery).end(Outcome::Acked);
        delivery.ack();
    }
    b.handle_up_to(KEYS - kept).await;
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
