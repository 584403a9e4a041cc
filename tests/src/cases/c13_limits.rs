//! C13: too large, bad key, bad header, unknown stream: an error of a stated kind that names stream
//! and limit; the other records continue.

use std::sync::Arc;

use bytes::Bytes;
use millstream_core::{DeadLetter, ErrorKind, Record, Retry, Start, StreamSpec};

use super::cases;
use super::reader::{pull, read};
use crate::fleet::Fleet;
use crate::{Harness, within_timeout};

cases! {
    c13_record_too_large,
    c13_key_too_long,
    c13_empty_key_is_accepted_or_invalid,
    c13_non_utf8_key_is_accepted_or_invalid,
    c13_header_without_a_name,
    c13_unknown_stream,
    c13_unknown_dead_letter_stream,
    c13_unknown_group,
    c13_stream_deleted_while_read,
    c13_stream_names_and_sizes,
}

/// Sends `bad` between good records. It is rejected at once, the others are stored.
async fn refused(fleet: &Fleet, bad: Record, kind: ErrorKind, names: &str) {
    let producer = fleet.client.producer(fleet.stream.as_str()).open().await;
    let producer = producer.expect("the producer opens");
    let first = producer
        .send(Record::new("first").key("k"))
        .await
        .expect("it is taken");
    let error = producer.send(bad).await.expect_err("it is refused at once");
    assert_eq!(error.kind(), kind, "{error}");
    assert_eq!(error.stream(), Some(fleet.stream.as_str()), "{error}");
    assert!(
        error.to_string().contains(names),
        "{error} does not name {names}"
    );
    let second = producer
        .send(Record::new("second").key("k"))
        .await
        .expect("it is taken");
    let (first, second) = (first.await.expect("stored"), second.await.expect("stored"));
    assert!(
        first.position < second.position,
        "the records of the key are in order"
    );
    producer.close().await.expect("nothing else has failed");
    let read = read(&*fleet.harness, &fleet.stream, 2).await;
    assert_eq!(
        [&read[0].payload()[..], &read[1].payload()[..]],
        [&b"first"[..], b"second"],
        "the good records are stored, and only these"
    );
}

async fn c13_record_too_large(harness: Arc<dyn Harness>) {
    let limit = harness.limits().record_bytes;
    let fleet = Fleet::new(harness, 1).await;
    let large = Record::new(vec![0_u8; limit + 1]).key("k");
    refused(&fleet, large, ErrorKind::TooLarge, &limit.to_string()).await;
    // The largest allowed record is accepted.
    let producer = fleet.client.producer(fleet.stream.as_str()).open().await;
    let producer = producer.expect("the producer opens");
    let full = Record::new(vec![0_u8; limit - 1]).key("k");
    producer
        .send(full)
        .await
        .expect("it is taken")
        .await
        .expect("it is stored");
    producer.close().await.expect("it closes");
}

async fn c13_key_too_long(harness: Arc<dyn Harness>) {
    let limits = harness.limits();
    let limit = limits.key_chars.unwrap_or(limits.key_bytes);
    let fleet = Fleet::new(harness, 1).await;
    let long = Record::new("x").key("k".repeat(limit + 1));
    refused(&fleet, long, ErrorKind::Invalid, &limit.to_string()).await;
}

/// Sends a record with this key, and asserts whether it is accepted or rejected at once.
async fn taken_or_refused(fleet: &Fleet, key: Bytes, taken: bool) {
    let record = Record::new("x").key(key.clone());
    if !taken {
        return refused(fleet, record, ErrorKind::Invalid, "key").await;
    }
    let producer = fleet.client.producer(fleet.stream.as_str()).open().await;
    let producer = producer.expect("the producer opens");
    producer
        .send(record)
        .await
        .expect("it is taken")
        .await
        .expect("it is stored");
    producer.close().await.expect("it closes");
    let read = read(&*fleet.harness, &fleet.stream, 1).await;
    assert_eq!(read[0].key(), Some(&key), "the key is as it was sent");
}

async fn c13_empty_key_is_accepted_or_invalid(harness: Arc<dyn Harness>) {
    let taken = harness.limits().empty_key;
    let fleet = Fleet::new(harness, 1).await;
    taken_or_refused(&fleet, Bytes::new(), taken).await;
}

async fn c13_non_utf8_key_is_accepted_or_invalid(harness: Arc<dyn Harness>) {
    let taken = !harness.limits().text_key;
    let fleet = Fleet::new(harness, 1).await;
    taken_or_refused(&fleet, Bytes::from_static(&[0xff, 0x00, 0xfe]), taken).await;
}

async fn c13_header_without_a_name(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    let nameless = Record::new("x").key("k").header("", "value");
    refused(&fleet, nameless, ErrorKind::Invalid, "header").await;
}

