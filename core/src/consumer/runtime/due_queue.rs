//! When runs are due, across the partitions of a member: for their next attempt, or because the time of an
//! attempt ends.

use std::collections::BTreeSet;

use tokio::time::Instant;

/// Due times, each with the index of the assignment and a number that distinguishes its runs.
#[derive(Debug, Default)]
pub(crate) struct DueQueue(BTreeSet<(Instant, usize, u64)>);

impl DueQueue {
    pub(crate) fn insert(&mut self, due: Instant, index: usize, run: u64) {
        self.0.insert((due, index, run));
    }

    pub(crate) fn remove(&mut self, due: Instant, index: usize, run: u64) {
        self.0.remove(&(due, index, run));
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
        let (_, index, run) = self.0.pop_first()?;
        Some((index, run))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
