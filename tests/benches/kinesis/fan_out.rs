//! Enhanced fan-out: the time from the due time of a record's send until it is handled, at a steady
//! rate.
//!
//! Records are due regardless of earlier ones (an open loop). The same records are sent to both sides
//! by plain requests; the emulator polls for records to push 5 times a second, which is most of the time.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_kinesis::types::{
    ConsumerStatus, ShardIteratorType, StartingPosition, SubscribeToShardEventStream,
};
use bytes::Buf;
use millstream_core::Delivery;
use millstream_kinesis::Retrieval;
use tokio::sync::Notify;

use crate::environment::runtime;
use crate::feed::Feed;
use crate::job::{Measured, Side, Target};
use crate::{Fault, Result, clock, ours, raw};

/// The interval between two groups of four records.
const EVERY: Duration = Duration::from_millis(20);
/// The first records meet subscriptions that are still being created, and do not count.
const UNCOUNTED: usize = 1_000;
const COUNTED: usize = 3_000;
const TIMEOUT: Duration = Duration::from_secs(30);

/// The delays of the records so far, including those that do not count.
#[derive(Default)]
struct Delays {
    nanos: Mutex<Vec<u64>>,
    finished: Notify,
}

impl Delays {
    fn add(&self, mut payload: &[u8]) {
        let due = payload.get_u64();
        let now = nanos(clock::monotonic());
        let mut delays = self.nanos.lock().unwrap_or_else(PoisonError::into_inner);
        delays.push(now.saturating_sub(due));
        if delays.len() == UNCOUNTED + COUNTED {
            self.finished.notify_one();
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("centuries of uptime")
}

pub(crate) fn run(by: Side, target: &Target) -> Result<Measured> {
    let delays = Arc::new(Delays::default());
    let runtime = runtime()?;
    let (adds, at) = (delays.clone(), target.clone());
    let run = runtime.spawn(async move {
        let feed = Feed::start(&at, EVERY);
        match by {
            Side::Ours => ours(&at, adds).await?,
            Side::Raw => raw(&at, adds).await?,
        }
        feed.stop().await
    });
    runtime.block_on(run)??;
    drop(runtime);

    let delays = delays.nanos.lock().unwrap_or_else(PoisonError::into_inner);
    let mut counted = delays[UNCOUNTED..UNCOUNTED + COUNTED].to_vec();
    counted.sort_unstable();
    let at = |part: f64| counted[((counted.len() - 1) as f64 * part).round() as usize] as f64 / 1e6;
    Ok([("p50".into(), at(0.5)), ("p99".into(), at(0.99))].into())
}

async fn ours(target: &Target, delays: Arc<Delays>) -> Result<()> {
    let mut config = ours::config(target);
    config.consumer.retrieval = Retrieval::FanOut;
    let client = config.connect().await?;
    let group = client.group(target.group.as_str()).stream(&*target.stream);
    let ends = delays.clone();
    let handle = move |delivery: Delivery| {
        let delays = delays.clone();
        async move {
            delays.add(delivery.payload());
            Ok::<_, Infallible>(())
        }
    };
    let ended = async move { ends.finished.notified().await };
    Ok(group.run(handle, ended).await?)
}

async fn raw(target: &Target, delays: Arc<Delays>) -> Result<()> {
    let kinesis = raw::kinesis(&target.kinesis);
    let consumer = register(&kinesis, target).await?;
    let shards = kinesis.list_shards().stream_name(&target.stream);
    let mut readers = tokio::task::JoinSet::new();
    for shard in shards.send().await?.shards() {
        let (kinesis, consumer) = (kinesis.clone(), consumer.clone());
        let (shard, delays) = (shard.shard_id().to_owned(), delays.clone());
        readers.spawn(async move { subscribe(&kinesis, &consumer, &shard, &delays).await });
    }
    tokio::select! {
        () = delays.finished.notified() => Ok(()),
        Some(ended) = readers.join_next() => ended?,
    }
}

async fn register(kinesis: &aws_sdk_kinesis::Client, target: &Target) -> Result<String> {
    let summary = kinesis
        .describe_stream_summary()
        .stream_name(&target.stream);
    let summary = summary.send().await?.stream_description_summary;
    let arn = summary.ok_or("no summary in the response")?.stream_arn;
    let registered = kinesis.register_stream_consumer().stream_arn(arn);
    let registered = registered.consumer_name(&target.group).send().await?;
    let consumer = registered.consumer.ok_or("no consumer in the response")?;
    let begun = Instant::now();
    loop {
        let request = kinesis.describe_stream_consumer();
        let request = request.consumer_arn(&consumer.consumer_arn).send().await?;
        let status = request
            .consumer_description
            .map(|reported| reported.consumer_status);
        if status == Some(ConsumerStatus::Active) {
            return Ok(consumer.consumer_arn);
        }
        if begun.elapsed() > TIMEOUT {
            return Err(format!("the consumer is not active after {TIMEOUT:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Continues where the last subscription ended. Subscriptions end after 5 minutes.
async fn subscribe(
    kinesis: &aws_sdk_kinesis::Client,
    consumer: &str,
    shard: &str,
    delays: &Delays,
) -> Result<()> {
    let mut from = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon);
    loop {
        let subscription = kinesis.subscribe_to_shard().consumer_arn(consumer);
        let subscription = subscription
            .shard_id(shard)
            .starting_position(from.build()?);
        let mut events = subscription.send().await?.event_stream;
        let mut last = None;
        while let Some(event) = events.recv().await? {
            if let SubscribeToShardEventStream::SubscribeToShardEvent(event) = event {
                for record in &event.records {
                    delays.add(record.data().as_ref());
                }
                last = Some(event.continuation_sequence_number);
            }
        }
        let last = last.ok_or_else(|| Fault::from("a subscription without an event"))?;
        from = StartingPosition::builder()
            .r#type(ShardIteratorType::AfterSequenceNumber)
            .sequence_number(last);
    }
}
