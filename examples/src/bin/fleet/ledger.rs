//! What was sent: how many records each lane has, and which of them nobody needs to handle.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The numbers given out, lane by lane. What it holds is what a group must have handled at the end.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    lanes: HashMap<Box<str>, u64>,
    given: u64,
    withdrawn: BTreeSet<(Box<str>, u64)>,
}

impl Ledger {
    /// Gives the next number of `lane`, from 1.
    pub(crate) fn next(&self, lane: &str) -> u64 {
        let mut entries = self.lock();
        entries.given += 1;
        match entries.lanes.get_mut(lane) {
            Some(last) => {
                *last += 1;
                *last
            }
            None => {
                entries.lanes.insert(lane.into(), 1);
                1
            }
        }
    }

    /// Says that nobody needs to handle this record: it was never stored, or it went to the dead
    /// letters. `false` if that was said before.
    pub(crate) fn withdraw(&self, lane: &str, seq: u64) -> bool {
        self.lock().withdrawn.insert((lane.into(), seq))
    }

    /// How many records are to be handled.
    pub(crate) fn expected(&self) -> u64 {
        let entries = self.lock();
        entries.given - entries.withdrawn.len() as u64
    }

    /// Counts the records to be handled for which `seen` says no.
    pub(crate) fn count_unseen(&self, seen: impl Fn(&str, u64) -> bool) -> u64 {
        let entries = self.lock();
        let all = entries
            .lanes
            .iter()
            .flat_map(|(lane, last)| (1..=*last).map(move |seq| (lane, seq)));
        let unseen = all.filter(|(lane, seq)| {
            !seen(lane, *seq) && !entries.withdrawn.contains(&((*lane).clone(), *seq))
        });
        unseen.count() as u64
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_by_lane() {
        let ledger = Ledger::default();
        let given = ["a", "b", "a", "a"].map(|lane| ledger.next(lane));
        assert_eq!(given, [1, 1, 2, 3]);
        assert_eq!(ledger.expected(), 4);
    }

    #[test]
    fn withdrawn_records_are_not_expected() {
        let ledger = Ledger::default();
        for _ in 0..3 {
            ledger.next("a");
        }
        assert!(ledger.withdraw("a", 2));
        assert!(!ledger.withdraw("a", 2));
        assert_eq!(ledger.expected(), 2);
        assert_eq!(ledger.count_unseen(|_, _| false), 2);
        assert_eq!(ledger.count_unseen(|_, seq| seq == 1), 1);
    }
}
