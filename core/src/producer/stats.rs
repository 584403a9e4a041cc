/// Counters of a producer, from [`Producer::stats`](crate::Producer::stats).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ProducerStats {
    /// Records that `send` has taken, and those that exactly-once pipelines have published by their
    /// checkpoints.
    pub sent: u64,
    /// Records that the broker has acknowledged, published ones too.
    pub stored: u64,
    /// Records that failed for good.
    pub failed: u64,
    /// Attempts that failed and were tried again.
    pub retried: u64,
    /// Records sent and not yet acknowledged or failed.
    pub in_flight: u64,
    /// Bytes of these records; a record larger than the bound counts as the bound.
    pub in_flight_bytes: u64,
    /// How often `send` had to wait for room.
    pub waited: u64,
}
