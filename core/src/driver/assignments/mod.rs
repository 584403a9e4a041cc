//! The assignments of one member, and the events that wait for its runtime.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use foldhash::fast::FixedState;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Event, JoinOptions, StoredRecord};
use crate::sync::lock;
use crate::{Epoch, Error, Lag, Partition, Position, Result};

mod load;
mod state;
#[cfg(test)]
mod tests;

use load::Load;
use state::AssignmentsState;

/// A partition that the group's store assigns to this member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedPartition {
    /// The partition.
    pub partition: Partition,
    /// The epoch of the assignment.
    pub epoch: Epoch,
    /// The stored checkpoint, if there is one.
    pub resume_after: Option<Position>,
    /// The id of the stream, as in [`Event::Assigned`].
    pub stream_id: Option<Arc<str>>,
    /// Set if another member will own the partition: the time that is left for the drain.
    pub revoke_within: Option<Duration>,
}

/// An event that a driver reads in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionEvent {
    /// Records in stored order, as in [`Event::Records`]. Without records it is the lag alone.
    Records {
        /// The records.
        records: Vec<StoredRecord>,
        /// The lag behind these records.
        lag: Lag,
    },
    /// The lag behind everything that was read, without a record, as in [`Event::Lag`]. It is only delivered
    /// if it has changed.
    Lag(Lag),
    /// Retention has removed the next record, as in [`Event::DataLoss`].
    DataLoss {
        /// The last position before the gap, if there was one.
        after: Option<Position>,
        /// The oldest position that is left.
        earliest: Position,
    },
    /// The partition is closed and was read to its end, as in [`Event::Ended`].
    Ended,
}

/// The assignments of one member, and the queue of events behind
/// [`Membership::next`](super::Membership::next).
///
/// A driver reports the store's assignments ([`reconcile`](Self::reconcile), or individually
/// [`assign`](Self::assign), [`revoke`](Self::revoke), [`mark_lost`](Self::mark_lost)) and the records that it reads
/// ([`push`](Self::push)). `Assignments` turns them into events, in the order that [`Event`] requires:
///
/// * The events of a partition end with `Revoking` or `Lost`. Records that were read before, or are
///   still being read, are not delivered afterwards.
/// * A late response of the store does not bring back an assignment that was released or lost: `reconcile`
///   ignores every epoch up to the last one of the partition.
/// * A pause takes effect at once, including for records that were already read. The lag of a paused partition is
///   still reported, and counts the records that the pause holds back.
/// * A dropped [`next`](Self::next) loses no event, and each event wakes the waiting call.
/// * Partitions take turns, so a busy one does not delay the others.
///
/// `T` is the driver's state for each assignment: the next offset, or the task that reads. It is
/// dropped when the assignment ends. Closures that get it run under the lock of the queue, and must not
/// call the queue.
///
/// # Example
/// A polling driver advances the offset together with the records. So a read that is dropped
/// half way is repeated, and a read that returns too late is ignored:
///
/// ```
/// # use millstream_core::driver::{AssignedPartition, Assignments, PartitionEvent, StoredRecord};
/// # use millstream_core::{Lag, Partition};
/// # async fn read(partition: &Partition, offset: u64) -> Vec<StoredRecord> { Vec::new() }
/// # async fn poll(assignments: &Assignments<u64>) {
/// for (partition, epoch, offset) in assignments.readable() {
///     let records = read(&partition, offset).await;
///     let next_offset = offset + records.len() as u64;
///     let event = PartitionEvent::Records { records, lag: Lag::default() };
///     // An error means that the partition is no longer this member's to read.
///     let _ = assignments.push(&partition, epoch, event, |offset| *offset = next_offset);
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Assignments<T> {
    state: Mutex<AssignmentsState<T>>,
    /// Notified when there may be events for the one caller of `next`.
    changed: Notify,
    /// The approximate maximum of one call of `next`.
    batch: Load,
}

