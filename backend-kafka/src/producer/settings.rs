//! The librdkafka settings that the guarantees of a producer depend on.

use rdkafka::ClientConfig;

use super::accumulator::RequestLimit;
use super::batch_limit::BatchLimit;
use super::size_limits::BATCH_OVERHEAD;
use crate::config::Producer;
use crate::connection::set_default;

/// Sets the settings that all clients have in common.
pub(super) fn complete(settings: &mut ClientConfig, producer: &Producer, message_max: usize) {
    // How soon added partitions are used, 5 minutes by default.
    set_default(settings, "topic.metadata.refresh.interval.ms", "10000");
    settings
        // With these settings, records are stored once and in order through all retries, as long as the topic's
        // replicas keep them.
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("max.in.flight.requests.per.connection", "5")
        // A request that is rejected fails the client, before it sends later ones: see `record_sender`.
        .set("enable.gapless.guarantee", "true")
        // The partitioner of Java's producers, so that all agree on the partition of a key.
        .set("partitioner", "murmur2_random")
        .set(
            "message.timeout.ms",
            producer.timeout.as_millis().to_string(),
        )
        .set("linger.ms", producer.linger.as_millis().to_string())
        .set("compression.codec", producer.compression.codec())
        .set("message.max.bytes", message_max.to_string())
        // Streams are created explicitly, with the intended number of partitions.
        .set("allow.auto.create.topics", "false")
        // How long a new client waits for a topic that its broker does not know. After that the next client asks again,
        // perhaps another broker.
        .set("topic.metadata.propagation.max.ms", "5000")
        // The SDK limits the records in flight. A second limit here could only refuse records out of order.
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", i32::MAX.to_string());
}

/// Returns the size limits of batches and records from librdkafka's settings.
pub(super) fn limit(settings: &ClientConfig, message_max: usize) -> BatchLimit {
    BatchLimit {
        batch: number(settings, "batch.size", 1_000_000).min(message_max),
        record: message_max,
    }
}

/// Sets the size limits of batches and records.
pub(super) fn set_limit(settings: &mut ClientConfig, limit: BatchLimit) {
    settings
        .set("batch.size", limit.batch.to_string())
        .set("message.max.bytes", limit.record.to_string());
}

/// Returns the limits of librdkafka's requests for a partition, from its settings.
pub(super) fn request(settings: &ClientConfig, limit: BatchLimit) -> RequestLimit {
    RequestLimit {
        records: number(settings, "batch.num.messages", 10_000),
        bytes: limit.batch.saturating_sub(BATCH_OVERHEAD),
    }
}

fn number(settings: &ClientConfig, key: &str, default: usize) -> usize {
    let value = settings.get(key).and_then(|value| value.parse().ok());
    value.unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use rdkafka::ClientContext;
    use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
    use rdkafka::message::DeliveryResult;
    use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};

    use super::*;
    use crate::connection::context::severity;

    /// Collects librdkafka's warnings about its configuration, with the level of our log.
    #[derive(Default)]
    struct Warnings(Mutex<Vec<(RDKafkaLogLevel, String)>>);

    impl ClientContext for Warnings {
        fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
            if facility == "CONFWARN" {
                let level = severity(level, facility, message);
                self.0.lock().unwrap().push((level, message.to_owned()));
            }
        }
    }

    impl ProducerContext for Warnings {
        type DeliveryOpaque = ();

        fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
    }

    #[test]
    fn a_producer_starts_without_warnings() {
        let mut settings = ClientConfig::new();
        // No server listens on this port.
        settings.set("bootstrap.servers", "127.0.0.1:1");
        complete(&mut settings, &Producer::default(), 1_000_000);
        settings.set_log_level(RDKafkaLogLevel::Debug);
        let client = BaseProducer::from_config_and_context(&settings, Warnings::default()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let warnings = loop {
            client.poll(Duration::from_millis(10));
            // librdkafka must still warn. Otherwise this test proves nothing.
            let warnings = client.client().context().0.lock().unwrap();
            if !warnings.is_empty() {
                break warnings;
            }
            drop(warnings);
            assert!(Instant::now() < deadline, "librdkafka warns of nothing");
        };
        for (level, message) in &*warnings {
            assert!(matches!(level, RDKafkaLogLevel::Debug), "{message}");
        }
    }
}
