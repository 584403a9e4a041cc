//! A stream that distributes records itself: those of one key are in any shard.

use std::collections::BTreeMap;

use conformance::Harness;
use millstream_core::{ErrorKind, Guarantee, Record, Start};
use tokio::time::timeout;

use crate::fixture::Fixture;

const RECORDS: usize = 100;

/// Each record is an aggregate of one, for its header, and in the wrong shard by its key half of the time.
pub(crate) async fn loses_nothing(fixture: Fixture) {
    let fleet = &fixture.fleet;
    fixture.faults().distribute_records(&fleet.stream);
    let producer = fleet.client.producer(fleet.stream.as_str()).open().await;
    let producer = producer.expect("the producer opens");
    for number in 0..RECORDS {
        let record = Record::new(number.to_string()).key(format!("key-{}", number % 7));
        let record = record.header("trace", "1");
        let receipt = producer.send(record).await.expect("it is accepted");
        receipt.await.expect("it is stored");
    }
    let group = format!("{}-reads", fleet.group);
    let group = fleet.client.group(group).stream(fleet.stream.as_str());
    let mut consumer = group.start(Start::Earliest).join().await.expect("it joins");
    let patience = fixture.harness.timing().timeout;
    let mut handled = BTreeMap::<_, usize>::new();
    while handled.len() < RECORDS {
        let next = timeout(patience, consumer.next()).await;
        let next = next.unwrap_or_else(|_| panic!("only these come: {handled:?}"));
        let delivery = next.expect("it continues").expect("it has not ended");
        *handled.entry(delivery.payload().clone()).or_default() += 1;
        delivery.ack();
    }
    assert!(handled.values().all(|times| *times == 1), "{handled:?}");
    consumer.close().await.expect("it closes");
}

/// Neither a producer nor a group may rely on an order of keys there.
pub(crate) async fn keeps_no_key_order(fixture: Fixture) {
    let fleet = &fixture.fleet;
    let producer = || fleet.client.producer(fleet.stream.as_str());
    let group = fleet.client.group(format!("{}-ordered", fleet.group));
    let group = group.stream(fleet.stream.as_str());
    let ordered = group.require(Guarantee::KeyOrder);
    let opened = producer().require(Guarantee::KeyOrder).open().await;
    let closed = opened.expect("the stream places by keys").close().await;
    closed.expect("nothing was sent");
    fixture.faults().distribute_records(&fleet.stream);
    let opened = producer().require(Guarantee::KeyOrder).open().await;
    let joined = ordered.join().await;
    let refused = [
        opened.expect_err("it is refused"),
        joined.expect_err("it is refused"),
    ];
    for error in refused {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.message().contains("AUTO"), "{error}");
        assert_eq!(error.stream(), Some(fleet.stream.as_str()), "{error}");
    }
}

/// An aggregate would have to come to the shard of its keys.
pub(crate) async fn takes_no_aggregates(fixture: Fixture) {
    let fleet = &fixture.fleet;
    fixture.faults().distribute_records(&fleet.stream);
    let opened = fleet.client.producer(fleet.stream.as_str()).open().await;
    let error = opened.expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.message().contains("AUTO"), "{error}");
}