async fn c13_unknown_stream(harness: Arc<dyn Harness>) {
    let (client, name) = (harness.client().await, harness.unique("nowhere"));
    let group = client.group(harness.unique("group")).stream(name.as_str());
    let errors = [
        client
            .producer(name.as_str())
            .open()
            .await
            .expect_err("there is no stream"),
        group.join().await.expect_err("there is no stream"),
        group
            .run(
                |_| async { Ok::<_, std::io::Error>(()) },
                std::future::pending(),
            )
            .await
            .expect_err("there is no stream"),
        client
            .streams()
            .describe(&name)
            .await
            .expect_err("there is no stream"),
        client
            .streams()
            .delete(&name)
            .await
            .expect_err("there is no stream"),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert_eq!(error.stream(), Some(name.as_str()), "{error}");
    }
}

async fn c13_unknown_dead_letter_stream(harness: Arc<dyn Harness>) {
    let dead = harness.unique("nowhere");
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    let policy = Retry::none().then(DeadLetter::stream(dead.as_str()));
    let member = fleet
        .member("a")
        .with(|group| group.on_failure(policy))
        .start()
        .await;
    let error = member
        .ended(timing)
        .await
        .expect_err("it must exist when a member joins");
    assert_eq!(
        (error.kind(), error.stream()),
        (ErrorKind::NotFound, Some(dead.as_str())),
        "{error:?}"
    );
}

async fn c13_unknown_group(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    let group = fleet.client.group(fleet.group.as_str());
    let error = group
        .checkpoints()
        .await
        .expect_err("no member ever joined");
    assert_eq!(
        (error.kind(), error.group()),
        (ErrorKind::NotFound, Some(fleet.group.as_str())),
        "{error:?}"
    );
    let error = group
        .reset(&fleet.stream, Start::Earliest)
        .await
        .expect_err("no member ever joined");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
}

async fn c13_stream_deleted_while_read(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 2).await;
    fleet.send(4, 4).await;
    let member = fleet.member("a").start().await;
    let mut puller = fleet
        .client
        .group(fleet.harness.unique("group"))
        .stream(fleet.stream.as_str())
        .join()
        .await
        .expect("the puller joins");
    pull(timing, &mut puller).await.ack();
    fleet.settled().await;
    fleet
        .client
        .streams()
        .delete(&fleet.stream)
        .await
        .expect("it is deleted");
    let error = member.ended(timing).await;
    let error = error.expect_err("its stream is gone");
    assert_eq!(
        (error.kind(), error.stream()),
        (ErrorKind::NotFound, Some(fleet.stream.as_str())),
        "{error:?}"
    );
    let error = loop {
        match within_timeout(timing, "the puller ends", puller.next()).await {
            Ok(next) => next.expect("nobody closed it").ack(),
            Err(error) => break error,
        }
    };
    assert_eq!(
        (error.kind(), error.stream()),
        (ErrorKind::NotFound, Some(fleet.stream.as_str())),
        "{error:?}"
    );
    let names = fleet
        .client
        .streams()
        .list()
        .await
        .expect("streams are listed");
    assert!(
        !names.contains(&fleet.stream),
        "{} is listed, although it is deleted: {names:?}",
        fleet.stream
    );
}

async fn c13_stream_names_and_sizes(harness: Arc<dyn Harness>) {
    let client = harness.client().await;
    let streams = client.streams();
    let long = "x".repeat(250);
    for name in ["", ".", "..", "a b", "a/b", "ä", long.as_str()] {
        let error = streams
            .create(StreamSpec::new(name))
            .await
            .expect_err("it is no name");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        let group = client.group("group").stream(name);
        let error = group.join().await.expect_err("it is no name");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    let name = harness.unique("stream");
    for partitions in [0, usize::MAX] {
        let spec = StreamSpec::new(name.as_str()).partitions(partitions);
        let error = streams.create(spec).await.expect_err("it is no size");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    streams
        .create(StreamSpec::new(name.as_str()).partitions(3))
        .await
        .expect("it is created");
    let again = streams.create(StreamSpec::new(name.as_str())).await;
    assert_eq!(
        again.expect_err("it is there").kind(),
        ErrorKind::AlreadyExists,
        "the name is taken"
    );
    let described = streams.describe(&name).await.expect("it is described");
    assert_eq!(
        (described.name.as_str(), described.partitions.len()),
        (name.as_str(), 3),
        "{described:?}"
    );
    assert!(
        described
            .partitions
            .iter()
            .all(|p| p.open && p.latest.is_none()),
        "all partitions are open and empty: {described:?}"
    );
    let names = streams.list().await.expect("streams are listed");
    assert!(
        names.contains(&name) && names.is_sorted(),
        "{name} is listed, in order: {names:?}"
    );
}
