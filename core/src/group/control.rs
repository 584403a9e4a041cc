use std::collections::BTreeMap;
use std::sync::Arc;

use crate::runtime::board::Board;
use crate::{ConsumerStats, Partition, PartitionStats};

/// Watches and steers one member from elsewhere. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control(pub(super) Arc<Board>);

impl Control {
    /// Stops taking new records of `partition`, or of all partitions now and later if `None`. What
    /// was received goes on to the handler, and the membership goes on too.
    pub fn pause(&self, partition: Option<&Partition>) {
        self.0.wish(|wishes| wishes.pause(partition));
    }

    /// Ends a pause of `partition`, or every pause if `None`.
    pub fn resume(&self, partition: Option<&Partition>) {
        self.0.wish(|wishes| wishes.resume(partition));
    }

    /// Begins the shutdown, as the shutdown future would. Doing it twice is the same as once.
    pub fn shutdown(&self) {
        self.0.wish(|wishes| wishes.shutdown = true);
    }

    /// What was counted so far.
    pub fn stats(&self) -> ConsumerStats {
        self.0.counters.read()
    }

    /// The partitions that this member owns now, with what it knows of each. Brought up to date
    /// with each checkpoint.
    pub fn partitions(&self) -> BTreeMap<Partition, PartitionStats> {
        self.0.partitions()
    }
}
