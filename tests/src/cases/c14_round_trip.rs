//! C14: key, payload, headers and timestamp survive, byte for byte.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use millstream_core::{DeadLetter, Delivery, Headers, Record, Retry};

use super::cases;
use super::longest_key::longest_key;
use super::reader::read;
use crate::Harness;
use crate::harness::unique_stream;

cases! {
    c14_keys,
    c14_payloads,
    c14_headers,
    c14_null_headers,
    c14_tombstones,
    c14_tombstones_pass_through_pipelines,
    c14_tombstones_can_be_dead_lettered,
    c14_timestamps,
    c14_received_records_can_be_sent_on,
}

/// Sends each record to a stream of one partition, and reads it back.
async fn round_trip(harness: &dyn Harness, records: &[Record]) -> Vec<Record> {
    let stream = unique_stream(harness, 1).await;
    let producer = harness
        .client()
        .await
        .producer(stream.as_str())
        .open()
        .await;
    let producer = producer.expect("the producer opens");
    for record in records {
        // One after the other: records without a key have no order otherwise.
        let receipt = producer.send(record.clone()).await.expect("it is taken");
        receipt.await.expect("it is stored");
    }
    producer.close().await.expect("it closes");
    let read = read(harness, &stream, records.len()).await;
    let mut read: Vec<_> = read
        .into_iter()
        .map(|d| (d.position(), d.to_record()))
        .collect();
    read.sort_by_key(|(position, _)| *position);
    read.into_iter().map(|(_, record)| record).collect()
}

async fn survive(harness: Arc<dyn Harness>, records: Vec<Record>) {
    for (sent, got) in records.iter().zip(round_trip(&*harness, &records).await) {
        assert_eq!(
            (&sent.key, &sent.payload),
            (&got.key, &got.payload),
            "key and payload are as they were sent"
        );
        assert_eq!(
            sent.headers, got.headers,
            "the headers are as they were sent"
        );
    }
}

async fn c14_keys(harness: Arc<dyn Harness>) {
    let limits = harness.limits();
    let mut records = vec![
        Record::new("no key"),
        Record::new("x").key("car-123"),
        Record::new("x").key("schlüssel-車-🚗"),
        Record::new("x").key(" with spaces\tand\nlines "),
        Record::new("x").key(longest_key(&limits, 'k')),
        Record::new("x").key(longest_key(&limits, 'é')),
        Record::new("x").key(longest_key(&limits, '🚗')),
    ];
    if limits.empty_key {
        records.push(Record::new("x").key(""));
    }
    if !limits.text_key {
        records.push(Record::new("x").key((0..=255).collect::<Vec<u8>>()[..200].to_vec()));
    }
    survive(harness, records).await;
}

async fn c14_payloads(harness: Arc<dyn Harness>) {
    let binary: Vec<u8> = (0..=255).collect();
    let large = binary.repeat(harness.limits().record_bytes.min(1 << 20) / 2 / 256);
    let payloads = [vec![], vec![0], binary, large];
    let records = payloads
        .into_iter()
        .map(|payload| Record::new(payload).key("k"));
    survive(harness, records.collect()).await;
}

async fn c14_headers(harness: Arc<dyn Harness>) {
    let long = Bytes::from(vec![7_u8; 4_000]);
    let records = vec![
        Record::new("none").key("k"),
        Record::new("one")
            .key("k")
            .header("traceparent", "00-4bf9-00f0-01"),
        Record::new("repeated")
            .key("k")
            .header("a", "1")
            .header("b", "2")
            .header("a", "3"),
        Record::new("empty value").key("k").header("empty", ""),
        Record::new("binary")
            .key("k")
            .header("binary", vec![0_u8, 255, 10, 13]),
        Record::new("no ASCII").key("k").header("größe-車", "µ"),
        Record::new("long").key("k").header("long", long),
        Record::new("")
            .key("k")
            .header("beside an empty payload", "1"),
        Record::new("and no key").header("id", "1"),
    ];
    survive(harness.clone(), records).await;
    let repeated = Record::new("x").header("a", "1").header("a", "2");
    let got = round_trip(&*harness, &[repeated]).await.remove(0);
    assert_eq!(
        got.headers,
        Headers::from_iter([("a", "1"), ("a", "2")]),
        "both values of the header are there"
    );
    assert_eq!(
        got.headers.get("a").map(|value| &value[..]),
        Some(&b"2"[..]),
        "the last value of a header counts"
    );
}

async fn c14_null_headers(harness: Arc<dyn Harness>) {
    let mut only = Record::new("only null").key("k");
    only.headers.push_null("null");
    let mut mixed = Record::new("mixed").key("k").header("a", "1");
    mixed.headers.push_null("a");
    mixed.headers.push("a", "");
    survive(harness, vec![only, mixed]).await;
}

