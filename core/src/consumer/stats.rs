//! Counters of a member, and the state of its partitions.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::{Epoch, Lag, Position};

/// State of a partition that a member owns.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionStats {
    /// The epoch of its assignment.
    pub epoch: Epoch,
    /// The last position up to which all records are settled.
    pub settled: Option<Position>,
    /// Records received and not settled.
    pub unsettled: usize,
    /// The first unsettled record, which holds the checkpoint back. Updated once a second, so it is
    /// `None` while records settle quickly.
    pub oldest_unsettled: Option<OldestUnsettled>,
    /// Whether reading is paused: by the application, or because a bound was reached
    /// ([`max_unsettled_per_partition`](crate::ConsumerGroup::max_unsettled_per_partition),
    /// [`buffer_bytes`](crate::ConsumerGroup::buffer_bytes)).
    pub paused: bool,
    /// How far the last received record is behind the end of the partition, as last reported by the
    /// backend. Zero if all records are received, even if none is settled: a member receives up to
    /// [`max_unsettled_per_partition`](crate::ConsumerGroup::max_unsettled_per_partition) records
    /// (10,000 by default) before its handlers are done. Not the number for an alarm.
    pub lag: Lag,
}

impl PartitionStats {
    /// Returns how many records of the partition are not settled: those that were received, and those
    /// that the backend reports behind them. This is the number for an alarm: it also grows while a
    /// stuck handler blocks the partition.
    ///
    /// `None` where the backend does not report records (Kinesis). For an alarm there, and for one in
    /// units of time, use [`OldestUnsettled::age`] of
    /// [`oldest_unsettled`](Self::oldest_unsettled): it grows until the record is settled.
    pub fn behind(&self) -> Option<u64> {
        let records = self.lag.records?;
        Some(records.saturating_add(self.unsettled as u64))
    }
}

/// The first unsettled record of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OldestUnsettled {
    /// The position.
    pub position: Position,
    /// The key, if it has one.
    pub key: Option<Bytes>,
    /// The number of the current attempt, or of the next one if the record waits for it. 0 if its handler was never
    /// called.
    pub attempt: u32,
    begun: Option<Instant>,
    due: Option<Instant>,
}

impl OldestUnsettled {
    pub(crate) fn new(
        position: Position,
        key: Option<Bytes>,
        attempt: u32,
        begun: Option<Instant>,
        due: Option<Instant>,
    ) -> Self {
        Self {
            position,
            key,
            attempt,
            begun,
            due,
        }
    }

    /// Returns the time since the first attempt began, including retries and the time between them.
    /// `None` if its handler was never called.
    pub fn age(&self) -> Option<Duration> {
        self.begun.map(|begun| begun.elapsed())
    }

    /// Returns the time until the next attempt, if the record waits for one.
    pub fn next_attempt(&self) -> Option<Duration> {
        let now = Instant::now();
        self.due.map(|due| due.saturating_duration_since(now))
    }
}

/// Counters of a member, from [`ConsumerHandle::stats`](crate::ConsumerHandle::stats).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ConsumerStats {
    /// Records received from the broker.
    pub received: u64,
    /// Records settled: acked, dead-lettered or skipped. In an exactly-once pipeline a record counts when
    /// its handler has succeeded, before its result is published.
    pub settled: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Failed attempts that were retried.
    pub retried: u64,
    /// Records sent to the dead letter stream.
    pub dead_lettered: u64,
    /// Dead letters that differ from their record, because their stream does not accept it; see
    /// [`DeadLetter`](crate::DeadLetter).
    pub dead_letters_changed: u64,
    /// Records skipped by the failure policy.
    pub skipped: u64,
    /// Handlers that panicked; each also counts as a failure.
    pub panicked: u64,
    /// Checkpoints stored, counted per partition.
    pub checkpoints: u64,
    /// Records that an exactly-once pipeline has published.
    pub published: u64,
    /// Partitions assigned.
    pub assigned: u64,
    /// Partitions handed over after a drain.
    pub released: u64,
    /// Partitions lost.
    pub lost: u64,
    /// Records that were handed to a handler and were not settled when their partition left this
    /// member. They are delivered again.
    pub abandoned: u64,
    /// Records of the member's partitions that the backend has left out, and no handler gets. Always 0 on memory and
    /// Kafka. Kinesis: records of aggregates whose hash keys belong to another shard. The KPL sends its own again to
    /// that shard; those of other writers are left out only with `consumer.foreign_aggregates = "filter"`, and nobody
    /// sends them again. A record that is read again is counted again.
    pub filtered: u64,
    /// Gaps skipped by [`OnDataLoss::Skip`](crate::OnDataLoss::Skip).
    pub data_losses: u64,
    /// Deliveries or batches that are being handled now, including those that wait for a retry.
    pub in_flight: u64,
    /// Bytes of records held now.
    pub buffered_bytes: u64,
}
