//! The id of a stream: constant while it exists, and different for the next stream of its name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use millstream_core::{Client, Delivery, Epoch, Partition, Record, Start, StreamSpec};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::cases;
use super::reader::read;
use crate::fleet::joined;
use crate::harness::unique_stream;
use crate::{Harness, eventually};

cases! {
    operate_stream_id_changes_when_a_stream_is_created_anew,
    operate_stream_id_is_the_same_for_all_members,
}

/// The number of records of one send, each with a separate key: enough for all of a few partitions.
const RECORDS: usize = 50;

async fn send(client: &Client, stream: &str) {
    let producer = client.producer(stream).open().await;
    let producer = producer.expect("the producer opens");
    let mut receipts = Vec::new();
    for key in 0..RECORDS {
        let record = Record::new("payload").key(format!("key-{key}"));
        receipts.push(producer.send(record).await.expect("there is room"));
    }
    for receipt in receipts {
        receipt.await.expect("the record is stored");
    }
    producer.close().await.expect("the producer closes");
}

/// Returns the single id of a stream, from deliveries of all of its partitions.
fn only_id<'a>(deliveries: impl IntoIterator<Item = &'a Delivery>) -> String {
    let ids = deliveries.into_iter().map(|delivery| {
        let id = delivery.stream_id().expect("the broker has ids");
        id.to_owned()
    });
    let mut ids: BTreeSet<String> = ids.collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    ids.pop_first().expect("there is one")
}

async fn operate_stream_id_changes_when_a_stream_is_created_anew(harness: Arc<dyn Harness>) {
    let client = harness.client().await;
    let stream = unique_stream(&*harness, 2).await;
    // A sink that records what it has applied, by stream and position.
    let mut applied = BTreeSet::new();
    let mut ids = Vec::new();
    for turn in 1..=2 {
        send(&client, &stream).await;
        let deliveries = read(&*harness, &stream, RECORDS).await;
        ids.push(only_id(&deliveries));
        applied.extend(deliveries.iter().map(|delivery| {
            let id = delivery.stream_id().map(str::to_owned);
            (id, delivery.partition().clone(), delivery.position())
        }));
        assert_eq!(applied.len(), turn * RECORDS, "{ids:?}");
        if turn == 1 {
            let streams = client.streams();
            streams.delete(&stream).await.expect("it is deleted");
            // An id may contain the creation time, in the broker's resolution.
            tokio::time::sleep(harness.timing().timestamps).await;
            let spec = StreamSpec::new(&*stream).partitions(2);
            streams.create(spec).await.expect("it is created again");
        }
    }
    assert_ne!(ids[0], ids[1], "another stream has another id");
}

/// Returns the largest epoch of each partition.
fn newest_epochs(deliveries: &[Delivery]) -> BTreeMap<Partition, Epoch> {
    let mut newest = BTreeMap::new();
    for delivery in deliveries {
        let known = newest.entry(delivery.partition().clone());
        let known = known.or_insert(delivery.epoch());
        *known = delivery.epoch().max(*known);
    }
    newest
}

/// A member that keeps all its deliveries.
struct Keeper {
    kept: Arc<Mutex<Vec<Delivery>>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<millstream_core::Result<()>>,
}

impl Keeper {
    /// Joins with a separate connection.
    async fn start(harness: &dyn Harness, group: &str, stream: &str) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel();
        let handler = {
            let kept: Arc<Mutex<Vec<Delivery>>> = kept.clone();
            move |delivery: Delivery| {
                kept.lock().expect("no panic").push(delivery);
                async { Ok::<(), std::io::Error>(()) }
            }
        };
        let group = harness.client().await.group(group).stream(stream);
        let run = group.run(handler, async {
            let _ = stopped.await;
        });
        let task = tokio::spawn(run);
        Self { kept, stop, task }
    }

    fn kept(&self) -> Vec<Delivery> {
        self.kept.lock().expect("no panic").clone()
    }

    async fn close(self) {
        let _ = self.stop.send(());
        let run = joined(self.task).await;
        run.expect("the member ends without an error");
    }
}

async fn operate_stream_id_is_the_same_for_all_members(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let client = harness.client().await;
    let stream = unique_stream(&*harness, 4).await;
    let group = harness.unique("group");
    let a = Keeper::start(&*harness, &group, &stream).await;
    let b = Keeper::start(&*harness, &group, &stream).await;
    eventually(timing, "both members handle records", || async {
        send(&client, &stream).await;
        let both = !a.kept().is_empty() && !b.kept().is_empty();
        both.then_some(())
    })
    .await;
    let before: Vec<Delivery> = [a.kept(), b.kept()].concat();
    let partitions: BTreeSet<&Partition> = before.iter().map(Delivery::partition).collect();
    assert!(partitions.len() > 1, "{partitions:?}");
    let id = only_id(&before);

    // Partitions that stay with their owner restart in a new epoch.
    let newest = newest_epochs(&before);
    let reset = client.group(&*group).reset(&stream, Start::Earliest).await;
    reset.expect("the group is moved");
    eventually(timing, "records are delivered again", || async {
        // The partitions may move once more, with nothing left to read.
        send(&client, &stream).await;
        let newer = |delivery: &Delivery| {
            let known = newest.get(delivery.partition());
            known.is_some_and(|known| delivery.epoch() > *known)
        };
        let both = a.kept().iter().any(newer) && b.kept().iter().any(newer);
        both.then_some(())
    })
    .await;
    assert_eq!(
        only_id(&[a.kept(), b.kept()].concat()),
        id,
        "the id is the same in a new epoch"
    );
    a.close().await;
    b.close().await;

    // A member that returns with a new connection, and another group.
    send(&client, &stream).await;
    let back = Keeper::start(&*harness, &group, &stream).await;
    eventually(timing, "records are handled", || async {
        (!back.kept().is_empty()).then_some(())
    })
    .await;
    assert_eq!(
        only_id(&back.kept()),
        id,
        "the id is the same for a member that returns"
    );
    back.close().await;
    assert_eq!(
        only_id(&read(&*harness, &stream, RECORDS).await),
        id,
        "the id is the same for another group"
    );
}
