//! Tracks which leader wrote the records of a partition.

/// The leader epochs of the records that were read from a partition, for the offsets that are stored.
#[derive(Debug, Default)]
pub(crate) struct LeaderEpochs {
    /// The offsets at which a new epoch begins, in ascending order. `None` is an unknown epoch.
    since: Vec<(i64, Option<i32>)>,
}

impl LeaderEpochs {
    /// Starts at an offset that was stored with an epoch.
    pub(crate) fn at(next: i64, epoch: Option<i32>) -> Self {
        let since = vec![(next - 1, epoch)];
        Self { since }
    }

    /// Records the epoch of the records from an offset on.
    pub(crate) fn note(&mut self, offset: i64, epoch: Option<i32>) {
        let last = self.since.last().map(|(_, epoch)| *epoch);
        if last != Some(epoch) {
            self.since.push((offset, epoch));
        }
    }

    /// Returns the epoch of the record before an offset that is to be stored.
    pub(crate) fn before(&self, next: i64) -> Option<i32> {
        let mut newest = self.since.iter().rev();
        newest.find(|(first, _)| *first < next)?.1
    }

    /// Forgets the epochs that are only needed for offsets before this one.
    pub(crate) fn forget_before(&mut self, next: i64) {
        let begun = self.since.partition_point(|(first, _)| *first < next);
        self.since.drain(..begun.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stored_offset_keeps_its_epoch() {
        let epochs = LeaderEpochs::at(100, Some(3));
        assert_eq!(epochs.before(100), Some(3));
        assert_eq!(LeaderEpochs::at(0, None).before(0), None);
    }

    proptest! {
        /// `runs` are runs of records, each with the epoch of its leader. Stored offsets never go back.
        #[test]
        fn epoch_is_that_of_the_last_record_before_the_offset(
            runs in vec((1i64..5, 0i32..3), 1..10),
            stored in vec(0i64..50, 0..5),
        ) {
            let mut model = Vec::new();
            let mut epochs = LeaderEpochs::at(0, None);
            for (length, epoch) in runs {
                epochs.note(model.len() as i64, Some(epoch));
                model.extend((0..length).map(|_| epoch));
            }
            let mut stored: Vec<i64> = stored;
            stored.sort_unstable();
            for next in stored {
                let next = next.min(model.len() as i64);
                epochs.forget_before(next);
                for later in next..=model.len() as i64 {
                    let expected = usize::try_from(later - 1).ok().map(|last| model[last]);
                    prop_assert_eq!(epochs.before(later), expected, "{}", later);
                }
            }
        }
    }
}
