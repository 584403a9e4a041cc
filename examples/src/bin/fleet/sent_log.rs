//! The sent records: the sequence numbers of each lane, and those that no group has to handle.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The sequence numbers by lane. A group must have handled all of them at the end.
#[derive(Debug, Default)]
pub(crate) struct SentLog(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    lanes: HashMap<Box<str>, u64>,
    given: u64,
    withdrawn: BTreeSet<(Box<str>, u64)>,
}

impl SentLog {
    /// Returns the next sequence number of `lane`, from 1.
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

    /// Withdraws a record that no group has to handle: it was never stored, or was dead-lettered.
    /// Returns `false` if it was withdrawn before.
    pub(crate) fn withdraw(&self, lane: &str, seq: u64) -> bool {
        self.lock().withdrawn.insert((lane.into(), seq))
    }

    /// Returns the number of records to be handled.
    pub(crate) fn expected(&self) -> u64 {
        let entries = self.lock();
        entries.given - entries.withdrawn.len() as u64
    }

    /// Counts the records to be handled for which `seen` returns `false`.
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
        let log = SentLog::default();
        let given = ["a", "b", "a", "a"].map(|lane| log.next(lane));
        assert_eq!(given, [1, 1, 2, 3]);
        assert_eq!(log.expected(), 4);
    }

    #[test]
    fn withdrawn_records_are_not_expected() {
        let log = SentLog::default();
        for _ in 0..3 {
            log.next("a");
        }
        assert!(log.withdraw("a", 2));
        assert!(!log.withdraw("a", 2));
        assert_eq!(log.expected(), 2);
        assert_eq!(log.count_unseen(|_, _| false), 2);
        assert_eq!(log.count_unseen(|_, seq| seq == 1), 1);
    }
}
