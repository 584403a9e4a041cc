//! The brokers' metadata of topics.

use std::thread;
use std::time::{Duration, Instant};

use millstream_core::{Error, ErrorKind, Partition};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};

use crate::connection::context::Context;

/// How long a partition may be without a leader. A dead leader is replaced within `broker.session.timeout.ms` and a
/// moment, 9 s by default, if there is a replica that may take its place.
const WITHOUT_LEADER: Duration = Duration::from_secs(12);

/// Topics that belong to the cluster itself.
const INTERNAL: [&str; 4] = [
    "__cluster_metadata",
    "__consumer_offsets",
    "__share_group_state",
    "__transaction_state",
];

/// A broker's metadata of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) partitions: i32,
    /// The partitions that have a leader. A new topic has none for a while.
    pub(crate) led: Vec<i32>,
}

impl Topic {
    /// Returns whether each partition has a leader. A topic whose partitions are not known yet has none.
    pub(crate) fn is_led(&self) -> bool {
        self.partitions > 0 && self.led.len() == self.partitions as usize
    }

    /// Returns the first partition without a leader, if there is one.
    pub(crate) fn leaderless(&self) -> Option<i32> {
        (0..self.partitions).find(|partition| !self.led.contains(partition))
    }
}

/// Looks up a topic. Returns `None` if there is no topic of that name. Never creates one, because consumers do not
/// request that.
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

/// Looks up a topic, and waits for the leaders of its partitions for a while. The topic may still have partitions
/// without a leader.
pub(crate) fn look_up_led(
    client: &BaseConsumer<Context>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<Topic>, KafkaError> {
    const PAUSE: Duration = Duration::from_millis(200);
    let deadline = Instant::now() + WITHOUT_LEADER.min(timeout / 2);
    loop {
        let found = look_up(client, topic, timeout)?;
        let is_led = found.as_ref().is_none_or(Topic::is_led);
        if is_led || Instant::now() >= deadline {
            return Ok(found);
        }
        thread::sleep(PAUSE);
    }
}

/// Returns the error of a request that needs the leader of each partition.
pub(crate) fn no_leader(operation: &'static str, stream: &str, partition: i32) -> Error {
    let message = format!(
        "partition {partition} of the stream has no leader, so that nobody knows its offsets: try again when it \
         has one"
    );
    let partition = Partition::new(stream, partition.to_string());
    Error::new(ErrorKind::Unavailable, operation, message).with_partition(&partition)
}

fn led(topic: &MetadataTopic) -> Vec<i32> {
    let partitions = topic.partitions().iter();
    let led = partitions.filter(|partition| partition.leader() >= 0);
    led.map(MetadataPartition::id).collect()
}

/// Returns the names of all topics except the cluster's own, sorted.
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

/// Returns the brokers of the cluster that are up, each as `host:port`.
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
