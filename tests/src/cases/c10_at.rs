//! C10: `Start::At` compares the timestamps that readers see.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream_core::{Client, Record, Start};

use super::cases;
use super::reader::{nothing_comes, pull, read};
use crate::Harness;
use crate::harness::unique_stream;

cases! {
    c10_at_compares_the_timestamps_of_readers,
    c10_at_a_time_in_the_future_is_latest,
}

const HOUR: Duration = Duration::from_secs(3_600);

/// Sends records of one key, and waits for their receipts.
async fn send(client: &Client, stream: &str, records: &[(&'static str, Option<SystemTime>)]) {
    let producer = client.producer(stream).open().await;
    let producer = producer.expect("the producer opens");
    for (payload, timestamp) in records {
        let mut record = Record::new(*payload).key("key");
        record.timestamp = *timestamp;
        let receipt = producer.send(record).await.expect("there is room");
        receipt.await.expect("the record is stored");
    }
    producer.close().await.expect("the producer closes");
}

/// Reads `count` payloads with a new group that starts at `time`.
async fn read_from(
    harness: &dyn Harness,
    stream: &str,
    time: SystemTime,
    count: usize,
) -> Vec<String> {
    let client = harness.client().await;
    let group = client.group(harness.unique("group")).stream(stream);
    let mut consumer = group.start(Start::At(time)).join().await.expect("it joins");
    let mut payloads = Vec::new();
    for _ in 0..count {
        let delivery = pull(harness.timing(), &mut consumer).await;
        payloads.push(String::from_utf8_lossy(delivery.payload()).into_owned());
        delivery.ack();
    }
    assert!(
        nothing_comes(harness.timing(), &mut consumer).await,
        "more than {payloads:?} came"
    );
    consumer.close().await.expect("the reader closes");
    payloads
}

/// All records are stored now, so a search by the time of storage would return the first.
async fn c10_at_compares_the_timestamps_of_readers(harness: Arc<dyn Harness>) {
    let client = harness.client().await;
    let stream = unique_stream(&*harness, 1).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("it is later than 1970").as_secs();
    let now = UNIX_EPOCH + Duration::from_secs(now);
    let (older, at) = (now - 3 * HOUR, now - HOUR);
    let records = [
        ("older 1", Some(older)),
        ("older 2", Some(at - Duration::from_millis(1))),
        ("at the time", Some(at)),
        ("older, but stored later", Some(older)),
        ("newer", Some(at + Duration::from_millis(1))),
        ("without a timestamp", None),
    ];
    send(&client, &stream, &records).await;
    let expected: Vec<&str> = records[2..].iter().map(|(payload, _)| *payload).collect();
    let got = read_from(&*harness, &stream, at, expected.len()).await;
    assert_eq!(got, expected, "from the first record that is not older on");
}

async fn c10_at_a_time_in_the_future_is_latest(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let client = harness.client().await;
    let stream = unique_stream(&*harness, 1).await;
    send(&client, &stream, &[("before", None)]).await;
    let newest = read(&*harness, &stream, 1).await.remove(0).timestamp();
    let group = client.group(harness.unique("group")).stream(&*stream);
    let group = group.start(Start::At(newest + HOUR));
    let mut consumer = group.join().await.expect("the reader joins");
    send(&client, &stream, &[("after the join", None)]).await;
    let delivery = pull(timing, &mut consumer).await;
    assert_eq!(
        &delivery.payload()[..],
        b"after the join",
        "what was stored before the join is not read"
    );
    delivery.ack();
    consumer.close().await.expect("the reader closes");
}
