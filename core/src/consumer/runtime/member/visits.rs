//! Counts how often assignments are looked at, so that a test sees what many partitions cost.

#[cfg(test)]
use std::cell::Cell;

#[cfg(test)]
thread_local! {
    static VISITS: Cell<u64> = const { Cell::new(0) };
}

/// Counts a look at one of all assignments. Does nothing but in tests.
#[inline]
pub(super) fn visited() {
    #[cfg(test)]
    VISITS.set(VISITS.get() + 1);
}

/// Returns how many looks the members of this thread have taken.
#[cfg(test)]
pub(super) fn count() -> u64 {
    VISITS.get()
}
