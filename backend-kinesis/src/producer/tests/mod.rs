//! The producer against a fake of Kinesis with scripted failures, in paused time.

mod explicit;
mod failing;
mod fake;
mod log;
mod order;
mod reader;
mod speed;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use millstream_core::driver::{Producer as _, Rejected};
use millstream_core::{Record, RecordMetadata};
use tokio::time::Instant;

use self::fake::Fake;
use super::Producer;
use super::settings::ProducerSettings;
use super::shard_map::ShardMap;
use crate::config::{self, Aggregation};

type CallResults = Vec<millstream_core::Result<RecordMetadata, Rejected>>;
type Call = BoxFuture<'static, CallResults>;

const BOTH: [Aggregation; 2] = [Aggregation::Off, Aggregation::Kpl];

/// The header for explicit hash keys.
const HASH_KEY: &str = "hash-key";

fn config(aggregation: Aggregation) -> config::Producer {
    config::Producer {
        aggregation,
        explicit_hash_key_header: Some(HASH_KEY.into()),
        ..config::Producer::default()
    }
}

fn start(fake: &Fake, config: config::Producer) -> Arc<Producer> {
    let settings = ProducerSettings {
        config,
        record_bytes: 1 << 20,
        epoch: Instant::now(),
    };
    let map = ShardMap::new("s".into(), &fake.world().shards).unwrap();
    Arc::new(Producer::start("s".into(), settings, fake.clone(), map))
}

/// Starts a call, and returns it when it has its place in the order.
async fn call(producer: &Arc<Producer>, records: Vec<Record>) -> Call {
    let producer = producer.clone();
    let mut call = async move { producer.send(records).await }.boxed();
    let first = poll_fn(|cx| Poll::Ready(call.poll_unpin(cx))).await;
    match first {
        Poll::Ready(results) => async { results }.boxed(),
        Poll::Pending => call,
    }
}

fn record(key: &str, number: u64) -> Record {
    Record::new(number.to_string()).key(key.to_owned())
}

fn kinds(results: &CallResults) -> Vec<Option<millstream_core::ErrorKind>> {
    let kind = |result: &Result<_, Rejected>| result.as_ref().err().map(|r| r.error.kind());
    results.iter().map(kind).collect()
}

/// Waits for the time between two checks of a condition.
async fn tick() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}
