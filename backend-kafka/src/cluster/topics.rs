//! What brokers tell about topics.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};

use crate::connection::context::Context;

/// Topics that belong to the cluster itself.
const INTERNAL: [&str; 4] = [
    "__cluster_metadata",
    "__consumer_offsets",
    "__share_group_state",
    "__transaction_state",
];

/// What a broker shows of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) partitions: i32,
    /// The partitions that have a leader. A topic that was just made has none for a while.
    pub(crate) led: Vec<i32>,
}

impl Topic {
    /// Whether each partition has a leader. A topic whose partitions are not known yet has none.
    pub(crate) fn is_led(&self) -> bool {
        self.partitions > 0 && self.led.len() == self.partitions as usize
    }
}

/// Looks a topic up. None if there is none of that name. Never creates one, since consumers do not
/// ask for that.
pub(crate) fn look_up(
    client: &BaseConsumer<Context>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<Topic>, KafkaError> {
    let metadata = client.fetch_metadata(Some(topic), timeout)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Ok(None);
    };
    match found.error().map(RDKafkaErrorCode::from) {
        None | Some(RDKafkaErrorCode::LeaderNotAvailable) => Ok(Some(Topic {
            partitions: found.partitions().len() as i32,
            led: led(found),
        })),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            Ok(None)
        }
        Some(code) => Err(KafkaError::MetadataFetch(code)),
    }
}

fn led(topic: &MetadataTopic) -> Vec<i32> {
    let partitions = topic.partitions().iter();
    let led = partitions.filter(|partition| partition.leader() >= 0);
    led.map(MetadataPartition::id).collect()
}

/// The names of all topics but the cluster's own, sorted.
pub(crate) fn names(
    client: &BaseConsumer<Context>,
    timeout: Duration,
) -> Result<Vec<String>, KafkaError> {
    let metadata = client.fetch_metadata(None, timeout)?;
    let names = metadata.topics().iter().map(MetadataTopic::name);
    let mut names: Vec<String> = names
        .filter(|name| !INTERNAL.contains(name))
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// The brokers of the cluster that are up, each `host:port`.
pub(crate) fn brokers(
    client: &BaseConsumer<Context>,
    timeout: Duration,
) -> Result<Vec<String>, KafkaError> {
    let metadata = client.fetch_metadata(None, timeout)?;
    let brokers = metadata.brokers().iter();
    Ok(brokers
        .map(|broker| match broker.host() {
            ip if ip.contains(':') => format!("[{ip}]:{}", broker.port()),
            host => format!("{host}:{}", broker.port()),
        })
        .collect())
}
