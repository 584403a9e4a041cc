//! Tombstones among the reports: records without a payload, by which a vehicle signs off.

use std::num::NonZeroU64;

/// Decides by its sequence number whether a record is a tombstone, so that every group can verify what it
/// receives.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tombstones(Option<NonZeroU64>);

impl Tombstones {
    /// Makes every `every`-th record of a vehicle a tombstone; `None` makes none.
    pub(crate) fn new(every: Option<u32>) -> Self {
        Self(every.and_then(|every| NonZeroU64::new(every.into())))
    }

    /// Returns whether the record of a vehicle with this sequence number is a tombstone.
    pub(crate) fn has(self, seq: u64) -> bool {
        self.0.is_some_and(|every| seq % every == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::Tombstones;

    #[test]
    fn every_nth_record_is_a_tombstone() {
        let found = |every| (1..=6).filter(move |seq| Tombstones::new(every).has(*seq));
        assert_eq!(found(Some(3)).collect::<Vec<_>>(), [3, 6]);
        assert_eq!(found(None).count(), 0);
    }
}
