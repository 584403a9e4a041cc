/// Counters of a producer, from [`Producer::stats`](crate::Producer::stats).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ProducerStats {
    /// Records that `send` has accepted, and those that exactly-once pipelines have published with their
    /// checkpoints.
    pub sent: u64,
    /// Records that the broker has acknowledged, including published ones.
    pub stored: u64,
    /// Records that failed permanently.
    pub failed: u64,
    /// Attempts that failed and were retried.
    pub retried: u64,
    /// Records sent and not yet acknowledged or failed.
    pub in_flight: u64,
    /// Bytes of these records; a record larger than the bound counts as the bound.
    pub in_flight_bytes: u64,
    /// Calls of `send` that had to wait for room.
    pub waited: u64,
}
