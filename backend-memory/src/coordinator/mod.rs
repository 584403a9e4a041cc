//! The coordinator of one group: a state machine that gets the time from its caller.
//!
//! Nothing runs in the background. Each call passes the current time, the coordinator handles what is
//! due, and a waiting member waits no longer than [`GroupCoordinator::deadline`]. So a run under
//! tokio's paused clock is reproducible.
//!
//! A partition has at most one owner. To move it, the owner is asked to drain, releases it, and the
//! next owner is assigned at once with a larger epoch. An owner that does not release in time, or
//! whose session expires, is fenced: it no longer owns the partition in its epoch, so its
//! checkpoints and releases are rejected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use millstream_core::failpoint;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ids::{MemberId, StreamId};

mod member;
mod presence;
mod progress;
mod rebalance;
mod reset;
mod timers;

pub(crate) use member::{GroupMember, LAG_INTERVAL, MemberEvent, OwnedPartition, Presence};
pub(crate) use progress::StartOffset;
pub(crate) use timers::after;

use progress::StreamProgress;
use timers::Timer;

#[derive(Debug)]
pub(crate) struct GroupCoordinator {
    pub(crate) members: BTreeMap<MemberId, GroupMember>,
    /// Notified when a reset has ended, and when the next deadline may have changed.
    pub(crate) reset_done: Arc<Notify>,
    streams: BTreeMap<StreamId, StreamProgress>,
    timers: BTreeSet<(Instant, Timer)>,
    joined: MemberId,
    session_timeout: Duration,
    /// Smaller than every epoch that is assigned from now on: larger than those before the broker was
    /// opened, and not smaller than those of deleted streams, whose names may be reused.
    epoch_floor: u64,
    needs_rebalance: bool,
}

impl GroupCoordinator {
    pub(crate) fn new(session_timeout: Duration, epoch_floor: u64) -> Self {
        Self {
            members: BTreeMap::new(),
            reset_done: Arc::default(),
            streams: BTreeMap::new(),
            timers: BTreeSet::new(),
            joined: 0,
            session_timeout,
            epoch_floor,
            needs_rebalance: false,
        }
    }

    pub(crate) fn raise_epoch_floor(&mut self, floor: u64) {
        self.epoch_floor = self.epoch_floor.max(floor);
    }

    pub(crate) fn join(&mut self, member: GroupMember) -> MemberId {
        self.joined += 1;
        self.members.insert(self.joined, member);
        self.needs_rebalance = true;
        self.joined
    }

    pub(crate) fn leave(&mut self, member: MemberId) {
        self.revoke_all_now(member);
        self.members.remove(&member);
    }

    /// Plans again, because partitions were added or closed.
    pub(crate) fn partitions_changed(&mut self, stream: StreamId) {
        self.needs_rebalance |= self.streams.contains_key(&stream);
    }

    /// Removes everything about a deleted stream except its largest epoch. Memberships that read it
    /// end.
    pub(crate) fn stream_deleted(&mut self, stream: StreamId, name: &Arc<str>) {
        let deleted = self.streams.remove(&stream).unwrap_or_default();
        let epochs = deleted.partitions.iter().map(|partition| partition.epoch);
        if !failpoint!(EpochsRestart) {
            self.epoch_floor = epochs.fold(self.epoch_floor, u64::max);
        }
        for member in self.members.values_mut() {
            if member.streams.contains(&stream) {
                member.remove_stream(stream);
                member.deleted_stream = Some(name.clone());
                member.wake.notify_one();
            }
        }
        self.reset_done.notify_waiters();
        self.needs_rebalance = true;
    }

    /// Wakes every waiter, because the next deadline may now be earlier than the one they wait for.
    pub(crate) fn wake_all(&self) {
        for member in self.members.values() {
            member.wake.notify_one();
        }
        self.reset_done.notify_waiters();
    }
}
