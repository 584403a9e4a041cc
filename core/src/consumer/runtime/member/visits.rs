//! Counts visits of assignments, so that a test sees the cost of many partitions.

#[cfg(test)]
use std::cell::Cell;

#[cfg(test)]
thread_local! {
    static VISITS: Cell<u64> = const { Cell::new(0) };
}

/// Counts a visit of one of all assignments. Does nothing except in tests.
#[inline]
pub(super) fn visited() {
    #[cfg(test)]
    VISITS.set(VISITS.get() + 1);
}

/// Returns how many visits the members of this thread have made.
#[cfg(test)]
pub(super) fn count() -> u64 {
    VISITS.get()
}
