use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts the records that a driver leaves out for its member:
/// [`ConsumerStats::filtered`](crate::ConsumerStats::filtered). Cheap to clone; all clones share one count.
///
/// A driver counts a record when it leaves it out, so one that is read again is counted again. The count changes as
/// soon as it is added to, without an event of the driver: of a partition whose records are all left out there may be
/// none.
#[derive(Debug, Clone, Default)]
pub struct FilteredCounter(Arc<AtomicU64>);

impl FilteredCounter {
    /// Adds records that are left out.
    pub fn add(&self, records: u64) {
        self.0.fetch_add(records, Relaxed);
    }

    /// Returns the number of records left out so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
