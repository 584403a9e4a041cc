//! One member in the coordinator: its partitions, its waiting events, and its presence.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use millstream_core::Lag;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ids::{PartitionRef, StreamId};

/// The interval at which the lag of paused partitions is reported, if it has changed.
pub(crate) const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// A partition that a member owns.
#[derive(Debug)]
pub(crate) struct OwnedPartition {
    pub(crate) epoch: u64,
    /// The offset of the next record to deliver.
    pub(crate) next_offset: u64,
    /// Whether `Assigned` was delivered. Before that, the partition can be revoked without an
    /// event.
    pub(crate) announced: bool,
    /// When its owner is fenced. Set while the partition drains.
    pub(crate) drain_until: Option<Instant>,
    pub(crate) paused: bool,
    /// Whether it is in the member's `ready` queue.
    pub(crate) queued: bool,
    /// Whether `Ended` was delivered.
    pub(crate) ended: bool,
    /// The last reported lag: with the last records, or in the last report.
    pub(crate) reported_lag: Option<Lag>,
}

/// An event that waits for a member.
#[derive(Debug)]
pub(crate) enum MemberEvent {
    Assigned(PartitionRef, u64),
    Revoking(Vec<(PartitionRef, u64)>, Instant),
    Lost(Vec<(PartitionRef, u64)>),
}

/// Whether a member sends heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Present,
    /// Paused by a fault: its calls hang until then.
    Paused {
        until: Instant,
    },
    /// Crashed by a fault, or its handle was dropped.
    Gone,
}

#[derive(Debug)]
pub(crate) struct GroupMember {
    pub(crate) name: Option<Arc<str>>,
    /// Its number among all joins of the broker, from 1.
    pub(crate) ordinal: u64,
    pub(crate) streams: BTreeSet<StreamId>,
    pub(crate) batch_records: usize,
    pub(crate) batch_bytes: u64,
    pub(crate) drain_timeout: Duration,
    /// Looked up for each batch that is read. Code that iterates over it sorts, so that runs are
    /// reproducible.
    pub(crate) owned: HashMap<PartitionRef, OwnedPartition, FixedState>,
    pub(crate) events: VecDeque<MemberEvent>,
    /// Partitions that may have records to read, each at most once. The queue makes reading fair,
    /// and as cheap with thousands of quiet partitions as with one.
    pub(crate) ready: VecDeque<PartitionRef>,
    /// The number of paused partitions it owns.
    pub(crate) paused: usize,
    /// When the lag of paused partitions is reported next.
    pub(crate) lag_due: Instant,
    pub(crate) wake: Arc<Notify>,
    pub(crate) presence: Presence,
    /// Wakes the calls that wait for the end of a pause.
    pub(crate) pause_changed: Arc<Notify>,
    /// Incremented when the member becomes absent or present, so that an outdated timer is ignored.
    pub(crate) presence_version: u64,
    /// Whether the session expired: the member owns nothing until it returns.
    pub(crate) expired: bool,
    /// Whether its handle still exists.
    pub(crate) attached: bool,
    /// A stream of the member that was deleted, which ends its membership.
    pub(crate) deleted_stream: Option<Arc<str>>,
}

impl GroupMember {
    pub(crate) fn assign(&mut self, partition: PartitionRef, epoch: u64, next_offset: u64) {
        let owned = OwnedPartition {
            epoch,
            next_offset,
            announced: false,
            drain_until: None,
            paused: false,
            queued: false,
            ended: false,
            reported_lag: None,
        };
        self.owned.insert(partition, owned);
        let event = MemberEvent::Assigned(partition, epoch);
        self.events.push_back(event);
        self.wake.notify_one();
    }

    /// Removes a partition without an event.
    pub(crate) fn remove(&mut self, partition: PartitionRef) -> Option<OwnedPartition> {
        let owned = self.owned.remove(&partition)?;
        self.paused -= usize::from(owned.paused);
        Some(owned)
    }

    /// Removes all partitions of a stream without an event.
    pub(crate) fn remove_stream(&mut self, stream: StreamId) {
        self.owned.retain(|partition, _| partition.0 != stream);
        self.paused = self.owned.values().filter(|owned| owned.paused).count();
    }

    /// Pauses or resumes a partition in its epoch.
    pub(crate) fn set_paused(
        &mut self,
        partition: PartitionRef,
        epoch: u64,
        paused: bool,
        now: Instant,
    ) {
        let owned = self.owned.get_mut(&partition);
        let Some(owned) = owned.filter(|owned| owned.epoch == epoch && owned.paused != paused)
        else {
            return;
        };
        owned.paused = paused;
        match paused {
            true => {
                self.paused += 1;
                if self.paused == 1 {
                    self.lag_due = now + LAG_INTERVAL;
                    // The member may wait without a deadline.
                    self.wake.notify_one();
                }
            }
            false => {
                self.paused -= 1;
                self.queue(partition);
            }
        }
    }

    /// Revokes a partition without a drain. The member gets `Lost` if it got `Assigned`.
    pub(crate) fn revoke(&mut self, partition: PartitionRef) {
        let Some(owned) = self.remove(partition) else {
            return;
        };
        if !owned.announced {
            return;
        }
        let lost = (partition, owned.epoch);
        match self.events.back_mut() {
            Some(MemberEvent::Lost(partitions)) => partitions.push(lost),
            _ => self.events.push_back(MemberEvent::Lost(vec![lost])),
        }
        self.wake.notify_one();
    }

    /// Appends a partition to the ready queue, if it can be read.
    pub(crate) fn queue(&mut self, partition: PartitionRef) {
        let Some(owned) = self.owned.get_mut(&partition) else {
            return;
        };
        if owned.announced && !owned.queued && !owned.paused && owned.drain_until.is_none() {
            owned.queued = true;
            // The member does not wait while the queue has an item, so only the first one wakes it.
            if self.ready.is_empty() {
                self.wake.notify_one();
            }
            self.ready.push_back(partition);
        }
    }
}
