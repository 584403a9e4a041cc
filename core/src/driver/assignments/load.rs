use std::ops::{AddAssign, SubAssign};

use crate::driver::StoredRecord;

/// An amount of records, in both units that bound a call of `next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Load {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl Load {
    pub(super) fn of(records: &[StoredRecord]) -> Self {
        Self {
            records: records.len(),
            bytes: records.iter().map(StoredRecord::size).sum(),
        }
    }

    /// Returns whether both are below their bounds.
    pub(super) fn is_below(self, bound: Self) -> bool {
        self.records < bound.records && self.bytes < bound.bytes
    }
}

impl AddAssign for Load {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

impl SubAssign for Load {
    fn sub_assign(&mut self, other: Self) {
        self.records -= other.records;
        self.bytes -= other.bytes;
    }
}
