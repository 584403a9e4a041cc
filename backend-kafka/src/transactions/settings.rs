//! How librdkafka has to send transactions.

use std::time::Duration;

use rdkafka::ClientConfig;

/// How long a transaction may be open before the broker aborts it.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Completes what all clients have in common.
pub(super) fn complete(settings: &mut ClientConfig, transactional_id: &str) {
    let timeout = TRANSACTION_TIMEOUT.as_millis().to_string();
    settings
        .set("transactional.id", transactional_id)
        .set("transaction.timeout.ms", &timeout)
        .set("message.timeout.ms", &timeout)
        .set("partitioner", "murmur2_random")
        .set("allow.auto.create.topics", "false")
        // A transaction waits for its records anyway, and takes as long as its last one.
        .set("linger.ms", "0")
        // A transaction is bounded by the runtime.
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", i32::MAX.to_string());
}
