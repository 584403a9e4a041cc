//! Verifies the records that one group handled: all, in order, tombstones as tombstones, and without duplicates if no
//! member crashed.
//!
//! A crash repeats records, also for the downstream groups: a pipeline that resumes from its
//! checkpoint publishes its results again. So order is verified by the **first** time that
//! a record is handled, and duplicates are counted separately.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millstream::{Delivery, Partition};

use crate::sent_log::SentLog;
use crate::tag::{RunId, Tag};
use crate::tombstones::Tombstones;

/// The history of one group.
#[derive(Debug)]
pub(crate) struct Verifier {
    tombstones: Tombstones,
    history: Mutex<History>,
}

#[derive(Debug)]
struct History {
    lanes: HashMap<Box<str>, Lane>,
    /// When each partition last made progress.
    progress: HashMap<Partition, Instant>,
    started: Instant,
    counts: Counts,
}

/// Counters of one group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Distinct records.
    pub(crate) handled: u64,
    /// Records handled after a later one of their lane.
    pub(crate) out_of_order: u64,
    /// Records handled again.
    pub(crate) duplicates: u64,
    /// Tombstones that arrived with a payload, and other records that arrived without one.
    pub(crate) altered: u64,
    /// Records that are not of this run.
    pub(crate) foreign: u64,
    /// The longest time for which a partition handled nothing although the record that it handled next was
    /// already stored.
    pub(crate) max_stall: Duration,
}

/// The records of a lane that were seen: all up to `highest` except the missing ones.
#[derive(Debug, Default)]
struct Lane {
    highest: u64,
    missing: BTreeSet<u64>,
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    InOrder,
    OutOfOrder,
    Duplicate,
}

impl Verifier {
    pub(crate) fn new(started: Instant, tombstones: Tombstones) -> Self {
        let history = History {
            lanes: HashMap::new(),
            progress: HashMap::new(),
            started,
            counts: Counts::default(),
        };
        Self {
            tombstones,
            history: Mutex::new(history),
        }
    }

    /// Records that `delivery` was handled. Call it as the last step of a handler.
    pub(crate) fn handled(&self, run: &RunId, delivery: &Delivery) {
        let tag = run.tag(delivery.headers());
        if tag.is_some_and(|tag| self.tombstones.has(tag.seq) != delivery.is_tombstone()) {
            self.altered();
        }
        // The broker's clock may differ from this one: a negative age counts as zero.
        let age = delivery.timestamp().elapsed().unwrap_or_default();
        self.note(tag, delivery.partition(), age, Instant::now());
    }

    /// Records that a tombstone arrived with a payload, or another record without one.
    pub(crate) fn altered(&self) {
        self.lock().counts.altered += 1;
    }

