//! The bytes of records that one member may hold, divided among its partitions.
//!
//! Half of the limit is divided into equal shares, one per partition. A partition that needs more than
//! its share borrows from the other half. When that is used up, only partitions that have borrowed are
//! paused; one that holds no more than its share continues.
//!
//! Rejected: one sum for all partitions. A stuck partition would stop all others.

#[derive(Debug)]
pub(crate) struct BufferBudget {
    limit: usize,
    partitions: usize,
    held: usize,
    /// The sum of what each partition holds beyond its share.
    borrowed: usize,
}

impl BufferBudget {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            partitions: 0,
            held: 0,
            borrowed: 0,
        }
    }

    /// Returns what each partition may hold, independently of the others. It changes only when the number
    /// of partitions passes a power of two, because all are counted again then.
    pub(crate) fn share(&self) -> usize {
        self.limit / 2 / self.partitions.max(1).next_power_of_two()
    }

    /// Sets how many partitions there are. `held` returns the counted bytes of each.
    pub(crate) fn set_partitions(&mut self, partitions: usize, held: impl Iterator<Item = usize>) {
        let before = self.share();
        self.partitions = partitions;
        let share = self.share();
        if share != before {
            self.borrowed = held.map(|bytes| bytes.saturating_sub(share)).sum();
        }
    }

    /// Records that a partition holds `after` bytes instead of `before`.
    pub(crate) fn update(&mut self, before: usize, after: usize) {
        let share = self.share();
        self.held = self.held - before + after;
        self.borrowed = self.borrowed - before.saturating_sub(share) + after.saturating_sub(share);
    }

    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Returns whether nothing more can be borrowed.
    pub(crate) fn is_full(&self) -> bool {
        self.borrowed > self.limit / 2
    }

    /// Returns whether paused partitions may be resumed.
    pub(crate) fn has_room(&self) -> bool {
        self.borrowed <= self.limit / 4
    }

    /// Returns whether memory is scarce, so that settled records should be dropped.
    pub(crate) fn is_tight(&self) -> bool {
        self.held > self.limit / 2 || !self.has_room()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_beyond_the_shares_is_borrowed() {
        let mut budget = BufferBudget::new(80);
        budget.set_partitions(2, [].into_iter());
        budget.update(0, 20);
        assert!(budget.has_room() && !budget.is_tight());
        budget.update(20, 61);
        assert!(budget.is_full());
        budget.update(0, 20);
        assert_eq!((budget.held(), budget.borrowed), (81, 41));
        budget.update(61, 40);
        assert!(!budget.is_full() && budget.has_room());
    }

    #[test]
    fn shares_follow_the_number_of_partitions() {
        let mut budget = BufferBudget::new(80);
        budget.set_partitions(1, [].into_iter());
        budget.update(0, 60);
        assert_eq!((budget.share(), budget.borrowed), (40, 20));
        budget.set_partitions(3, [60, 0].into_iter());
        assert_eq!((budget.share(), budget.borrowed), (10, 50));
        budget.set_partitions(4, [60, 0, 0].into_iter());
        assert_eq!(budget.borrowed, 50);
        budget.update(60, 0);
        assert_eq!((budget.held(), budget.borrowed), (0, 0));
    }
}
