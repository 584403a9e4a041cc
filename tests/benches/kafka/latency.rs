//! From the moment that a record is due to be sent until a consumer handles it, at a steady rate.
//!
//! Records are due whatever became of those before (an open loop), and carry that time: who sends
//! late, or makes the sender wait, is charged for it.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use millstream_core::{Delivery, Record};
use rdkafka::consumer::Consumer as _;
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::environment::{keys, runtime};
use crate::job::{Measured, Side, Target};
use crate::ours::Throttle;
use crate::{Fault, Result, clock, ours, raw};

const PER_SECOND: usize = 10_000;
/// So many are due at once: a thread that sleeps is no more exact than this.
const BURST: usize = PER_SECOND / 1_000;
/// The first ones meet a group that is still being formed, and do not count.
const UNCOUNTED: usize = 3 * PER_SECOND;
const COUNTED: usize = 10 * PER_SECOND;
const BYTES: usize = 512;

/// The delays of the records so far, those that do not count included.
#[derive(Default)]
struct Delays {
    nanos: Mutex<Vec<u64>>,
    finished: Notify,
}

impl Delays {
    /// Whether it was the last one.
    fn add(&self, mut payload: &[u8]) -> bool {
        let due = payload.get_u64();
        let now = nanos(clock::monotonic());
        let mut delays = self.nanos.lock().unwrap_or_else(PoisonError::into_inner);
        delays.push(now.saturating_sub(due));
        let last = delays.len() == UNCOUNTED + COUNTED;
        if last {
            self.finished.notify_one();
        }
        last
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("centuries of uptime")
}

pub(crate) fn run(by: Side, linger_ms: u32, target: &Target) -> Result<Measured> {
    let delays = Arc::new(Delays::default());
    let runtime = runtime()?;
    let (adds, at) = (delays.clone(), target.clone());
    let run = runtime.spawn(async move {
        match by {
            Side::Ours => ours(&at, linger_ms, adds).await,
            Side::Raw => raw(&at, linger_ms, adds).await,
        }
    });
    runtime.block_on(run)??;
    drop(runtime);

    let delays = delays.nanos.lock().unwrap_or_else(PoisonError::into_inner);
    let mut counted = delays[UNCOUNTED..].to_vec();
    counted.sort_unstable();
    let at = |part: f64| counted[((counted.len() - 1) as f64 * part).round() as usize] as f64 / 1e6;
    let values = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)];
    Ok(values.map(|(name, part)| (name.into(), at(part))).into())
}

/// Calls `send` with key and payload of each record when it is due.
fn pace(mut send: impl FnMut(&str, Vec<u8>) -> Result<()>) -> Result<()> {
    let keys = keys().collect::<Vec<_>>();
    let mut keys = keys.iter().cycle();
    let begun = clock::monotonic();
    for burst in 0..(UNCOUNTED + COUNTED) / BURST {
        let due = begun + Duration::from_millis(burst as u64);
        thread::sleep(due.saturating_sub(clock::monotonic()));
        for key in keys.by_ref().take(BURST) {
            let mut payload = vec![b'x'; BYTES];
            payload[..8].copy_from_slice(&nanos(due).to_be_bytes());
            send(key, payload)?;
        }
    }
    Ok(())
}

async fn ours(target: &Target, linger_ms: u32, delays: Arc<Delays>) -> Result<()> {
    let client = ours::connect_lingering(target, linger_ms, Throttle::On).await?;
    let producer = client.producer(target.topic.as_str()).open().await?;
    let group = client.group(target.group.as_str()).stream(&*target.topic);
    let ends = delays.clone();
    let handle = move |delivery: Delivery| {
        let delays = delays.clone();
        async move {
            delays.add(delivery.payload());
            Ok::<_, Infallible>(())
        }
    };
    let ended = async move { ends.finished.notified().await };
    let member = tokio::spawn(group.run(handle, ended));

    let (sends, waits) = (producer.clone(), Handle::current());
    let paced = tokio::task::spawn_blocking(move || {
        pace(|key, payload| {
            let record = Record::new(payload).key(Bytes::copy_from_slice(key.as_bytes()));
            drop(waits.block_on(sends.send(record))?);
            Ok(())
        })
    });
    paced.await??;
    producer.close().await?;
    Ok(member.await??)
}

async fn raw(target: &Target, linger_ms: u32, delays: Arc<Delays>) -> Result<()> {
    let producer: FutureProducer = raw::producer(target, linger_ms).create()?;
    let mut config = raw::tuned_consumer(target);
    config.set("enable.auto.offset.store", "false");
    let consumer = raw::subscribe(&config, target)?;
    let member = tokio::spawn(async move {
        let mut records = consumer.stream();
        while let Some(record) = records.next().await {
            let record = record?;
            if let Some(headers) = record.headers() {
                headers.iter().for_each(|header| {
                    std::hint::black_box(header);
                });
            }
            let payload = Bytes::copy_from_slice(record.payload().unwrap_or_default());
            let last = delays.add(&payload);
            consumer.store_offset_from_message(&record)?;
            if last {
                break;
            }
        }
        Ok::<_, rdkafka::error::KafkaError>(())
    });

    let topic = target.topic.clone();
    let paced = tokio::task::spawn_blocking(move || {
        pace(|key, payload| {
            let record = FutureRecord::to(&topic).key(key).payload(&payload);
            producer.send_result(record).map_err(|(error, _)| error)?;
            Ok(())
        })?;
        Ok::<_, Fault>(producer.flush(Duration::from_secs(10))?)
    });
    paced.await??;
    Ok(member.await??)
}
