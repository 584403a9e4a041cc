//! A broker with outdated metadata: for a while it does not know an existing topic.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use millstream_core::{Consumer, Record};
use millstream_kafka::Config;
use tokio::time::{Instant, sleep, timeout};

use crate::fixture::{Fixture, KEYS, TIMEOUT, pull, stream, unique, until};

/// How long the topic is unknown.
const STALE: Duration = Duration::from_secs(8);

/// A topic that librdkafka has known for this long is removed at the first response without it.
const ESTABLISHED: Duration = Duration::from_secs(6);

/// Makes each client send many requests while the topic is unknown.
fn ask_often(config: &mut Config) {
    let interval = "topic.metadata.refresh.interval.ms".to_owned();
    config.librdkafka.extend([(interval, "500".to_owned())]);
}

async fn read_all(consumer: &mut Consumer, count: usize) {
    let mut missing: BTreeSet<String> = (0..count).map(|number| number.to_string()).collect();
    while !missing.is_empty() {
        let next = timeout(TIMEOUT, consumer.next()).await;
        let next = next.unwrap_or_else(|_| panic!("{} of {count} are missing", missing.len()));
        let delivery = next.expect("the member continues").expect("it is open");
        missing.remove(&*String::from_utf8_lossy(delivery.payload()));
        delivery.ack();
    }
}

/// The member does not end, and no record fails: records that were sent meanwhile are stored when the topic is known
/// again.
pub(crate) async fn topic(fixture: Arc<Fixture>) {
    let client = fixture.client_with(unique("stale"), ask_often).await;
    let stream = stream(&client, 0).await;
    let producer = client.producer(&*stream).open().await;
    let producer = producer.expect("it opens");
    let group = client.group(unique("group")).stream(&*stream);
    let mut consumer = group.join().await.expect("it joins");
    let receipt = producer.send(Record::new("first")).await;
    receipt.expect("there is room").await.expect("it is stored");
    pull(&mut consumer, 1).await.remove(0).ack();
    let begun = Instant::now();
    until("the topic is known for long", || {
        begun.elapsed() >= ESTABLISHED
    })
    .await;

    let faults = fixture.testbed.faults();
    faults.hide_topic(&stream, u32::MAX);
    let begun = Instant::now();
    let mut receipts = Vec::new();
    while begun.elapsed() < STALE {
        let number = receipts.len();
        let record = Record::new(number.to_string()).key(format!("key-{}", number % KEYS));
        receipts.push(producer.send(record).await.expect("there is room"));
        sleep(Duration::from_millis(2)).await;
    }
    assert!(faults.hits(&stream) >= 10, "{}", faults.hits(&stream));
    faults.hide_topic(&stream, 0);

    let count = receipts.len();
    let mut last = BTreeMap::new();
    for (number, receipt) in receipts.into_iter().enumerate() {
        let stored = timeout(TIMEOUT, receipt).await.expect("it resolves");
        let stored = stored.unwrap_or_else(|error| panic!("record {number}: {error:?}"));
        let before = last.insert(number % KEYS, stored.position);
        assert!(
            before < Some(stored.position),
            "record {number} is in order"
        );
    }
    println!(
        "{count} records are stored {:?} after",
        begun.elapsed() - STALE
    );
    read_all(&mut consumer, count).await;
    consumer.close().await.expect("its checkpoint is stored");
    producer.close().await.expect("all is stored");
}
