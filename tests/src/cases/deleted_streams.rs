//! What a group keeps of a stream that is deleted and recreated.

use std::sync::Arc;

use millstream_core::{Client, Delivery, ErrorKind, Record, StreamSpec};

use super::cases;
use super::reader::pull;
use crate::Harness;
use crate::harness::{eventually, unique_stream};

cases! {
    operate_progress_is_deleted_with_its_stream,
    operate_progress_of_a_deleted_stream_is_not_shown,
    operate_epochs_grow_over_a_deletion,
}

/// A group that reads a stream, and the stream that replaces it under its name.
struct Reader {
    harness: Arc<dyn Harness>,
    client: Client,
    stream: String,
    group: String,
}

impl Reader {
    /// Sends these payloads and returns their deliveries. Returns `None` if the group is refused
    /// because its progress is of another stream, which a driver may do instead of deleting it.
    async fn read(&self, payloads: &[&'static str]) -> Option<Vec<Delivery>> {
        let producer = self.client.producer(self.stream.as_str()).open().await;
        let producer = producer.expect("the producer opens");
        for payload in payloads {
            let sent = producer.send(Record::new(*payload).key("key")).await;
            let receipt = sent.expect("there is room");
            receipt.await.expect("the record is stored");
        }
        producer.close().await.expect("the producer closes");
        let group = self.client.group(self.group.as_str());
        let mut consumer = match group.stream(self.stream.as_str()).join().await {
            Err(error) if error.kind() == ErrorKind::Invalid => return None,
            joined => joined.expect("the reader joins"),
        };
        let mut read = Vec::new();
        for _ in payloads {
            let delivery = pull(self.harness.timing(), &mut consumer).await;
            read.push((*delivery).clone());
            delivery.ack();
        }
        consumer.close().await.expect("the reader closes");
        Some(read)
    }
}

/// Reads three records of a stream, stores the progress, and deletes and recreates the stream.
async fn read_deleted(harness: Arc<dyn Harness>) -> (Reader, Vec<Delivery>) {
    let reader = Reader {
        client: harness.client().await,
        stream: unique_stream(&*harness, 1).await,
        group: harness.unique("group"),
        harness,
    };
    let old = reader.read(&["old 1", "old 2", "old 3"]).await;
    let old = old.expect("the group is new");
    let streams = reader.client.streams();
    let deleted = streams.delete(&reader.stream).await;
    deleted.expect("the stream is deleted");
    // A driver may distinguish the streams by their creation times, in the broker's resolution.
    tokio::time::sleep(reader.harness.timing().timestamps).await;
    let created = streams.create(StreamSpec::new(&*reader.stream)).await;
    created.expect("the stream is created again");
    (reader, old)
}

/// Like [`read_deleted`], and reads the first two records of the new stream.
async fn read_both(harness: Arc<dyn Harness>) -> Option<(Vec<Delivery>, Vec<Delivery>)> {
    let (reader, old) = read_deleted(harness).await;
    let new = reader.read(&["new 1", "new 2"]).await?;
    Some((old, new))
}

async fn operate_progress_of_a_deleted_stream_is_not_shown(harness: Arc<dyn Harness>) {
    let (reader, _) = read_deleted(harness).await;
    let what = "no progress of the deleted stream is shown for the new one of its name";
    eventually(reader.harness.timing(), what, async || {
        let group = reader.client.group(reader.group.as_str());
        let shown = match group.checkpoints().await {
            // A broker may have removed the group.
            Err(error) if error.kind() == ErrorKind::NotFound => return Some(()),
            shown => shown.expect("the progress can be read"),
        };
        let mut shown = shown.iter();
        shown.all(|of| of.position.is_none()).then_some(())
    })
    .await;
}

async fn operate_progress_is_deleted_with_its_stream(harness: Arc<dyn Harness>) {
    let Some((_, new)) = read_both(harness).await else {
        return;
    };
    let payloads: Vec<_> = new.iter().map(Delivery::payload).collect();
    assert_eq!(
        payloads,
        [&b"new 1"[..], b"new 2"],
        "the new stream is read from its first record"
    );
}

async fn operate_epochs_grow_over_a_deletion(harness: Arc<dyn Harness>) {
    let Some((old, new)) = read_both(harness).await else {
        return;
    };
    let last = old.iter().map(Delivery::epoch).max();
    let first = new.iter().map(Delivery::epoch).min();
    assert!(
        first > last,
        "a sink that has seen epoch {last:?} refuses {first:?}"
    );
}
