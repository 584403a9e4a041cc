//! Aggregates of writers that do not know shards, as fluent-bit and Lambda functions.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use conformance::{Harness, eventually};
use md5::{Digest, Md5};
use millstream_core::{ConsumerStats, Start};
use millstream_kinesis::{Config, ForeignAggregates};
use tokio::time::timeout;

use crate::fixture::{Fixture, KEYS};

/// The magic number at the start of an aggregate.
const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];

/// One record of each key, by the format of the Kinesis Producer Library.
fn aggregate() -> Vec<u8> {
    let mut message = Vec::new();
    for key in 0..KEYS {
        let key = format!("key-{key}");
        message.extend([0x0A, key.len() as u8]);
        message.extend(key.as_bytes());
    }
    for index in 0..KEYS {
        let record = [0x08, index as u8, 0x1A, 0x01, b'x'];
        message.extend([0x1A, record.len() as u8]);
        message.extend(record);
    }
    let sum = Md5::digest(&message);
    [&MAGIC[..], &message, &sum].concat()
}

/// Stores one in each of two shards.
async fn store(fixture: &Fixture) {
    let fleet = &fixture.fleet;
    for hash_key in [0, u128::MAX] {
        let kinesis = fixture.harness.testbed().kinesis();
        // The client may have been used by another case, whose runtime is gone.
        eventually(fixture.harness.timing(), "it is stored", || async move {
            let put = kinesis.put_record().stream_name(&fleet.stream);
            let put = put.partition_key("any").data(Blob::new(aggregate()));
            let put = put.explicit_hash_key(hash_key.to_string()).send();
            timeout(Duration::from_secs(5), put).await.ok()?.ok()
        })
        .await;
    }
}

/// Reads them with a group of its own until this many records are handled. Returns how often each key was, by
/// partition, and the counters.
async fn read(
    fixture: &Fixture,
    foreign: ForeignAggregates,
    records: usize,
) -> (BTreeMap<String, usize>, ConsumerStats) {
    let fleet = &fixture.fleet;
    let set = |config: &mut Config| config.consumer.foreign_aggregates = foreign;
    let client = fixture.harness.client_with("", set).await;
    let group = client.group(format!("{}-reads", fleet.group));
    let group = group.stream(fleet.stream.as_str());
    let mut consumer = group.start(Start::Earliest).join().await.expect("it joins");
    let patience = fixture.harness.timing().timeout;
    let mut handled = BTreeMap::<_, usize>::new();
    while handled.values().sum::<usize>() < records {
        let next = timeout(patience, consumer.next()).await;
        let next = next.unwrap_or_else(|_| panic!("only these come: {handled:?}"));
        let delivery = next.expect("it continues").expect("it has not ended");
        let key = String::from_utf8_lossy(delivery.key().expect("each has one"));
        let partition = delivery.partition().id();
        let place = format!("{key} of {partition}");
        *handled.entry(place).or_default() += 1;
        delivery.ack();
    }
    let handle = consumer.handle();
    consumer.close().await.expect("it closes");
    (handled, handle.stats())
}

/// All their records are handled, whatever their hash keys are.
pub(crate) async fn aggregates_are_delivered_whole(fixture: Fixture) {
    store(&fixture).await;
    let (handled, stats) = read(&fixture, ForeignAggregates::Deliver, 2 * KEYS).await;
    assert_eq!(handled.len(), 2 * KEYS, "each once in each: {handled:?}");
    assert_eq!(stats.filtered, 0);
}

/// In its own shard, each key is handled once, and what is left out of the other is counted.
pub(crate) async fn records_left_out_are_counted(fixture: Fixture) {
    store(&fixture).await;
    let (handled, stats) = read(&fixture, ForeignAggregates::Filter, KEYS).await;
    assert_eq!(handled.len(), KEYS, "each once: {handled:?}");
    assert_eq!(stats.filtered as usize, KEYS);
}
