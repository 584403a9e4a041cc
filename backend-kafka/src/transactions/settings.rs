//! The librdkafka settings of transactional producers.

use std::time::Duration;

use rdkafka::ClientConfig;

use crate::config::Producer;

/// How long a transaction may be open before the broker aborts it.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Sets the settings that all clients have in common. For those that differ by stream see
/// [`of_stream`].
pub(super) fn complete(settings: &mut ClientConfig, producer: &Producer, transactional_id: &str) {
    let timeout = TRANSACTION_TIMEOUT.as_millis().to_string();
    settings
        .set("transactional.id", transactional_id)
        .set("transaction.timeout.ms", &timeout)
        .set("message.timeout.ms", &timeout)
        .set("partitioner", "murmur2_random")
        .set("compression.codec", producer.compression.codec())
        .set("allow.auto.create.topics", "false")
        // A transaction waits for its records anyway, and takes as long as its last record.
        .set("linger.ms", "0")
        // The runtime limits the size of a transaction.
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", i32::MAX.to_string());
}

/// Sets the settings for a stream with this batch size limit.
pub(super) fn of_stream(settings: &mut ClientConfig, message_max: usize) {
    settings.set("message.max.bytes", message_max.to_string());
}

#[cfg(test)]
mod tests {
    use rdkafka::config::FromClientConfig;
    use rdkafka::producer::BaseProducer;

    use super::*;
    use crate::config::Compression;

    #[test]
    fn results_are_compressed_and_as_large_as_the_topic_takes() {
        let mut settings = ClientConfig::new();
        let producer = Producer {
            compression: Compression::Zstd,
            ..Producer::default()
        };
        complete(&mut settings, &producer, "id");
        of_stream(&mut settings, 3_000_000);
        BaseProducer::from_config(&settings).unwrap();
        assert_eq!(settings.get("compression.codec"), Some("zstd"));
        assert_eq!(settings.get("message.max.bytes"), Some("3000000"));
    }
}
