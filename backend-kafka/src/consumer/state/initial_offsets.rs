//! Stores where the group begins in streams that it reads first with this member.
//!
//! A broker accepts offsets for a group that has members only from its members, so a member stores them as soon as
//! it is one. Others may have joined since it looked for progress. They have stored their own offsets, and read on
//! from there. So the member looks again first, and stores only where no offset is stored. Kafka has no
//! compare-and-set commit: an offset that another member stores during that one request is overwritten.

use std::time::{Duration, Instant};

use super::progress::Progress;
use crate::consumer::types::TopicPartition;
use crate::native::group_offsets::StoredOffset;

/// The delay before looking again after offsets were not stored.
const PAUSE: Duration = Duration::from_millis(100);

/// The offsets that are not stored yet.
#[derive(Debug)]
pub(crate) struct InitialOffsets {
    left: Vec<StoredOffset>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Look at the stored offsets next.
    Look { due: Instant },
    /// Wait for the stored offsets, or for the end of the commit.
    Wait,
    /// Store the offsets that are left.
    Store,
}

/// The next action.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Find out which of these have no stored offset.
    Look(Vec<TopicPartition>),
    /// Do nothing at the moment.
    Wait,
    /// All offsets are stored.
    Done,
}

impl InitialOffsets {
    pub(crate) fn new(offsets: Vec<StoredOffset>, now: Instant) -> Self {
        Self {
            left: offsets,
            step: Step::Look { due: now },
        }
    }

    /// Decides what to do as a member. Assumes that the returned action is started.
    pub(crate) fn next(&mut self, now: Instant) -> Next {
        if self.left.is_empty() {
            return Next::Done;
        }
        match self.step {
            Step::Look { due } if due <= now => {
                self.step = Step::Wait;
                Next::Look(self.left.iter().map(name).collect())
            }
            Step::Look { .. } | Step::Wait | Step::Store => Next::Wait,
        }
    }

    /// Returns the offsets to store now, if any. Assumes that their commit is started.
    pub(crate) fn take_to_store(&mut self) -> Option<Vec<(TopicPartition, Progress)>> {
        let Step::Store = self.step else {
            return None;
        };
        self.step = Step::Wait;
        let left = self.left.iter();
        Some(
            left.map(|offset| (name(offset), Progress::at(offset.next)))
                .collect(),
        )
    }

    /// Records the partitions that have no stored offset.
    pub(crate) fn on_unstored(&mut self, unstored: &[TopicPartition]) {
        self.left.retain(|offset| unstored.contains(&name(offset)));
        self.step = Step::Store;
    }

    /// Records which offsets the broker has stored.
    pub(crate) fn on_stored(&mut self, now: Instant, is_stored: impl Fn(&TopicPartition) -> bool) {
        self.left.retain(|offset| !is_stored(&name(offset)));
        self.step = Step::Look { due: now + PAUSE };
    }

    /// Returns where to begin in a partition that has no stored offset yet.
    pub(crate) fn of(&self, (topic, partition): &TopicPartition) -> Option<i64> {
        let place = (&**topic, *partition);
        let found = self.left.iter().find(|offset| offset.place() == place)?;
        Some(found.next)
    }
}

fn name(offset: &StoredOffset) -> TopicPartition {
    (offset.topic.as_str().into(), offset.partition)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::group::note::Note;

    const PARTITIONS: i32 = 3;

    fn initial() -> InitialOffsets {
        let offset = |partition| StoredOffset::new("s", partition, 7, Note::default());
        InitialOffsets::new((0..PARTITIONS).map(offset).collect(), Instant::now())
    }

    proptest! {
        /// `others` and `refused` are steps: another member stores an offset between our steps, and some of our
        /// commits fail for some partitions.
        #[test]
        fn what_others_have_stored_before_the_look_stays(
            others in vec(proptest::option::of(0..PARTITIONS), 20),
            refused in vec(proptest::option::of(0..PARTITIONS), 20),
        ) {
            let mut offsets = initial();
            let mut now = Instant::now();
            let mut stored: BTreeMap<i32, i64> = BTreeMap::new();
            let mut stored_since_look = BTreeSet::new();
            for (other, refused) in others.into_iter().zip(refused).chain([(None, None); 10]) {
                now += PAUSE;
                match offsets.next(now) {
                    Next::Look(names) => {
                        stored_since_look.clear();
                        let unstored = |name: &TopicPartition| !stored.contains_key(&name.1);
                        let unstored: Vec<_> = names.into_iter().filter(unstored).collect();
                        offsets.on_unstored(&unstored);
                    }
                    Next::Wait => {
                        let to_store = offsets.take_to_store();
                        for ((_, partition), progress) in to_store.expect("all was reported") {
                            if Some(partition) == refused {
                                continue;
                            }
                            let before = stored.insert(partition, progress.next);
                            prop_assert!(
                                before.is_none() || stored_since_look.contains(&partition)
                            );
                        }
                        offsets.on_stored(now, |(_, partition)| Some(*partition) != refused);
                    }
                    Next::Done => {}
                }
                if let Some(partition) = other {
                    stored.insert(partition, 1_000);
                    stored_since_look.insert(partition);
                }
            }
            prop_assert_eq!(offsets.next(now), Next::Done);
            prop_assert_eq!(stored.len(), PARTITIONS as usize);
        }
    }

    #[test]
    fn nothing_is_done_twice_at_once() {
        let mut offsets = initial();
        let now = Instant::now();
        assert!(matches!(offsets.next(now), Next::Look(names) if names.len() == 3));
        assert_eq!(offsets.next(now), Next::Wait);
        assert_eq!(offsets.take_to_store(), None, "it looks first");
        offsets.on_unstored(&[("s".into(), 1)]);
        assert_eq!(offsets.of(&("s".into(), 0)), None);
        assert_eq!(offsets.of(&("s".into(), 1)), Some(7));
        assert_eq!(offsets.next(now), Next::Wait);
        assert_eq!(
            offsets.take_to_store().map(|offsets| offsets.len()),
            Some(1)
        );
        assert_eq!(offsets.take_to_store(), None);
        offsets.on_stored(now, |_| false);
        assert_eq!(offsets.next(now), Next::Wait, "a pause comes first");
        assert!(matches!(offsets.next(now + PAUSE), Next::Look(_)));
    }
}
