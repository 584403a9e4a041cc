//! The oldest record that a group has not settled: brokers tell how many there are, and not how old
//! they are, so that one record of each partition is read.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millstream_core::telemetry::{Causes, event};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use crate::connection::context::Context;

/// What stands first in a partition from some offset on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// A record, of this time in milliseconds since 1970. None if it has no timestamp.
    Record(Option<i64>),
    /// None: what there is are marks of transactions.
    Nothing,
}

/// A client that reads single records. It is made when it is needed, and for all streams of a call: each takes a
/// connection to each broker.
pub(crate) struct RecordReader {
    settings: ClientConfig,
    context: Context,
    consumer: Option<BaseConsumer<Context>>,
}

impl RecordReader {
    /// `settings` are those that all clients have in common. `group` is the one that the client reads for.
    pub(crate) fn new(mut settings: ClientConfig, context: Context, group: &str) -> Self {
        // It is never a member: partitions are taken without asking the group, and nothing is stored.
        settings.set("group.id", group);
        settings.set("enable.auto.commit", "false");
        settings.set("enable.auto.offset.store", "false");
        settings.set("auto.offset.reset", "error");
        settings.set("enable.partition.eof", "true");
        // One batch of each partition is enough; a larger one comes too, but by itself.
        settings.set("fetch.message.max.bytes", "16384");
        settings.set("queued.min.messages", "1");
        settings.set("fetch.wait.max.ms", "20");
        Self {
            settings,
            context,
            consumer: None,
        }
    }

    /// Looks for the first record of each partition from the given offset on. What was not found in time is
    /// not in the answer. Blocks.
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
        // What was fetched of an earlier stream does not come any more.
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
                // A broker that is away for a moment; what it does not answer in time stays unknown.
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
