//! C10: a group starts in each of its streams when it reads the stream first.

use std::sync::Arc;

use millstream_core::{Client, ConsumerGroup, Record, Start};

use super::cases;
use super::reader::{nothing_comes, pull};
use crate::Harness;
use crate::harness::unique_stream;

cases! {
    c10_start_is_resolved_for_each_stream,
    c10_reset_of_a_stream_that_was_never_read_is_its_start,
}

/// A group that has joined two streams and read nothing, and a third stream with a record.
struct Streams {
    harness: Arc<dyn Harness>,
    client: Client,
    group: String,
    joined: [String; 2],
    other: String,
}

impl Streams {
    async fn new(harness: Arc<dyn Harness>) -> Self {
        let client = harness.client().await;
        let joined = [
            unique_stream(&*harness, 1).await,
            unique_stream(&*harness, 1).await,
        ];
        let streams = Self {
            group: harness.unique("group"),
            other: unique_stream(&*harness, 1).await,
            client,
            joined,
            harness,
        };
        let group = streams.group(&streams.joined);
        let consumer = group.join().await.expect("the first member joins");
        consumer.close().await.expect("the first member leaves");
        streams.send(&streams.other, "before the start").await;
        streams
    }

    fn group<'a>(&self, streams: impl IntoIterator<Item = &'a String>) -> ConsumerGroup {
        let group = self.client.group(self.group.as_str());
        let add = |group: ConsumerGroup, stream: &String| group.stream(stream.as_str());
        streams.into_iter().fold(group, add)
    }

    /// Returns the group with all three streams.
    fn all(&self) -> ConsumerGroup {
        self.group(self.joined.iter().chain([&self.other]))
    }

    async fn send(&self, stream: &str, payload: &'static str) {
        let producer = self.client.producer(stream).open().await;
        let producer = producer.expect("the producer opens");
        let sent = producer.send(Record::new(payload).key("key")).await;
        let receipt = sent.expect("there is room");
        receipt.await.expect("the record is stored");
        producer.close().await.expect("the producer closes");
    }

    /// Joins, sends to the third stream, and expects these payloads and no other.
    async fn expect(&self, group: ConsumerGroup, mut expected: Vec<&str>) {
        let timing = self.harness.timing();
        let mut consumer = group.join().await.expect("the second member joins");
        self.send(&self.other, "after the join").await;
        expected.push("after the join");
        let mut got = Vec::new();
        for _ in 0..expected.len() {
            let delivery = pull(timing, &mut consumer).await;
            got.push(String::from_utf8_lossy(delivery.payload()).into_owned());
            delivery.ack();
        }
        got.sort_unstable();
        expected.sort_unstable();
        assert_eq!(
            got, expected,
            "what is read is what each stream's start leaves"
        );
        assert!(
            nothing_comes(timing, &mut consumer).await,
            "more than {expected:?} came"
        );
        consumer.close().await.expect("the second member leaves");
    }
}

async fn c10_start_is_resolved_for_each_stream(harness: Arc<dyn Harness>) {
    let streams = Streams::new(harness).await;
    // In this stream the group has started before, at its beginning.
    streams.send(&streams.joined[0], "of an old stream").await;
    let group = streams.all().start(Start::Latest);
    streams.expect(group, vec!["of an old stream"]).await;
}

async fn c10_reset_of_a_stream_that_was_never_read_is_its_start(harness: Arc<dyn Harness>) {
    let streams = Streams::new(harness).await;
    let group = streams.client.group(streams.group.as_str());
    let reset = group.reset(&streams.other, Start::Latest).await;
    reset.expect("the group is moved");
    streams.send(&streams.other, "after the reset").await;
    let group = streams.all().start(Start::Earliest);
    streams.expect(group, vec!["after the reset"]).await;
}