impl<T> Assignments<T> {
    /// Creates the queue of a member without assignments. The options bound the events that one call of
    /// [`next`](Self::next) returns.
    pub fn new(options: &JoinOptions) -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            batch: Load {
                records: options.batch_records.max(1),
                bytes: options.batch_bytes.max(1),
            },
        }
    }

    /// Applies **all** assignments of this member in the store: missing partitions are lost, new ones are
    /// assigned, and partitions that another member will own are revoked.
    ///
    /// Calls must be in the order in which the store has made the responses. Partitions that the member has released
    /// or lost in the meantime are ignored: only a larger epoch brings a partition back. `state` creates the
    /// driver's state for a new assignment.
    pub fn reconcile(
        &self,
        assigned: impl IntoIterator<Item = AssignedPartition>,
        mut state: impl FnMut(&AssignedPartition) -> T,
    ) {
        let assigned: Vec<AssignedPartition> = assigned.into_iter().collect();
        self.change(|queue| {
            let listed: HashSet<&Partition, FixedState> =
                assigned.iter().map(|found| &found.partition).collect();
            queue.mark_lost(|partition, _| !listed.contains(partition));
            for found in assigned {
                if queue.is_new(&found.partition, found.epoch) {
                    let kept = state(&found);
                    queue.assign(&found, kept);
                }
                if let Some(within) = found.revoke_within {
                    queue.revoke(&found.partition, found.epoch, within);
                }
            }
        });
    }

    /// Starts an assignment that the driver knows to be new, because it has taken the partition itself. An
    /// earlier assignment of the partition is lost.
    pub fn assign(&self, assigned: AssignedPartition, state: T) {
        self.change(|queue| {
            queue.assign(&assigned, state);
            if let Some(within) = assigned.revoke_within {
                queue.revoke(&assigned.partition, assigned.epoch, within);
            }
        });
    }

    /// Asks the runtime to drain and release a partition. Does nothing if this was already requested, or if the
    /// partition is not assigned in that epoch.
    pub fn revoke(&self, partition: &Partition, epoch: Epoch, within: Duration) {
        self.change(|queue| queue.revoke(partition, epoch, within));
    }

    /// Ends an assignment that another member may already have. Does nothing if the partition is not
    /// assigned in that epoch.
    pub fn mark_lost(&self, partition: &Partition, epoch: Epoch) {
        self.change(|queue| queue.mark_lost(|lost, of| lost == partition && of == epoch));
    }

    /// Ends all assignments: other members may already have them.
    pub fn mark_all_lost(&self) {
        self.change(|queue| queue.mark_lost(|_, _| true));
    }

    /// Ends the membership: [`next`](Self::next) returns the error when all events before it are
    /// delivered. The first error is kept.
    pub fn fail(&self, error: Error) {
        self.change(|queue| {
            queue.failure.get_or_insert(error);
        });
    }

    /// Queues an event that was read, and updates the driver's state for the assignment, in one step.
    ///
    /// # Errors
    /// Returns the event if the partition is not assigned in that epoch, is being revoked, or has ended. Then
    /// the state is not updated either, and the driver must not read on.
    pub fn push(
        &self,
        partition: &Partition,
        epoch: Epoch,
        event: PartitionEvent,
        update: impl FnOnce(&mut T),
    ) -> Result<(), PartitionEvent> {
        self.change(|queue| queue.push(partition, epoch, event, update))
    }

    /// Returns whether more records are wanted: fewer than one batch waits for the runtime. Records held back by
    /// paused partitions do not count.
    pub fn has_room(&self) -> bool {
        self.lock().waiting.is_below(self.batch)
    }

    /// Reads or changes the driver's state for an assignment. `None` if the partition is not assigned
    /// in that epoch.
    pub fn with<R>(
        &self,
        partition: &Partition,
        epoch: Epoch,
        access: impl FnOnce(&mut T) -> R,
    ) -> Option<R> {
        let mut queue = self.lock();
        let assignment = queue.assignment(partition, epoch)?;
        Some(access(&mut assignment.kept))
    }

    /// Ends an assignment that the runtime has released or completed, without an event, and returns the driver's
    /// state for it. `None` if the partition is not assigned in that epoch.
    pub fn close(&self, partition: &Partition, epoch: Epoch) -> Option<T> {
        self.lock().close(partition, epoch)
    }

    /// Ends all assignments of a leaving member, without events, and drops the waiting events.
    pub fn close_all(&self) {
        self.lock().close_all();
    }

    /// Holds back events that are read, or were read and are not delivered yet, until
    /// [`resume`](Self::resume).
    pub fn pause(&self, partition: &Partition, epoch: Epoch) {
        self.lock().pause(partition, epoch);
    }

    /// Delivers the events that a pause has held back, and continues to read.
    pub fn resume(&self, partition: &Partition, epoch: Epoch) {
        self.change(|queue| queue.resume(partition, epoch));
    }

    /// Waits for events and returns them: about one batch of records, and at least one event. Must not be called
    /// concurrently. Only a single event can exceed the bytes of a batch, so a driver must not push an event
    /// with more bytes, unless it has one record.
    ///
    /// # Errors
    /// The error of [`fail`](Self::fail), again on each further call.
    ///
    /// # Cancel safety
    /// A dropped call loses no event.
    pub async fn next(&self) -> Result<Vec<Event>> {
        loop {
            // There is no await after the events are taken.
            if let Some(result) = self.lock().take(self.batch) {
                return result;
            }
            // A change between the two stores a notification for this wait.
            self.changed.notified().await;
        }
    }

    fn change<R>(&self, change: impl FnOnce(&mut AssignmentsState<T>) -> R) -> R {
        let mut queue = self.lock();
        let result = change(&mut queue);
        if queue.has_events() {
            self.changed.notify_one();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, AssignmentsState<T>> {
        lock(&self.state)
    }
}

impl<T: Clone> Assignments<T> {
    /// Returns the partitions to read, each with its epoch and the driver's state: those that
    /// are neither paused nor leaving, the one that was read longest ago first. Empty while there is no
    /// [room](Self::has_room).
    pub fn readable(&self) -> Vec<(Partition, Epoch, T)> {
        match self.has_room() {
            true => self.lock().readable(),
            false => Vec::new(),
        }
    }

    /// Returns the paused partitions whose lag must be reported, by
    /// [`PartitionEvent::Lag`]: each with its epoch and the driver's state. Each is returned
    /// at most once a second.
    pub fn lag_due(&self) -> Vec<(Partition, Epoch, T)> {
        self.lock().lag_due(Instant::now())
    }
}

/// A map of one member's queue, by partition.
type ByPartition<T> = HashMap<Partition, T, FixedState>;
