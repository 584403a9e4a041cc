//! Recreated topics: the records of the new topic are read from the beginning.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use conformance::Events;
use millstream_core::{Client, Consumer, PendingDelivery, StreamSpec};
use tokio::time::timeout;

use crate::drain::text;
use crate::fixture::{Fixture, KEYS, PARTITIONS, TIMEOUT, pull, send, stream, unique, until};

/// The number of records of each key in the first topic.
const BEFORE: usize = 10;
/// The numbers of the records in the second topic, which is then longer.
const AFTER: Range<usize> = 100..130;

struct Group {
    client: Client,
    stream: String,
    name: String,
}

impl Group {
    /// Creates a group with a topic.
    async fn new(fixture: &Fixture) -> Self {
        let client = fixture.client().await;
        Self {
            stream: stream(&client, BEFORE).await,
            name: unique("group"),
            client,
        }
    }

    async fn join(&self) -> Consumer {
        let group = self.client.group(self.name.as_str());
        let group = group.stream(self.stream.as_str());
        let group = group.checkpoint_interval(Duration::from_millis(10));
        group.join().await.expect("it joins")
    }

    /// Returns a member that has handled all of the first topic, and stored its progress.
    async fn join_and_read_all(&self) -> Consumer {
        let mut consumer = self.join().await;
        // The next record of a key is delivered when the last one is settled.
        for _ in 0..KEYS * BEFORE {
            pull(&mut consumer, 1)
                .await
                .into_iter()
                .for_each(PendingDelivery::ack);
        }
        let handle = consumer.handle();
        until("all is stored", || {
            let partitions = handle.partitions();
            let settled = partitions.values().filter(|stats| stats.unsettled == 0);
            settled.count() == PARTITIONS && handle.stats().checkpoints > 0
        })
        .await;
        consumer
    }

    async fn recreate(&self) {
        let streams = self.client.streams();
        streams.delete(&self.stream).await.expect("it is there");
        let spec = StreamSpec::new(self.stream.as_str()).partitions(PARTITIONS);
        streams.create(spec).await.expect("it is gone");
        send(&self.client, &self.stream, AFTER).await;
    }
}

/// Pulls until each of these records has arrived. Some may arrive twice: those that were read at the old offset of the
/// new topic before the change was detected.
async fn read_all(consumer: &mut Consumer, numbers: Range<usize>) {
    let expected = numbers.flat_map(|number| (0..KEYS).map(move |key| format!("{key}/{number}")));
    let mut left: BTreeSet<String> = expected.collect();
    let all = async {
        while !left.is_empty() {
            for delivery in pull(consumer, 1).await {
                left.remove(&text(&delivery));
                delivery.ack();
            }
        }
    };
    let read = timeout(TIMEOUT, all).await;
    assert!(read.is_ok(), "{} were never read: {left:?}", left.len());
}

/// It has nothing to do when the topic is deleted.
pub(crate) async fn under_an_idle_member(fixture: Arc<Fixture>) {
    let group = Group::new(&fixture).await;
    let mut consumer = group.join_and_read_all().await;
    group.recreate().await;
    read_all(&mut consumer, AFTER).await;
    consumer.close().await.expect("it closes");
    goes_on_behind_the_new_records(&group).await;
}

/// Its partitions are paused, so it fetches nothing.
pub(crate) async fn under_a_paused_member(fixture: Arc<Fixture>) {
    let group = Group::new(&fixture).await;
    let mut consumer = group.join_and_read_all().await;
    consumer.handle().pause_all();
    group.recreate().await;
    consumer.handle().resume_all();
    read_all(&mut consumer, AFTER).await;
    consumer.close().await.expect("it closes");
    goes_on_behind_the_new_records(&group).await;
}

/// It stores an offset of the first topic when the second one already exists, and the next member finds it.
pub(crate) async fn under_a_member_that_dies(fixture: Arc<Fixture>) {
    let group = Group::new(&fixture).await;
    let mut consumer = group.join().await;
    let mut last = Vec::new();
    for _ in 0..KEYS * BEFORE {
        last.drain(..).for_each(PendingDelivery::ack);
        last = pull(&mut consumer, 1).await;
    }
    let handle = consumer.handle();
    handle.pause_all();
    group.recreate().await;
    let before = handle.stats().checkpoints;
    last.into_iter().for_each(PendingDelivery::ack);
    until("it stores the offset", || {
        handle.stats().checkpoints > before
    })
    .await;
    drop(consumer);
    let mut next = group.join().await;
    read_all(&mut next, AFTER).await;
    next.close().await.expect("it closes");
}

/// Nobody reads when the topic is deleted, and the broker deletes the progress with it.
pub(crate) async fn while_nobody_reads(fixture: Arc<Fixture>) {
    let group = Group::new(&fixture).await;
    let consumer = group.join_and_read_all().await;
    consumer.close().await.expect("it closes");
    group.recreate().await;
    let begins = || Events::listen().with("millstream.kafka.group.begins", "group", &group.name);
    let before = begins().len();
    let mut next = group.join().await;
    assert_eq!(begins().len(), before + 1, "that it begins is reported");
    read_all(&mut next, AFTER).await;
    next.close().await.expect("it closes");
}

/// The offset in the new topic is stored as progress, and later records are read.
async fn goes_on_behind_the_new_records(group: &Group) {
    let last = AFTER.end;
    let mut next = group.join().await;
    send(&group.client, &group.stream, last..last + 1).await;
    read_all(&mut next, last..last + 1).await;
    next.close().await.expect("it closes");
}
