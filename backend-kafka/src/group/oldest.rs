//! The oldest record that a group has not settled. Brokers report how many such records there are, but not how old
//! they are, so one record of each partition is read.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millstream_core::telemetry::{Causes, event};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use crate::connection::context::Context;

/// The first entry of a partition from an offset on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// A record, with its timestamp in milliseconds since 1970. `None` if it has no timestamp.
    Record(Option<i64>),
    /// No record: there are only transaction markers.
    Nothing,
}

/// A client that reads single records. It is created when it is needed, and shared by all streams of a call: each
/// client takes a connection to each broker.
pub(crate) struct RecordReader {
    settings: ClientConfig,
    context: Context,
    consumer: Option<BaseConsumer<Context>>,
}

impl RecordReader {
    /// `settings` are those that all clients have in common. `group` is the group for which the client reads.
    pub(crate) fn new(mut settings: ClientConfig, context: Context, group: &str) -> Self {
        // It is never a member: partitions are assigned without the group, and nothing is committed.
        settings.set("group.id", group);
        settings.set("enable.auto.commit", "false");
        settings.set("enable.auto.offset.store", "false");
        settings.set("auto.offset.reset", "error");
        settings.set("enable.partition.eof", "true");
        // One batch of each partition is enough. A larger batch is fetched too, but alone.
        settings.set("fetch.message.max.bytes", "16384");
        settings.set("queued.min.messages", "1");
        settings.set("fetch.wait.max.ms", "20");
        Self {
            settings,
            context,
            consumer: None,
        }
    }

    /// Reads the first record of each partition from the given offset on. Records that were not found in time are
    /// not in the result. Blocks.
    pub(crate) fn first_records(
        &mut self,
        topic: &str,
        from: &BTreeMap<i32, i64>,
        time: Duration,
    ) -> Result<BTreeMap<i32, First>, KafkaError> {
        let mut found = BTreeMap::new();
        if from.is_empty() {
            return Ok(found);
        }
        let deadline = Instant::now() + time;
        let mut list = TopicPartitionList::with_capacity(from.len());
        for (partition, offset) in from {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        let consumer = self.consumer()?;
        // Fetched records of an earlier stream are not delivered any more.
        consumer.assign(&list)?;
        while found.len() < from.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match consumer.poll(left) {
                Some(Ok(message)) => {
                    let first = found.entry(message.partition());
                    first.or_insert(First::Record(message.timestamp().to_millis()));
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    found.entry(partition).or_insert(First::Nothing);
                }
                // A broker may be unavailable for a moment. Partitions without a timely response stay unknown.
                Some(Err(error)) => event!(
                    debug, "millstream.kafka.group.oldest_unknown", topic, error = %Causes(&error),
                    "the oldest record is not told yet"
                ),
                None => {}
            }
        }
        Ok(found)
    }

    fn consumer(&mut self) -> Result<&BaseConsumer<Context>, KafkaError> {
        let consumer = match self.consumer.take() {
            Some(consumer) => consumer,
            None => BaseConsumer::from_config_and_context(&self.settings, self.context.clone())?,
        };
        Ok(self.consumer.insert(consumer))
    }
}
