//! The consuming hot path allocates for each batch, never for each record, and settled records leave no memory.

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
    let client = runtime.block_on(filled(8, records));
    let info = measure(|| consume(&runtime, &client, records));
    info.count_total
}

/// Most partitions are idle most of the time. A member must not keep the memory that each needed when it was busy.
#[test]
fn settled_records_leave_no_memory_with_their_partition() {
    const PARTITIONS: usize = 1_000;
    let [few, many] = [10, 100].map(|records| retained(PARTITIONS, records * PARTITIONS));
    assert!(
        many - few < 256 << 10,
        "{PARTITIONS} idle partitions take {few} bytes after few records, and {many} after many"
    );
}

/// Returns the bytes that a member takes when all records are settled.
fn retained(partitions: usize, records: usize) -> i64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let client = runtime.block_on(filled(partitions, records));
    let mut running = None;
    let info = measure(|| {
        let handler = |_| std::future::ready(Ok::<(), Infallible>(()));
        let run = group(&client).run(handler, std::future::pending());
        let control = run.handle();
        running = Some(runtime.spawn(run));
        runtime.block_on(async {
            while control.stats().settled < records as u64 {
                tokio::task::yield_now().await;
            }
        });
    });
    drop(running);
    info.bytes_current
}

async fn filled(partitions: usize, records: usize) -> Client {
    let client = millstream_memory::Config::default()
        .connect()
        .await
        .unwrap();
    client
        .streams()
        .create(StreamSpec::new("cars").partitions(partitions))
        .await
        .unwrap();
    let producer = client.producer("cars").open().await.unwrap();
    let payload = Bytes::from(vec![0; 512]);
    let keys: Vec<_> = (0..10_000)
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
