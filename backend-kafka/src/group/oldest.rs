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

/// Looks for the first record of each partition from the given offset on. What was not found in time
/// is not in the answer. Blocks.
pub(crate) fn first_records(
    mut settings: ClientConfig,
    context: Context,
    group: &str,
    topic: &str,
    from: &BTreeMap<i32, i64>,
    time: Duration,
) -> Result<BTreeMap<i32, First>, KafkaError> {
    let deadline = Instant::now() + time;
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
    let consumer = BaseConsumer::from_config_and_context(&settings, context)?;
    let mut list = TopicPartitionList::with_capacity(from.len());
    for (partition, offset) in from {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    consumer.assign(&list)?;
    let mut found = BTreeMap::new();
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
