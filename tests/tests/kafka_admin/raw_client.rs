//! Another client of the same brokers: plain rdkafka.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn settings(bootstrap: &str) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", bootstrap);
    settings
}

fn millis(time: SystemTime) -> i64 {
    let since = time
        .duration_since(UNIX_EPOCH)
        .expect("it is later than 1970");
    since.as_millis() as i64
}

/// Stores `count` records in a partition, all with one timestamp.
pub(crate) fn send(bootstrap: &str, topic: &str, partition: i32, count: usize, time: SystemTime) {
    let producer: ThreadedProducer<DefaultProducerContext> = settings(bootstrap)
        .create()
        .expect("the settings are right");
    for _ in 0..count {
        let record = BaseRecord::<str, str>::to(topic).partition(partition);
        let sent = producer.send(record.payload("x").timestamp(millis(time)));
        sent.map_err(|(error, _)| error).expect("there is room");
    }
    producer.flush(TIMEOUT).expect("all are stored");
    assert_eq!(producer.in_flight_count(), 0);
}

/// Stores one record in a transaction, which leaves a marker after it.
pub(crate) fn send_in_a_transaction(bootstrap: &str, topic: &str, partition: i32) {
    let producer: ThreadedProducer<DefaultProducerContext> = settings(bootstrap)
        .set("transactional.id", format!("{topic}-writer"))
        .create()
        .expect("the settings are right");
    producer.init_transactions(TIMEOUT).expect("it may write");
    producer.begin_transaction().expect("none is open");
    let record = BaseRecord::<str, str>::to(topic).partition(partition);
    let sent = producer.send(record.payload("x"));
    sent.map_err(|(error, _)| error).expect("there is room");
    producer
        .commit_transaction(TIMEOUT)
        .expect("it is committed");
}

/// A client that may read a group's offsets, and move them, without being a member.
pub(crate) struct OffsetClient(BaseConsumer);

impl OffsetClient {
    pub(crate) fn new(bootstrap: &str, group: &str) -> Self {
        let consumer = settings(bootstrap)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .create();
        Self(consumer.expect("the settings are right"))
    }

    /// Stores the next offset to read in each partition, along with a note.
    pub(crate) fn commit(&self, topic: &str, next: &[(i32, i64)], note: &str) {
        commit(&self.0, topic, next, note).expect("nobody else may move it");
    }

    /// Returns the stored next offset of a partition, and its note.
    pub(crate) fn committed(&self, topic: &str, partition: i32) -> (Offset, String) {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let found = self.0.committed_offsets(list, TIMEOUT);
        let found = found.expect("the broker responds");
        let found = found.find_partition(topic, partition);
        let found = found.expect("it was asked for");
        (found.offset(), found.metadata().to_owned())
    }
}

fn commit(
    consumer: &BaseConsumer,
    topic: &str,
    next: &[(i32, i64)],
    note: &str,
) -> Result<(), rdkafka::error::KafkaError> {
    let mut list = TopicPartitionList::new();
    for (partition, next) in next {
        let mut element = list.add_partition(topic, *partition);
        element.set_offset(Offset::Offset(*next))?;
        element.set_metadata(note);
    }
    consumer.commit(&list, CommitMode::Sync)
}

/// A member that owns all partitions of a topic and settles nothing by itself, on a separate
/// thread.
pub(crate) struct Member {
    consumer: Arc<BaseConsumer>,
    leaving: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    /// `protocol` is `classic` or `consumer`. Returns when it owns `partitions` partitions.
    pub(crate) fn join(
        bootstrap: &str,
        group: &str,
        protocol: &str,
        topic: &str,
        partitions: usize,
    ) -> Self {
        let consumer: BaseConsumer = settings(bootstrap)
            .set("group.id", group)
            .set("group.protocol", protocol)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .create()
            .expect("the settings are right");
        consumer.subscribe(&[topic]).expect("it is a topic");
        let (consumer, leaving) = (Arc::new(consumer), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (consumer, leaving) = (consumer.clone(), leaving.clone());
            move || {
                while !leaving.load(Relaxed) {
                    drop(consumer.poll(Duration::from_millis(20)));
                }
            }
        });
        let begun = Instant::now();
        while consumer.assignment().map_or(0, |owned| owned.count()) < partitions {
            assert!(begun.elapsed() < TIMEOUT, "the group gives it nothing");
            thread::yield_now();
        }
        Self {
            consumer,
            leaving,
            thread: Some(thread),
        }
    }

    pub(crate) fn commit(&self, topic: &str, next: &[(i32, i64)], note: &str) {
        commit(&self.consumer, topic, next, note).expect("a member may move its group");
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leaving.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the poller ends");
        }
    }
}
