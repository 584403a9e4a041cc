use std::collections::BTreeMap;
use std::sync::Arc;

use crate::consumer::runtime::control_state::ControlState;
use crate::{ConsumerStats, Partition, PartitionStats};

/// Handle for monitoring and controlling a running consumer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConsumerHandle(pub(super) Arc<ControlState>);

impl ConsumerHandle {
    /// Pauses `partition`: no new records of it are read. Records that were already received still go
    /// to the handler, and the member stays in its group. The pause is kept when the partition moves to
    /// another member and comes back.
    pub fn pause(&self, partition: &Partition) {
        self.0
            .update(|requests| requests.set_paused(partition, true));
    }

    /// Resumes `partition`, also while all others are paused by [`pause_all`](Self::pause_all).
    pub fn resume(&self, partition: &Partition) {
        self.0
            .update(|requests| requests.set_paused(partition, false));
    }

    /// Pauses all partitions, including those that are assigned later; see [`pause`](Self::pause).
    pub fn pause_all(&self) {
        self.0.update(|requests| requests.set_all_paused(true));
    }

    /// Ends every pause that was requested by [`pause`](Self::pause) or [`pause_all`](Self::pause_all).
    pub fn resume_all(&self) {
        self.0.update(|requests| requests.set_all_paused(false));
    }

    /// Starts the shutdown, as the shutdown future would. Further calls have no effect.
    pub fn shutdown(&self) {
        self.0.update(|requests| requests.shutdown = true);
    }

    /// Returns a snapshot of the counters.
    pub fn stats(&self) -> ConsumerStats {
        self.0.counters.read()
    }

    /// Returns the partitions that this member owns now, with their stats as of the last records that
    /// were received or settled.
    pub fn partitions(&self) -> BTreeMap<Partition, PartitionStats> {
        self.0.partitions()
    }
}
