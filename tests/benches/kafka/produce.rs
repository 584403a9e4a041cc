//! Sending keyed records, with every receipt awaited.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use millstream_core::Record;
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};

use crate::environment::{keys, runtime};
use crate::job::{Measured, Producer, Target};
use crate::ours::Throttle;
use crate::{Result, clock, ours, raw};

/// The backend's own default.
pub(crate) const LINGER_MS: u32 = 5;

const RECORDS: usize = 1_000_000;
const BYTES: usize = 512;
/// How many receipts are open before the oldest is awaited.
const RECEIPTS: usize = 10_000;
const NONE_OPEN: &str = "no receipt is open";

pub(crate) fn run(by: Producer, linger_ms: u32, target: &Target) -> Result<Measured> {
    let before = clock::processor();
    let runtime = runtime()?;
    let at = target.clone();
    let produced = runtime.spawn(async move {
        match by {
            Producer::Ours => ours(&at, linger_ms, Throttle::On).await,
            Producer::OursUnthrottled => ours(&at, linger_ms, Throttle::Off).await,
            Producer::Future => raw(&at, linger_ms, InOrder::default()).await,
            Producer::FutureUnordered => raw(&at, linger_ms, FuturesUnordered::new()).await,
        }
    });
    let rate = runtime.block_on(produced)??;
    drop(runtime);
    let spent = clock::processor() - before;
    let each = spent.as_nanos() as f64 / RECORDS as f64;
    Ok([("rate".into(), rate), ("cpu".into(), each)].into())
}

fn rate(begun: Instant) -> f64 {
    RECORDS as f64 / begun.elapsed().as_secs_f64()
}

async fn ours(target: &Target, linger_ms: u32, throttle: Throttle) -> Result<f64> {
    let client = ours::connect_lingering(target, linger_ms, throttle).await?;
    let producer = client.producer(target.topic.as_str()).open().await?;
    let payload = Bytes::from(vec![b'x'; BYTES]);
    let keys = keys().map(Bytes::from).collect::<Vec<_>>();
    let mut receipts = VecDeque::with_capacity(RECEIPTS);
    let begun = Instant::now();
    for key in keys.iter().cycle().take(RECORDS) {
        if receipts.len() == RECEIPTS {
            if let Some(oldest) = receipts.pop_front() {
                let _: millstream_core::RecordMetadata = oldest.await?;
            }
        }
        let record = Record::new(payload.clone()).key(key.clone());
        receipts.push_back(producer.send(record).await?);
    }
    for receipt in receipts {
        receipt.await?;
    }
    let rate = rate(begun);
    producer.close().await?;
    Ok(rate)
}

async fn raw(target: &Target, linger_ms: u32, mut receipts: impl Receipts) -> Result<f64> {
    let producer: FutureProducer = raw::producer(target, linger_ms).create()?;
    let payload = vec![b'x'; BYTES];
    let keys = keys().collect::<Vec<_>>();
    let begun = Instant::now();
    for (sent, key) in keys.iter().cycle().take(RECORDS).enumerate() {
        if sent >= RECEIPTS {
            receipts.one().await?;
        }
        let record = FutureRecord::to(&target.topic).key(key).payload(&payload);
        receipts.add(producer.send_result(record).map_err(|(error, _)| error)?);
    }
    for _ in 0..RECEIPTS {
        receipts.one().await?;
    }
    Ok(rate(begun))
}

/// The open receipts of a `FutureProducer`.
trait Receipts: Send {
    fn add(&mut self, receipt: DeliveryFuture);

    /// Awaits one of those that are open.
    fn one(&mut self) -> impl Future<Output = Result<()>> + Send;
}

#[derive(Default)]
struct InOrder(VecDeque<DeliveryFuture>);

impl Receipts for InOrder {
    fn add(&mut self, receipt: DeliveryFuture) {
        self.0.push_back(receipt);
    }

    async fn one(&mut self) -> Result<()> {
        let oldest = self.0.pop_front().ok_or(NONE_OPEN)?;
        oldest.await?.map_err(|(error, _)| error)?;
        Ok(())
    }
}

impl Receipts for FuturesUnordered<DeliveryFuture> {
    fn add(&mut self, receipt: DeliveryFuture) {
        self.push(receipt);
    }

    async fn one(&mut self) -> Result<()> {
        let next = self.next().await.ok_or(NONE_OPEN)?;
        next?.map_err(|(error, _)| error)?;
        Ok(())
    }
}
