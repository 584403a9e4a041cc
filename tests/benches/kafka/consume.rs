//! Consuming a full topic, as one member of a group of its own.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use millstream_core::Delivery;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::Notify;

use crate::environment::{PARTITIONS, STORED, runtime};
use crate::job::{Consumer, Measured, Target};
use crate::{Result, clock, ours, raw};

const UNSEEN: &str = "not every record was handled";

/// What has been handled. Both sides count by it.
#[derive(Default)]
struct Handled {
    count: AtomicUsize,
    first: OnceLock<Instant>,
    last: OnceLock<Instant>,
    finished: Notify,
}

impl Handled {
    /// Whether it was the last one.
    fn one(&self) -> bool {
        let before = self.count.fetch_add(1, Relaxed);
        if before == 0 {
            self.first.get_or_init(Instant::now);
        }
        if before + 1 == STORED {
            self.last.get_or_init(Instant::now);
            self.finished.notify_one();
        }
        before + 1 == STORED
    }
}

pub(crate) fn run(by: Consumer, target: &Target) -> Result<Measured> {
    let handled = Arc::new(Handled::default());
    let before = clock::processor();
    let runtime = runtime()?;
    let (counts, at) = (handled.clone(), target.clone());
    // Spawned, as a service would: the thread that blocks on a runtime is none of its workers.
    let consumed = runtime.spawn(async move {
        match by {
            Consumer::Ours => ours(&at, counts, None).await,
            Consumer::OursKeyed => ours(&at, counts, Some(64)).await,
            Consumer::Stream => same_job(&raw::tuned_consumer(&at), &at, &counts).await,
            Consumer::StreamAtDefaults => same_job(&raw::consumer(&at), &at, &counts).await,
            Consumer::StreamBare => bare(&at, &counts).await,
        }
    });
    runtime.block_on(consumed)??;
    drop(runtime);
    let spent = clock::processor() - before;

    assert_eq!(handled.count.load(Relaxed), STORED, "records handled");
    if by != Consumer::StreamBare {
        all_is_committed(target, STORED)?;
    }
    let (first, last) = handled.first.get().zip(handled.last.get()).ok_or(UNSEEN)?;
    let rate = STORED as f64 / (*last - *first).as_secs_f64();
    let each = spent.as_nanos() as f64 / STORED as f64;
    Ok([("rate".into(), rate), ("cpu".into(), each)].into())
}

async fn ours(target: &Target, handled: Arc<Handled>, concurrency: Option<usize>) -> Result<()> {
    let client = ours::connect(target).await?;
    let mut group = client.group(target.group.as_str()).stream(&*target.topic);
    if let Some(keys) = concurrency {
        group = group.concurrency(keys);
    }
    let ends = handled.clone();
    let handle = move |delivery: Delivery| {
        let handled = handled.clone();
        async move {
            for header in delivery.headers().iter() {
                black_box(header);
            }
            black_box(delivery.payload());
            handled.one();
            Ok::<_, Infallible>(())
        }
    };
    let ended = async move { ends.finished.notified().await };
    Ok(group.run(handle, ended).await?)
}

async fn same_job(
    config: &rdkafka::ClientConfig,
    target: &Target,
    handled: &Handled,
) -> Result<()> {
    let mut config = config.clone();
    config.set("enable.auto.offset.store", "false");
    let consumer = raw::subscribe(&config, target)?;
    let mut records = consumer.stream();
    while let Some(record) = records.next().await {
        let record = record?;
        if let Some(headers) = record.headers() {
            for header in headers.iter() {
                black_box(header);
            }
        }
        black_box(Bytes::copy_from_slice(record.payload().ok_or(UNSEEN)?));
        consumer.store_offset_from_message(&record)?;
        if handled.one() {
            break;
        }
    }
    Ok(())
}

async fn bare(target: &Target, handled: &Handled) -> Result<()> {
    let mut config = raw::tuned_consumer(target);
    config.set("enable.auto.offset.store", "false");
    config.set("enable.auto.commit", "false");
    let consumer = raw::subscribe(&config, target)?;
    let mut records = consumer.stream();
    while let Some(record) = records.next().await {
        black_box(record?.payload());
        if handled.one() {
            break;
        }
    }
    Ok(())
}

/// A figure counts only if the broker knows that every record was settled.
pub(crate) fn all_is_committed(target: &Target, records: usize) -> Result<()> {
    let asker: BaseConsumer = raw::consumer(target).create()?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_range(&target.topic, 0, PARTITIONS - 1);
    let committed = asker.committed_offsets(partitions, Duration::from_secs(10))?;
    let offset =
        |each: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match each.offset() {
            Offset::Offset(next) => next,
            _ => 0,
        };
    let settled: i64 = committed.elements().into_iter().map(offset).sum();
    if settled != records as i64 {
        return Err(format!("progress is stored for {settled} records of {records}").into());
    }
    Ok(())
}
