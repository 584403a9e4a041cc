//! C8: a stuck key stops no other partition, whatever the member's style of consumption and buffer limits.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};
use millstream_core::{
    BatchFailure, ConsumerGroup, Delivery, Partition, PendingDelivery, Position, Producer, Record,
    RecordMetadata, Result,
};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::cases;
use super::reader::{ids_by_key, read};
use crate::Harness;
use crate::fleet::{Fleet, joined};
use crate::harness::unique_stream;
use crate::history::{Event, Observer, Outcome};

cases! {
    c08_stuck_key_stops_no_other_partition,
    c08_stuck_key_stops_no_other_partition_in_batches,
    c08_stuck_key_stops_no_other_partition_when_pulled,
    c08_stuck_key_stops_no_other_partition_of_a_pipeline,
    c08_stuck_key_stops_no_other_partition_of_an_exactly_once_pipeline [EXACTLY_ONCE],
}

/// The number of records of the stuck key, which are sent first: several times the tiny buffer. A backend may
/// send the records of one key one by one, so more would only take long.
const STUCK: usize = 40;
/// The number of other keys, in both partitions. Each has a record in each round.
const KEYS: usize = 12;
const ROUNDS: usize = 6;
/// About ten records.
const TINY_BUFFER: usize = 400;
/// The number of stuck records that fill the default buffer of 64 MiB: one of two partitions may hold its share of
/// 16 MiB, and borrow 32.
const LARGE: usize = 60;
const LARGE_BYTES: usize = 900_000;

/// The buffer of the member, and how much of it the stuck key fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Buffer {
    /// A buffer that small records fill.
    Tiny,
    /// The default buffer, with much room.
    Default,
    /// The default buffer, filled by large records.
    DefaultFull,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Handler,
    Batches,
    Pull,
    Pipeline,
    ExactlyOncePipeline,
}

async fn c08_stuck_key_stops_no_other_partition(harness: Arc<dyn Harness>) {
    with_each_buffer(harness, Style::Handler).await;
}

async fn c08_stuck_key_stops_no_other_partition_in_batches(harness: Arc<dyn Harness>) {
    with_each_buffer(harness, Style::Batches).await;
}

async fn c08_stuck_key_stops_no_other_partition_when_pulled(harness: Arc<dyn Harness>) {
    with_each_buffer(harness, Style::Pull).await;
}

async fn c08_stuck_key_stops_no_other_partition_of_a_pipeline(harness: Arc<dyn Harness>) {
    with_each_buffer(harness, Style::Pipeline).await;
}

async fn c08_stuck_key_stops_no_other_partition_of_an_exactly_once_pipeline(
    harness: Arc<dyn Harness>,
) {
    with_each_buffer(harness, Style::ExactlyOncePipeline).await;
}

/// Runs a member with a tiny buffer and one with the default buffer concurrently, each in its own
/// fleet. If large records cost no time, they fill the default buffer of a third member.
async fn with_each_buffer(harness: Arc<dyn Harness>, style: Style) {
    let tiny = stick(harness.clone(), style, Buffer::Tiny);
    tokio::join!(tiny, stick(harness.clone(), style, Buffer::Default));
    let is_of_interest = matches!(style, Style::Handler | Style::ExactlyOncePipeline);
    if harness.hooks().paused_clock && is_of_interest {
        stick(harness, style, Buffer::DefaultFull).await;
    }
}

