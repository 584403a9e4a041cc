//! The plain clients of librdkafka, for comparison.

use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::KafkaResult;

use crate::job::Target;

/// What the backend sets that matters for speed: see its `consumer/settings.rs`.
const LIKE_OURS: [(&str, &str); 2] = [
    ("fetch.queue.backoff.ms", "2"),
    ("queued.max.messages.kbytes", "16384"),
];

pub(crate) fn client(target: &Target) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &target.brokers);
    config
}

pub(crate) fn consumer(target: &Target) -> ClientConfig {
    let mut config = client(target);
    config.set("group.id", &target.group);
    config.set("auto.offset.reset", "earliest");
    config
}

pub(crate) fn tuned_consumer(target: &Target) -> ClientConfig {
    let mut config = consumer(target);
    for (key, value) in LIKE_OURS {
        config.set(key, value);
    }
    config
}

pub(crate) fn subscribe(config: &ClientConfig, target: &Target) -> KafkaResult<StreamConsumer> {
    let consumer: StreamConsumer = config.create()?;
    consumer.subscribe(&[&target.topic])?;
    Ok(consumer)
}

/// As durable as ours, and with its partitioner.
pub(crate) fn producer(target: &Target, linger_ms: u32) -> ClientConfig {
    let mut config = client(target);
    config.set("enable.idempotence", "true");
    config.set("acks", "all");
    config.set("linger.ms", linger_ms.to_string());
    config.set("partitioner", "murmur2_random");
    config
}
