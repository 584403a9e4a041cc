//! The one checker of histories, the same for every backend.
//!
//! # What is legal
//!
//! Delivery is at least once, so the checker must know what may be delivered again, and what may not:
//!
//! * A send that timed out may be stored or not, and a retried one may be stored twice. Order is
//!   checked on what was acknowledged, and on the first occurrence.
//! * A record may be handled again when the owner that settled it crashed, lost the partition, or was
//!   subject to a fault before the next owner began. It may not after a clean handover, not under the
//!   same epoch, and not once the stored checkpoint has passed it. What an owner settled behind a record
//!   that it left unsettled (its handler was stuck or failed for good) is delivered again, as no checkpoint can
//!   pass that record.
//! * A member that was frozen or cut off may continue with what it has, beside the new owner, until it
//!   learns of its loss; not after. It may not store progress.
//! * A reset repeats what it repeats: in a stream that a group was reset in, order is checked within
//!   each epoch only, and repeats are not checked. A reset that skips frees the group of what was sent
//!   before.
//! * After partitions were added to a stream, a key's order is checked within each partition only.
//! * What retention has removed is owed by nobody.
//! * Records without a key have no order.
//!
//! A history is checked as complete: the run has waited for its groups to settle what they owe.

use std::fmt;

use millstream_core::Partition;

use crate::history::Entry;

mod history_index;
mod integrity;
mod order;
mod owners;
mod progress;
mod violation;

pub use violation::{RecordLocation, Violation};

/// What is asked beyond the rules that always hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// How many settled records a new owner of one partition may have to repeat, at most.
    pub most_repeats: Option<u64>,
}

/// What happened, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// Records that were sent.
    pub sent: u64,
    /// Receipts with a place.
    pub acknowledged: u64,
    /// Receipts with a refusal.
    pub failed: u64,
    /// Receipts that left it open.
    pub unknown: u64,
    /// Handlings that settled a record.
    pub handled: u64,
    /// Handlings that failed.
    pub failures: u64,
    /// Acknowledged records that a group never settled, counted for each group.
    pub lost: u64,
    /// Records that were handled before an earlier one of their key.
    pub out_of_order: u64,
    /// Stored records that one group settled again, whether it was allowed or not.
    pub duplicates: u64,
    /// Records that were found in a dead letter stream.
    pub dead_lettered: u64,
    /// Records that were passed over by a policy.
    pub skipped: u64,
    /// Ownerships of a partition by a member after the partition's first one.
    pub handovers: u64,
    /// Members that were killed.
    pub crashes: u64,
    /// Violations in all.
    pub violations: u64,
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What happened, in numbers.
    pub summary: Summary,
    /// What must not have happened.
    pub violations: Vec<Violation>,
}

/// Checks a history.
pub fn check(entries: &[Entry]) -> Verdict {
    Rules::default().check(entries)
}

impl Rules {
    /// Checks a history by these rules besides the ones that always hold.
    pub fn check(&self, entries: &[Entry]) -> Verdict {
        let index = history_index::HistoryIndex::read(entries);
        let mut violations = Vec::new();
        integrity::check(&index, entries, &mut violations);
        order::check(&index, entries, &mut violations);
        owners::check(&index, entries, self.most_repeats, &mut violations);
        progress::check(&index, entries, &mut violations);
        let mut summary = index.count(entries);
        for violation in &violations {
            summary.violations += 1;
            match violation {
                Violation::Lost { .. } => summary.lost += 1,
                Violation::OutOfOrder { .. } | Violation::Overtaken { .. } => {
                    summary.out_of_order += 1;
                }
                _ => {}
            }
        }
        Verdict {
            summary,
            violations,
        }
    }
}

impl Verdict {
    /// Whether nothing happened that must not.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// Returns the numbers of a clean run.
    ///
    /// # Panics
    /// With the violations, if there are some: for tests.
    #[track_caller]
    pub fn assert_clean(&self) -> Summary {
        assert!(self.is_clean(), "{self}");
        self.summary
    }
}

/// More than these say nothing new.
const MOST_SHOWN: usize = 20;

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} violations, {:?}",
            self.violations.len(),
            self.summary
        )?;
        for violation in self.violations.iter().take(MOST_SHOWN) {
            writeln!(f, "  {violation}")?;
        }
        match self.violations.len().saturating_sub(MOST_SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more"),
        }
    }
}

/// A partition as a group sees it.
type Share<'a> = (&'a str, &'a Partition);