async fn stick(harness: Arc<dyn Harness>, style: Style, buffer: Buffer) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 2).await;
    let sink = unique_stream(&*fleet.harness, 1).await;
    let sink_client = match style {
        Style::ExactlyOncePipeline => fleet.client.clone(),
        _ => fleet.harness.client().await,
    };
    let producer = sink_client.producer(sink.as_str()).open().await;
    let producer = producer.expect("the producer opens");
    let (open, gate) = watch::channel(false);
    let worker = Worker {
        observer: Observer::new(&fleet.history, &fleet.group, "a"),
        gate,
    };
    let group = fleet.client.group(fleet.group.as_str()).member("a");
    let mut group = group
        .stream(fleet.stream.as_str())
        .checkpoint_interval(timing.poll_interval);
    if buffer == Buffer::Tiny {
        group = group.buffer_bytes(TINY_BUFFER);
    }
    let (stuck_records, padding) = match buffer {
        Buffer::Tiny | Buffer::Default => (STUCK, 0),
        Buffer::DefaultFull => (LARGE, LARGE_BYTES),
    };
    let (stop, task) = worker.clone().start(style, group, &producer);

    let mut test_producer = fleet.test_producer().await;
    for _ in 0..stuck_records {
        test_producer.send_padded(Some("stuck"), padding).await;
    }
    let stuck = test_producer.receipts().await;
    assert_eq!(stuck.len(), stuck_records, "all are stored");
    let held = stuck[0].1.partition.clone();
    let begun = || {
        fleet
            .history
            .count(|event| matches!(event, Event::Began(_)))
    };
    fleet.until("the key is stuck", || begun() > 0).await;

    // In rounds, because a fetch of the other partition may be in flight when the buffer gets full.
    let mut same = Vec::new();
    for _ in 0..ROUNDS {
        for key in 0..KEYS {
            test_producer.send_one(Some(&format!("key-{key}"))).await;
        }
        let others = test_producer.receipts().await;
        assert_eq!(others.len(), KEYS, "all are stored");
        let (beside, without): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|(_, at)| at.partition == held);
        assert!(!beside.is_empty() && !without.is_empty(), "both have keys");
        let with = format!("{style:?} with buffer {buffer:?}");
        let what = format!("{with}: the other partition is handled");
        fleet.until(&what, || are_acked(&fleet, &without)).await;
        let last = without.iter().map(|(_, at)| at.position).max();
        let what = format!("{with}: its checkpoint is at its end");
        let stored = fleet.eventually(&what, || async {
            (checkpoint(&fleet, &without[0].1.partition).await >= last).then_some(())
        });
        stored.await;
        same.extend(beside);
    }
    test_producer.close().await;
    // A partition has one batch at a time, and the stuck key may fill the buffer.
    if style != Style::Batches && buffer == Buffer::Default {
        let what = format!("{style:?}: the other keys of its partition are handled");
        fleet.until(&what, || are_acked(&fleet, &same)).await;
    }
    assert_eq!(checkpoint(&fleet, &held).await, None, "the stuck one holds");

    open.send(true).expect("the member runs");
    let summary = fleet.check().await;
    assert_eq!(summary.duplicates, 0, "{summary:?}");
    fleet.caught_up().await;
    stop.send(()).expect("the member runs");
    joined(task).await.expect("the member closes");
    worker.observer.left();
    producer.close().await.expect("the producer closes");
    if matches!(style, Style::Pipeline | Style::ExactlyOncePipeline) {
        let count = stuck_records + KEYS * ROUNDS;
        let source = read(&*fleet.harness, &fleet.stream, count).await;
        let results = read(&*fleet.harness, &sink, count).await;
        assert_eq!(
            ids_by_key(&results),
            ids_by_key(&source),
            "the results are those of the source"
        );
    }
}

/// Returns whether the group has acked all of these.
fn are_acked(fleet: &Fleet, records: &[(u64, RecordMetadata)]) -> bool {
    let mut left: BTreeSet<u64> = records.iter().map(|(id, _)| *id).collect();
    fleet.history.each(|event| {
        if let Event::Ended { handling, outcome } = event {
            if *outcome == Outcome::Acked {
                left.remove(&handling.id);
            }
        }
    });
    left.is_empty()
}

async fn checkpoint(fleet: &Fleet, partition: &Partition) -> Option<Position> {
    let checkpoints = fleet.checkpoints().await;
    let of = checkpoints.into_iter().find(|c| c.partition == *partition);
    of.and_then(|checkpoint| checkpoint.position)
}

/// Handles the records of the stuck key only when the gate is open.
#[derive(Clone)]
struct Worker {
    observer: Observer,
    gate: watch::Receiver<bool>,
}

impl Worker {
    fn start(
        self,
        style: Style,
        group: ConsumerGroup,
        to: &Producer,
    ) -> (oneshot::Sender<()>, JoinHandle<Result<()>>) {
        let (stop, stopped) = oneshot::channel::<()>();
        let asked = async move { _ = stopped.await };
        let task = match style {
            Style::Handler => {
                let handler = move |delivery| self.clone().handle(delivery);
                tokio::spawn(group.run(handler, asked))
            }
            Style::Batches => {
                let handler = move |batch| self.clone().handle_batch(batch);
                tokio::spawn(group.run_batches(10, handler, asked))
            }
            Style::Pull => tokio::spawn(self.pull(group, asked)),
            Style::Pipeline | Style::ExactlyOncePipeline => {
                let transform = move |delivery| self.clone().pass_on(delivery);
                tokio::spawn(group.transform_to(to, transform, asked))
            }
        };
        (stop, task)
    }

    async fn handle(self, delivery: Delivery) -> std::result::Result<(), Infallible> {
        self.work_on(&delivery).await;
        Ok(())
    }

    async fn handle_batch(self, batch: Vec<Delivery>) -> std::result::Result<(), BatchFailure> {
        for delivery in &batch {
            self.work_on(delivery).await;
        }
        Ok(())
    }

    async fn pass_on(self, delivery: Delivery) -> std::result::Result<[Record; 1], Infallible> {
        self.work_on(&delivery).await;
        Ok([delivery.to_record()])
    }

    async fn pull(self, group: ConsumerGroup, asked: impl Future<Output = ()>) -> Result<()> {
        let mut consumer = group.join().await?;
        let mut held = FuturesUnordered::new();
        tokio::pin!(asked);
        loop {
            tokio::select! {
                Some(()) = held.next() => {}
                () = &mut asked => break,
                next = consumer.next() => match next? {
                    Some(delivery) => held.push(self.settle(delivery)),
                    None => break,
                },
            }
        }
        consumer.close().await
    }

    async fn settle(&self, delivery: PendingDelivery) {
        self.work_on(&delivery).await;
        delivery.ack();
    }

    async fn work_on(&self, delivery: &Delivery) {
        let open = self.observer.begin(delivery);
        if delivery.key().is_some_and(|key| key == "stuck") {
            let mut gate = self.gate.clone();
            gate.wait_for(|open| *open).await.expect("the case runs");
        }
        open.end(Outcome::Acked);
    }
}
