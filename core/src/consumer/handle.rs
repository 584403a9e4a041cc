use std::collections::BTreeMap;
use std::sync::Arc;

use crate::consumer::runtime::control_state::ControlState;
use crate::{ConsumerStats, Partition, PartitionStats};

/// Handle for monitoring and controlling a running consumer. Cheap to clone.
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

    /// Begins the shutdown, as the shutdown future would. Further calls have no effect.
    pub fn shutdown(&self) {
        self.0.update(|requests| requests.shutdown = true);
    }

    /// Returns a snapshot of the counters.
    pub fn stats(&self) -> ConsumerStats {
        self.0.counters.read()
    }

    /// Returns the partitions that this member owns now, with what it knows of each. Up to date as of
    /// the last records that were received or settled.
    pub fn partitions(&self) -> BTreeMap<Partition, PartitionStats> {
        self.0.partitions()
    }
}
