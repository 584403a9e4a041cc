//! The consuming hot path allocates for each batch, never for each record.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use allocation_counter::measure;
use bytes::Bytes;
use millstream_core::{Client, ConsumerGroup, Record, StreamSpec};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

const RECORDS: usize = 50_000;
const BATCH: usize = 1_000;
/// The maximum allocations of the driver and the runtime for one batch: the list of its records, the batch
/// that its deliveries share, a checkpoint.
const PER_BATCH: usize = 10;

/// A member, from its join until it has handled this many records and left.
type Consume = fn(&Runtime, &Client, usize);

#[test]
fn consuming_allocates_per_batch_and_not_per_record() {
    assert_allocates_per_batch(run);
}

#[test]
fn pulling_allocates_per_batch_and_not_per_record() {
    assert_allocates_per_batch(pull);
}

fn assert_allocates_per_batch(consume: Consume) {
    let once = allocations(RECORDS, consume);
    let twice = allocations(2 * RECORDS, consume);
    let more = twice.saturating_sub(once);
    let batches = (RECORDS / BATCH) as u64;
    assert!(
        more <= batches * PER_BATCH as u64,
        "{RECORDS} more records in {batches} more batches cost {more} more allocations ({once}, then {twice})"
    );
}

fn allocations(records: usize, consume: Consume) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let client = runtime.block_on(filled(records));
    let info = measure(|| consume(&runtime, &client, records));
    info.count_total
}

async fn filled(records: usize) -> Client {
    let client = millstream_memory::Config::default()
        .connect()
        .await
        .unwrap();
    client
        .streams()
        .create(StreamSpec::new("cars").partitions(8))
        .await
        .unwrap();
    let producer = client.producer("cars").open().await.unwrap();
    let payload = Bytes::from(vec![0; 512]);
    let keys: Vec<_> = (0..1_000)
        .map(|key| Bytes::from(format!("car-{key}")))
        .collect();
    for key in keys.iter().cycle().take(records) {
        drop(
            producer
                .send(Record::new(payload.clone()).key(key.clone()))
                .await
                .unwrap(),
        );
    }
    producer.close().await.unwrap();
    client
}

fn group(client: &Client) -> ConsumerGroup {
    client
        .group("counting")
        .stream("cars")
        .concurrency(64)
        .max_poll_records(BATCH)
}

fn run(runtime: &Runtime, client: &Client, records: usize) {
    let handled = Arc::new((AtomicUsize::new(0), Notify::new()));
    let ends = handled.clone();
    let handler = move |_delivery| {
        if handled.0.fetch_add(1, Relaxed) + 1 == records {
            handled.1.notify_one();
        }
        std::future::ready(Ok::<(), Infallible>(()))
    };
    let run = group(client).run(handler, async move { ends.1.notified().await });
    let control = run.handle();
    runtime.block_on(run).unwrap();
    assert_eq!(control.stats().settled, records as u64);
}

fn pull(runtime: &Runtime, client: &Client, records: usize) {
    runtime.block_on(async {
        let mut consumer = group(client).join().await.unwrap();
        let control = consumer.handle();
        for _ in 0..records {
            consumer.next().await.unwrap().unwrap().ack();
        }
        consumer.close().await.unwrap();
        assert_eq!(control.stats().settled, records as u64);
    });
}
