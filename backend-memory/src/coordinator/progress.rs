//! A group's progress in its streams.

use super::GroupCoordinator;
use crate::error::BrokerError;
use crate::ids::{MemberId, PartitionRef, StreamId};

/// A group's progress in a partition, and its owner.
#[derive(Debug, Clone, Default)]
pub(crate) struct PartitionProgress {
    /// The offset of the first record that is not settled.
    pub(crate) next_offset: u64,
    /// The epoch of the last checkpoint. `None` while `next_offset` is only the start of the group.
    pub(crate) commit_epoch: Option<u64>,
    /// Whether the partition is closed and settled to its end.
    pub(crate) completed: bool,
    /// The epoch of the last assignment.
    pub(crate) epoch: u64,
    /// The member that owns the partition.
    pub(crate) owner: Option<MemberId>,
    /// Whether the owner was asked to release it.
    pub(super) draining: bool,
    /// The member that gets it when its owner releases it.
    pub(super) next_owner: Option<MemberId>,
}

/// The start of a group in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct StartOffset {
    /// The offset of the first record to read.
    pub(crate) next_offset: u64,
    /// Whether nothing is left to read: the partition is closed and `next_offset` is its end.
    pub(crate) completed: bool,
}

/// A group's progress in a stream.
#[derive(Debug, Default)]
pub(super) struct StreamProgress {
    pub(super) partitions: Vec<PartitionProgress>,
    /// The offsets of a reset that waits until every partition is drained. No partition of the
    /// stream is assigned until then.
    pub(super) pending_reset: Option<Vec<StartOffset>>,
    pub(super) resets_requested: u64,
    pub(super) resets_finished: u64,
    pub(super) reset_failure: Option<BrokerError>,
}

impl GroupCoordinator {
    pub(crate) fn reads(&self, stream: StreamId) -> bool {
        self.streams.contains_key(&stream)
    }

    /// Returns the streams that the group has progress in.
    pub(crate) fn streams(&self) -> impl Iterator<Item = StreamId> {
        self.streams.keys().copied()
    }

    /// Returns the progress in a partition. A partition that was added after the group started is
    /// read from its first record.
    pub(crate) fn progress(&self, partition: PartitionRef) -> PartitionProgress {
        let stream = self.streams.get(&partition.0);
        let progress = stream.and_then(|stream| stream.partitions.get(partition.1 as usize));
        progress.cloned().unwrap_or_default()
    }

    pub(super) fn progress_mut(
        &mut self,
        partition: PartitionRef,
    ) -> Option<&mut PartitionProgress> {
        let partitions = &mut self.streams.get_mut(&partition.0)?.partitions;
        let index = partition.1 as usize;
        if partitions.len() <= index {
            partitions.resize_with(index + 1, PartitionProgress::default);
        }
        partitions.get_mut(index)
    }

    /// Moves the group to `offsets` in a stream of which no partition has an owner.
    pub(crate) fn set_offsets(&mut self, stream: StreamId, offsets: &[StartOffset]) {
        let partitions = &mut self.streams.entry(stream).or_default().partitions;
        let count = partitions.len().max(offsets.len());
        partitions.resize_with(count, PartitionProgress::default);
        let beginning = StartOffset {
            next_offset: 0,
            completed: false,
        };
        let offsets = offsets.iter().copied().chain(std::iter::repeat(beginning));
        for (progress, offset) in partitions.iter_mut().zip(offsets) {
            progress.next_offset = offset.next_offset;
            progress.completed = offset.completed;
            progress.commit_epoch = None;
        }
        self.needs_rebalance = true;
    }

    /// Returns `Fenced` unless `member` owns the partition in this epoch.
    pub(crate) fn check_owner(
        &self,
        member: MemberId,
        partition: PartitionRef,
        epoch: u64,
    ) -> Result<(), BrokerError> {
        let progress = self.progress(partition);
        match progress.owner == Some(member) && progress.epoch == epoch {
            true => Ok(()),
            false => Err(BrokerError::Fenced),
        }
    }

    /// Stores a checkpoint that was checked. Progress only moves forward; a reset moves it back.
    pub(crate) fn commit(&mut self, partition: PartitionRef, epoch: u64, next_offset: u64) {
        if let Some(progress) = self.progress_mut(partition) {
            progress.next_offset = progress.next_offset.max(next_offset);
            progress.commit_epoch = Some(epoch);
        }
    }

    /// Stores that a closed partition is settled to its end, so that its children can be assigned.
    pub(crate) fn complete(&mut self, partition: PartitionRef, end: u64) {
        let Some(progress) = self.progress_mut(partition) else {
            return;
        };
        progress.next_offset = end;
        progress.completed = true;
        let owner = progress.owner;
        self.clear_owner(partition);
        self.needs_rebalance = true;
        if let Some(member) = owner.and_then(|owner| self.members.get_mut(&owner)) {
            member.remove(partition);
        }
    }
}
