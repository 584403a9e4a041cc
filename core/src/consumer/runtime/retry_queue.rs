//! When the runs that wait for their retry are due, across the partitions of a member.

use std::collections::BTreeSet;

use tokio::time::Instant;

/// Due times, each with the index of the assignment and the first number of the run.
#[derive(Debug, Default)]
pub(crate) struct RetryQueue(BTreeSet<(Instant, usize, u64)>);

impl RetryQueue {
    pub(crate) fn insert(&mut self, due: Instant, index: usize, first: u64) {
        self.0.insert((due, index, first));
    }

    pub(crate) fn remove(&mut self, due: Instant, index: usize, first: u64) {
        self.0.remove(&(due, index, first));
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.0.first().map(|(due, ..)| *due)
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.next_due().is_some_and(|due| due <= now)
    }

    /// Removes and returns the next one that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(usize, u64)> {
        if !self.is_due(now) {
            return None;
        }
        let (_, index, first) = self.0.pop_first()?;
        Some((index, first))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
