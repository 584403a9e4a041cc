//! Moves a group to other offsets while its members run.

use tokio::time::Instant;

use super::GroupCoordinator;
use super::progress::{StartOffset, StreamProgress};
use crate::error::BrokerError;
use crate::ids::{MemberId, PartitionRef, StreamId};

impl GroupCoordinator {
    /// Starts to move the group in a stream: all partitions are drained first. Returns the number
    /// to pass to [`reset_outcome`](Self::reset_outcome).
    ///
    /// A second reset replaces one that is in progress; both end when the second one does.
    pub(crate) fn begin_reset(
        &mut self,
        stream: StreamId,
        offsets: Vec<StartOffset>,
        now: Instant,
    ) -> u64 {
        let progress = self.streams.entry(stream).or_default();
        progress.pending_reset = Some(offsets);
        progress.resets_requested += 1;
        let number = progress.resets_requested;
        let owned: Vec<(PartitionRef, MemberId)> = progress
            .partitions
            .iter()
            .zip(0..)
            .filter(|(partition, _)| !partition.draining)
            .filter_map(|(partition, id)| partition.owner.map(|owner| ((stream, id), owner)))
            .collect();
        self.drain(owned, now);
        // Without owners the reset can end at once.
        self.needs_rebalance = true;
        number
    }

    /// Returns whether a reset was stored, or `None` while it is in progress.
    pub(crate) fn reset_outcome(
        &self,
        stream: StreamId,
        number: u64,
    ) -> Option<Result<(), BrokerError>> {
        let Some(progress) = self.streams.get(&stream) else {
            return Some(Err(BrokerError::StreamDeleted));
        };
        let is_finished = progress.resets_finished >= number;
        is_finished.then(|| progress.reset_failure.clone().map_or(Ok(()), Err))
    }

    /// Returns the resets whose streams are drained.
    pub(crate) fn drained_resets(&self) -> Vec<(StreamId, Vec<StartOffset>)> {
        let is_drained =
            |stream: &StreamProgress| stream.partitions.iter().all(|p| p.owner.is_none());
        self.streams
            .iter()
            .filter_map(|(id, stream)| Some((*id, stream, stream.pending_reset.clone()?)))
            .filter(|(_, stream, _)| is_drained(stream))
            .map(|(id, _, offsets)| (id, offsets))
            .collect()
    }

    /// Ends a reset: moves the group if the reset was stored, and lets it continue in any case.
    pub(crate) fn end_reset(&mut self, stream: StreamId, stored: Result<(), BrokerError>) {
        let Some(progress) = self.streams.get_mut(&stream) else {
            return;
        };
        progress.resets_finished = progress.resets_requested;
        let offsets = progress.pending_reset.take();
        progress.reset_failure = stored.err();
        if let (Some(offsets), None) = (offsets, &progress.reset_failure) {
            self.set_offsets(stream, &offsets);
        }
        self.needs_rebalance = true;
        self.reset_done.notify_waiters();
    }
}
