use std::collections::BTreeMap;
use std::sync::Arc;

use crate::consumer::runtime::control_state::ControlState;
use crate::{ConsumerStats, Partition, PartitionStats};

/// Watches and steers one member from elsewhere. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConsumerHandle(pub(super) Arc<ControlState>);

impl ConsumerHandle {
    /// Stops taking new records of `partition`, or of all partitions now and later if `None`. What
    /// was received goes on to the handler, and the membership goes on too.
    pub fn pause(&self, partition: Option<&Partition>) {
        self.0.update(|requests| requests.pause(partition));
    }

    /// Ends a pause of `partition`, or every pause if `None`.
    pub fn resume(&self, partition: Option<&Partition>) {
        self.0.update(|requests| requests.resume(partition));
    }

    /// Begins the shutdown, as the shutdown future would. Doing it twice is the same as once.
    pub fn shutdown(&self) {
        self.0.update(|requests| requests.shutdown = true);
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
