//! C10: Earliest, Latest, At(time); Latest is pinned when the group is created.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::Start;

use super::cases;
use super::reader::{nothing_comes, pull, read};
use crate::Harness;
use crate::fleet::{Fleet, TestProducer, handler_fn};
use crate::harness::unique_stream;
use crate::history::{Event, History, id_of};

cases! {
    c10_earliest_reads_all,
    c10_latest_reads_records_after_group_creation,
    c10_latest_is_pinned_at_group_creation,
    c10_at_a_time,
    c10_at_a_time_after_the_end,
    c10_start_applies_only_to_new_groups,
}

async fn c10_earliest_reads_all(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 3).await;
    fleet.send(6, 10).await;
    let member = fleet
        .member("a")
        .with(|group| group.start(Start::Earliest))
        .start()
        .await;
    let summary = fleet.check().await;
    assert_eq!(summary.handled, 60, "{summary:?}");
    member.close().await;
}

/// Returns a stream with 10 records, and a group that must settle only records that are sent from now on.
async fn late(harness: Arc<dyn Harness>) -> Fleet {
    let stream = unique_stream(&*harness, 2).await;
    let history = History::new();
    let mut test_producer =
        TestProducer::open(&harness.client().await, &stream, &history, 9_000).await;
    test_producer.send(5, 2).await;
    test_producer.close().await;
    Fleet::on(harness, stream, history, false).await
}

fn early(fleet: &Fleet) -> usize {
    fleet
        .history
        .count(|e| matches!(e, Event::Began(handling) if handling.id >= 9_000))
}

async fn c10_latest_reads_records_after_group_creation(harness: Arc<dyn Harness>) {
    let fleet = late(harness).await;
    let member = fleet
        .member("a")
        .with(|group| group.start(Start::Latest))
        .start()
        .await;
    fleet
        .until("the group is created", || member.owns() == 2)
        .await;
    fleet.send(5, 4).await;
    let summary = fleet.check().await;
    assert_eq!((summary.handled, early(&fleet)), (20, 0), "{summary:?}");
    member.close().await;
}

async fn c10_latest_is_pinned_at_group_creation(harness: Arc<dyn Harness>) {
    let fleet = late(harness).await;
    let hangs = handler_fn(|_| async {
        std::future::pending::<()>().await;
        Ok(())
    });
    let never = Duration::from_secs(24 * 60 * 60);
    let member = fleet.member("a").handler(hangs);
    let member = member.with(|group| group.start(Start::Latest).checkpoint_interval(never));
    let member = member.start().await;
    fleet
        .until("the group is created", || member.owns() == 2)
        .await;
    fleet.send(5, 4).await;
    fleet
        .until("its handlers hang", || {
            member.handle().stats().in_flight == 5
        })
        .await;
    member.crash().await;
    let member = fleet
        .member("b")
        .with(|group| group.start(Start::Latest))
        .start()
        .await;
    let summary = fleet.check().await;
    assert_eq!((summary.handled, early(&fleet)), (20, 0), "{summary:?}");
    member.close().await;
}

/// Sends `count` records, and returns the ids.
async fn send(test_producer: &mut TestProducer, count: usize) -> Vec<u64> {
    let mut ids = Vec::new();
    for turn in 0..count {
        ids.push(
            test_producer
                .send_one(Some(&format!("key-{}", turn % 4)))
                .await,
        );
    }
    test_producer.receipts().await;
    ids
}

async fn c10_at_a_time(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 2).await;
    let mut test_producer = fleet.test_producer().await;
    let before = send(&mut test_producer, 10).await;
    // Records that are sent now have a later timestamp.
    tokio::time::sleep(timing.timestamps + timing.poll_interval).await;
    let after = send(&mut test_producer, 10).await;
    test_producer.close().await;
    let all = read(&*fleet.harness, &fleet.stream, 20).await;
    let is_after = |payload: &[u8]| id_of(payload).is_some_and(|id| after.contains(&id));
    let time = all
        .iter()
        .filter(|d| is_after(d.payload()))
        .map(|d| d.timestamp())
        .min();
    let time = time.expect("there are records");
    assert!(
        all.iter()
            .all(|d| is_after(d.payload()) || d.timestamp() < time),
        "records that were stored before have earlier timestamps"
    );
    let group = fleet.handle().await.start(Start::At(time));
    let mut consumer = group.join().await.expect("the reader joins");
    let mut got = Vec::new();
    for _ in 0..10 {
        let delivery = pull(timing, &mut consumer).await;
        got.push(id_of(delivery.payload()).expect("the payload has its id"));
        delivery.ack();
    }
    assert!(
        nothing_comes(timing, &mut consumer).await,
        "nothing else comes"
    );
    got.sort_unstable();
    assert_eq!(got, after, "what was stored from that time on comes");
    assert!(
        before.iter().all(|id| !got.contains(id)),
        "nothing that was stored before comes"
    );
    consumer.close().await.expect("the reader closes");
}

async fn c10_at_a_time_after_the_end(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = late(harness).await;
    let newest = read(&*fleet.harness, &fleet.stream, 10).await;
    let newest = newest
        .iter()
        .map(|d| d.timestamp())
        .max()
        .expect("there are records");
    let group = fleet
        .handle()
        .await
        .start(Start::At(newest + Duration::from_millis(1)));
    let mut consumer = group.join().await.expect("the reader joins");
    assert!(
        nothing_comes(timing, &mut consumer).await,
        "nothing was stored after that time"
    );
    let mut test_producer = fleet.test_producer().await;
    let id = test_producer.send_one(Some("key")).await;
    test_producer.close().await;
    let delivery = pull(timing, &mut consumer).await;
    assert_eq!(id_of(delivery.payload()), Some(id), "the new record comes");
    delivery.ack();
    consumer.close().await.expect("the reader closes");
}

async fn c10_start_applies_only_to_new_groups(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    let member = fleet.member("a").start().await;
    fleet
        .until("the group is created", || member.owns() == 2)
        .await;
    member.close().await;
    fleet.send(5, 4).await;
    let member = fleet
        .member("b")
        .with(|group| group.start(Start::Latest))
        .start()
        .await;
    let summary = fleet.check().await;
    assert_eq!(summary.handled, 20, "{summary:?}");
    member.close().await;
}
