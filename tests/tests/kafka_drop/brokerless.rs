//! Clients that received an empty list of brokers, for example from a broker that was frozen and is
//! outside its cluster.

use std::sync::Arc;

use millstream_core::{Producer, Record};
use millstream_kafka::Config;

use crate::fixture::{Fixture, PARTITIONS, pull, stream, unique, until};

/// The number of metadata requests that get no brokers: several for each client of the case.
const QUESTIONS: u64 = 100;

/// By itself, librdkafka recovers most of the time. Here it never does, which proves that this backend does.
fn lead_nowhere(config: &mut Config) {
    let settings = [
        ("metadata.recovery.strategy", "none"),
        ("topic.metadata.refresh.interval.ms", "100"),
    ];
    let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
    config.librdkafka.extend(settings);
}

async fn send(producer: &Producer) {
    let receipt = producer.send(Record::new("x")).await;
    let stored = receipt.expect("there is room").await;
    stored.expect("it is stored");
}

/// A producer, a member, and a client that requests offsets.
pub(crate) async fn clients(fixture: Arc<Fixture>) {
    let id = unique("lost");
    let client = fixture.client_with(id.clone(), lead_nowhere).await;
    let stream = stream(&client, 0).await;
    let producer = client.producer(&*stream).open().await;
    let producer = producer.expect("it opens");
    let group = client.group(unique("group")).stream(&*stream);
    let mut consumer = group.join().await.expect("it joins");
    let control = consumer.handle();
    until("it owns all", || control.partitions().len() == PARTITIONS).await;
    send(&producer).await;
    pull(&mut consumer, 1).await.remove(0).ack();

    let faults = fixture.testbed.faults();
    faults.hide_brokers(&id, u32::MAX);
    until("all have asked", || faults.hits(&id) >= QUESTIONS).await;
    faults.hide_brokers(&id, 0);

    send(&producer).await;
    pull(&mut consumer, 1).await.remove(0).ack();
    let described = client.streams().describe(&stream).await;
    assert_eq!(described.expect("it is there").partitions.len(), PARTITIONS);
    consumer.close().await.expect("its checkpoint is stored");
    producer.close().await.expect("all is stored");
}
