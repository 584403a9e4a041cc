use std::collections::BTreeMap;
use std::sync::Arc;

use crate::consumer::runtime::control_state::ControlState;
use crate::{ConsumerStats, Partition, PartitionStats};

/// Watches and steers one member from elsewhere. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConsumerHandle(pub(super) Arc<ControlState>);

impl ConsumerHandle {
    /// Stops reading new records of `partition`. Records that were received still go to the handler,
    /// and the member stays in its group. The pause outlives the assignment: it holds when the
    /// partition comes back to this member.
    pub fn pause(&self, partition: &Partition) {
        self.0
            .update(|requests| requests.set_paused(partition, true));
    }

    /// Resumes `partition`, also while all others are paused by [`pause_all`](Self::pause_all).
    pub fn resume(&self, partition: &Partition) {
        self.0
            .update(|requests| requests.set_paused(partition, false));
    }

    /// Pauses all partitions, those that are assigned later too, as [`pause`](Self::pause) does one.
    pub fn pause_all(&self) {
        self.0.update(|requests| requests.set_all_paused(true));
    }

    /// Ends every pause that was asked for.
    pub fn resume_all(&self) {
        self.0.update(|requests| requests.set_all_paused(false));
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
