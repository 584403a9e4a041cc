//! Malformed aggregates, from a producer with a bug, in the middle of a partition.

use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use conformance::{Events, Harness, eventually};
use md5::{Digest, Md5};
use millstream_core::Start;
use tokio::time::timeout;

use crate::fixture::Fixture;

/// The magic number at the start of an aggregate.
const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];

/// Returns an aggregate of one key, `k`, and one record with the payload `x`, in the format of the Kinesis Producer
/// Library. The record refers to a key by `index`.
fn aggregate(index: u8) -> Vec<u8> {
    let record = [0x08, index, 0x1A, 0x01, b'x'];
    let mut message = vec![0x0A, 0x01, b'k', 0x1A, record.len() as u8];
    message.extend(record);
    let sum = Md5::digest(&message);
    [&MAGIC[..], &message, &sum].concat()
}

/// Each is delivered unchanged to the handler; nothing is skipped, and the group continues. A Java worker fails
/// at the first one again and again.
pub(crate) async fn stops_nobody(fixture: Fixture) {
    let fleet = &fixture.fleet;
    let mut damaged = aggregate(0);
    damaged[5] ^= 1;
    let mut cut = aggregate(0);
    cut.truncate(12);
    // The damaged one and the truncated one are not aggregates any more.
    let poison = [aggregate(7), damaged, cut, aggregate(9)];
    let events = Events::listen();
    fleet.send(8, 10).await;
    for data in &poison {
        put(&fixture, data).await;
    }
    put(&fixture, &aggregate(0)).await;
    fleet.send(8, 10).await;

    let group = format!("{}-reads", fleet.group);
    let group = fleet.client.group(group).stream(fleet.stream.as_str());
    let mut consumer = group.start(Start::Earliest).join().await.expect("it joins");
    let patience = fixture.harness.timing().timeout;
    let (mut met, mut opened, mut others) = (Vec::new(), 0, 0);
    while met.len() < poison.len() || opened < 1 || others < 160 {
        let delivery = timeout(patience, consumer.next()).await;
        let delivery = delivery.expect("it continues").expect("it continues");
        let delivery = delivery.expect("it has not ended");
        match poison.iter().position(|data| data == delivery.payload()) {
            Some(which) => met.push(which),
            None if &delivery.payload()[..] == b"x" => opened += 1,
            None => others += 1,
        }
        delivery.ack();
    }
    consumer.close().await.expect("it closes");
    assert_eq!((met, opened, others), (vec![0, 1, 2, 3], 1, 160));
    let reported = events.with(
        "millstream.kinesis.aggregate.corrupt",
        "stream",
        &fleet.stream,
    );
    let counts: Vec<_> = reported
        .iter()
        .map(|event| event.field("corrupt"))
        .collect();
    assert_eq!(counts, [Some("1"), Some("2")]);
}

/// Puts the data like a producer of another library.
async fn put(fixture: &Fixture, data: &[u8]) {
    let (kinesis, stream) = (fixture.harness.testbed().kinesis(), &fixture.fleet.stream);
    // The client may have been used by another case, whose runtime is gone.
    eventually(fixture.harness.timing(), "it is stored", || async {
        let put = kinesis.put_record().stream_name(stream).partition_key("k");
        let put = put.data(Blob::new(data)).send();
        timeout(Duration::from_secs(5), put).await.ok()?.ok()
    })
    .await;
}