    /// Records the handling of a record that was stored `age` ago.
    fn note(&self, tag: Option<Tag<'_>>, partition: &Partition, age: Duration, now: Instant) {
        let mut history = self.lock();
        let history = &mut *history;
        let counts = &mut history.counts;
        let Some(tag) = tag else {
            counts.foreign += 1;
            return;
        };
        let since = match history.progress.get_mut(partition) {
            Some(last) => std::mem::replace(last, now),
            None => {
                history.progress.insert(partition.clone(), now);
                history.started
            }
        };
        counts.max_stall = counts.max_stall.max(age.min(now - since));

        let lane = match history.lanes.get_mut(tag.lane) {
            Some(lane) => lane,
            None => history.lanes.entry(tag.lane.into()).or_default(),
        };
        match lane.note(tag.seq) {
            Seen::InOrder => counts.handled += 1,
            Seen::OutOfOrder => {
                counts.handled += 1;
                counts.out_of_order += 1;
            }
            Seen::Duplicate => counts.duplicates += 1,
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Returns the number of records of `log` that were never handled.
    pub(crate) fn lost(&self, log: &SentLog) -> u64 {
        let history = self.lock();
        log.count_unseen(|lane, seq| {
            history
                .lanes
                .get(lane)
                .is_some_and(|lane| lane.has_seen(seq))
        })
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    fn note(&mut self, seq: u64) -> Seen {
        if seq > self.highest {
            self.missing.extend(self.highest + 1..seq);
            self.highest = seq;
            return Seen::InOrder;
        }
        match self.missing.remove(&seq) {
            true => Seen::OutOfOrder,
            false => Seen::Duplicate,
        }
    }

    fn has_seen(&self, seq: u64) -> bool {
        (1..=self.highest).contains(&seq) && !self.missing.contains(&seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a verifier of a group that should have handled records 1 to `sent` of each lane.
    fn verifier(sent: u64, handled: &[(&str, u64)]) -> (Counts, u64) {
        let log = SentLog::default();
        for lane in ["a", "b"] {
            for _ in 0..sent {
                log.next(lane);
            }
        }
        let verifier = Verifier::new(Instant::now(), Tombstones::default());
        for (lane, seq) in handled.iter().copied() {
            let tag = Tag { lane, seq };
            verifier.note(
                Some(tag),
                &Partition::new("s", "0"),
                Duration::ZERO,
                Instant::now(),
            );
        }
        let lost = verifier.lost(&log);
        (
            Counts {
                max_stall: Duration::ZERO,
                ..verifier.counts()
            },
            lost,
        )
    }

    fn counts(handled: u64, out_of_order: u64, duplicates: u64) -> Counts {
        Counts {
            handled,
            out_of_order,
            duplicates,
            ..Counts::default()
        }
    }

    #[test]
    fn a_good_history_is_good() {
        let history = [("a", 1), ("b", 1), ("b", 2), ("a", 2)];
        assert_eq!(verifier(2, &history), (counts(4, 0, 0), 0));
    }

    #[test]
    fn a_lost_record_is_caught_in_the_middle_and_at_the_end() {
        assert_eq!(
            verifier(3, &[("a", 1), ("a", 3), ("b", 1), ("b", 2)]),
            (counts(4, 0, 0), 2)
        );
        assert_eq!(
            verifier(1, &[("a", 1)]),
            (counts(1, 0, 0), 1),
            "a whole lane"
        );
    }

    #[test]
    fn swapped_records_are_caught() {
        let history = [("a", 2), ("a", 1), ("b", 1), ("b", 2)];
        assert_eq!(verifier(2, &history), (counts(4, 1, 0), 0));
    }

    #[test]
    fn records_that_come_again_in_order_are_duplicates_only() {
        let history = [("a", 1), ("a", 2), ("a", 3), ("a", 2), ("a", 3), ("a", 4)];
        let (counts, _) = verifier(4, &history);
        assert_eq!(counts, self::counts(4, 0, 2));
    }

    #[test]
    fn a_repeat_does_not_hide_a_gap() {
        let history = [
            ("a", 1),
            ("a", 3),
            ("a", 1),
            ("a", 2),
            ("b", 1),
            ("b", 2),
            ("b", 3),
        ];
        assert_eq!(verifier(3, &history), (counts(6, 1, 1), 0));
    }

    #[test]
    fn records_of_other_runs_are_counted_apart() {
        let verifier = Verifier::new(Instant::now(), Tombstones::default());
        verifier.note(
            None,
            &Partition::new("s", "0"),
            Duration::ZERO,
            Instant::now(),
        );
        assert_eq!(
            verifier.counts(),
            Counts {
                foreign: 1,
                ..Counts::default()
            }
        );
    }

    #[test]
    fn a_stall_is_a_pause_in_which_a_record_waited() {
        let started = Instant::now();
        let verifier = Verifier::new(started, Tombstones::default());
        let at = |ms| started + Duration::from_millis(ms);
        let mut seq = 0;
        let mut note = |partition: &str, age, now| {
            seq += 1;
            let tag = Tag { lane: "a", seq };
            let partition = Partition::new("s", partition);
            verifier.note(Some(tag), &partition, Duration::from_millis(age), at(now));
            verifier.counts().max_stall.as_millis()
        };
        assert_eq!(
            note("0", 5, 1_000),
            5,
            "nothing to do for a second is no stall"
        );
        assert_eq!(note("0", 500, 1_010), 10, "a backlog is no stall");
        assert_eq!(note("1", 500, 2_000), 500);
        assert_eq!(
            note("0", 800, 2_010),
            800,
            "other partitions' progress hides nothing"
        );
    }
}
