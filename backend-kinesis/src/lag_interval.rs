//! The interval between two reads of a partition's lag.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use millstream_core::Partition;
use tokio::time::Instant;

/// A shard serves 5 reads per second, for all groups together. At most one of these is used for lag.
const INTERVAL: Duration = Duration::from_secs(1);

/// When the lag of each partition was last read.
#[derive(Debug, Default)]
pub(crate) struct LagInterval(Mutex<HashMap<Partition, Instant>>);

impl LagInterval {
    /// Returns whether a read is due. If so, the next one is due an interval later.
    pub(crate) fn is_due(&self, partition: &Partition) -> bool {
        let now = Instant::now();
        let mut last_reads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last_reads.get(partition).copied();
        let due = last.is_none_or(|last| now.duration_since(last) >= INTERVAL);
        if due {
            last_reads.insert(partition.clone(), now);
        }
        due
    }
}