async fn c14_tombstones(harness: Arc<dyn Harness>) {
    let then = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let mut keyless = Record::default();
    keyless.payload = None;
    let records = vec![
        Record::new("a value").key("k"),
        Record::tombstone("k"),
        Record::new("").key("k"),
        Record::tombstone("k").header("why", "sold").timestamp(then),
        keyless,
    ];
    survive(harness, records).await;
}

/// Sends a tombstone and an empty record of one key to a new stream.
async fn tombstone_and_empty(harness: &dyn Harness) -> String {
    let stream = unique_stream(harness, 1).await;
    let client = harness.client().await;
    let producer = client.producer(stream.as_str()).open().await;
    let producer = producer.expect("the producer opens");
    for record in [Record::tombstone("k"), Record::new("").key("k")] {
        let receipt = producer.send(record).await.expect("it is taken");
        receipt.await.expect("it is stored");
    }
    producer.close().await.expect("it closes");
    stream
}

/// Reads whether each of two records is a tombstone.
async fn tombstones(harness: &dyn Harness, stream: &str) -> Vec<bool> {
    let mut read = read(harness, stream, 2).await;
    read.sort_by_key(|delivery| delivery.position());
    for delivery in &read {
        assert_eq!(
            delivery.key().map(|key| &key[..]),
            Some(&b"k"[..]),
            "the key is as it was sent"
        );
        assert_eq!(delivery.payload(), "", "the payload is empty");
    }
    read.iter()
        .map(|delivery| delivery.is_tombstone())
        .collect()
}

async fn c14_tombstones_pass_through_pipelines(harness: Arc<dyn Harness>) {
    let from = tombstone_and_empty(&*harness).await;
    let to = unique_stream(&*harness, 1).await;
    let client = harness.client().await;
    let producer = client.producer(to.as_str()).open().await;
    let producer = producer.expect("the producer opens");
    let pass_on =
        |delivery: Delivery| async move { Ok::<_, Infallible>(vec![delivery.to_record()]) };
    let group = client.group(harness.unique("g")).stream(from.as_str());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let run = group.transform_to(&producer, pass_on, async move { _ = stopped.await });
    let read = async {
        let read = tombstones(&*harness, &to).await;
        drop(stop);
        read
    };
    let (ended, read) = tokio::join!(run, read);
    ended.expect("the pipeline ends well");
    assert_eq!(
        read,
        [true, false],
        "the tombstone stays one, and the empty payload does not become one"
    );
    producer.close().await.expect("it closes");
}

async fn c14_tombstones_can_be_dead_lettered(harness: Arc<dyn Harness>) {
    let from = tombstone_and_empty(&*harness).await;
    let letters = unique_stream(&*harness, 1).await;
    let client = harness.client().await;
    let retry = Retry::fixed(Duration::from_millis(1)).attempts(1);
    let retry = retry.then(DeadLetter::stream(letters.as_str()));
    let group = client.group(harness.unique("g")).stream(from.as_str());
    let refuse = |_: Delivery| async { Err::<(), _>("refused by the test") };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let run = group.on_failure(retry);
    let run = run.run(refuse, async move { _ = stopped.await });
    let read = async {
        let read = tombstones(&*harness, &letters).await;
        drop(stop);
        read
    };
    let (ended, read) = tokio::join!(run, read);
    ended.expect("the member ends well");
    assert_eq!(
        read,
        [true, false],
        "the tombstone stays one, and the empty payload does not become one"
    );
}

async fn c14_timestamps(harness: Arc<dyn Harness>) {
    let then = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let times: Vec<SystemTime> = (0..3)
        .map(|hour| then + Duration::from_secs(hour * 3_600))
        .collect();
    let stamped: Vec<_> = times
        .iter()
        .map(|at| Record::new("x").key("k").timestamp(*at))
        .collect();
    let got = round_trip(&*harness, &stamped).await;
    let got: Vec<_> = got.into_iter().map(|record| record.timestamp).collect();
    assert_eq!(
        got,
        times.into_iter().map(Some).collect::<Vec<_>>(),
        "the timestamps are as they were sent"
    );
    // Without a timestamp it is the broker's, which does not go back in a partition.
    let plain = vec![Record::new("x").key("k"); 5];
    let got = round_trip(&*harness, &plain).await;
    let got: Vec<_> = got.into_iter().map(|record| record.timestamp).collect();
    assert!(
        got.is_sorted() && got.iter().all(Option::is_some),
        "{got:?}"
    );
}

async fn c14_received_records_can_be_sent_on(harness: Arc<dyn Harness>) {
    let then = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let record = Record::new("x")
        .key("k")
        .header("a", "1")
        .header("a", "2")
        .timestamp(then);
    let once = round_trip(&*harness, std::slice::from_ref(&record))
        .await
        .remove(0);
    assert_eq!(once, record, "the record is as it was sent");
    let twice = round_trip(&*harness, &[once]).await.remove(0);
    assert_eq!(twice, record, "the record is as it was received");
}
