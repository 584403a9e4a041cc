//! Checks histories, by the same rules for every backend.
//!
//! # Rules
//!
//! Delivery is at least once, so the rules define which repeats are allowed:
//!
//! * A send that timed out may be stored or not, and a retried one may be stored twice. Order is
//!   checked on acknowledged records, and on the first occurrence of each.
//! * A record may be handled again if the owner that settled it crashed, lost the partition, or had a
//!   fault injected before the next owner started. It may not be handled again after a clean handover,
//!   under the same epoch, or after the stored checkpoint has passed it. Records that an owner settled
//!   behind one that it left unsettled (because its handler was stuck or kept failing) may be repeated,
//!   because no checkpoint can pass that record.
//! * A member that was frozen or cut off may continue to handle what it has received, concurrently
//!   with the new owner, until it learns of its loss. It may not store a checkpoint.
//! * A reset repeats records. In a stream in which a group was reset, order is checked only within
//!   each epoch, and repeats are not checked. After a reset that skips, the group need not settle records
//!   that were sent before.
//! * After partitions were added to a stream, a key's order is checked only within each partition.
//! * Records that retention has removed need not be settled.
//! * A recreated stream is another stream, which its groups read from their start, but its partitions' epochs continue.
//!   Records that its predecessor held when it was deleted need not be settled.
//! * Records without a key have no order.
//!
//! A history must be complete: the run has waited until its groups have settled all records.

use std::fmt;

use millstream_core::Partition;

use crate::history::Entry;

mod history_index;
mod integrity;
mod order;
mod owners;
mod progress;
mod recreated;
mod violation;

pub use violation::{RecordLocation, Violation};

/// Additional rules, beyond those that always hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rules {
    /// The maximum number of settled records that a new owner of a partition may repeat.
    pub most_repeats: Option<u64>,
}

/// Counters of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// Records that were sent.
    pub sent: u64,
    /// Receipts that resolved with a position.
    pub acknowledged: u64,
    /// Receipts that failed with a permanent error.
    pub failed: u64,
    /// Receipts with an unknown result: the record may be stored.
    pub unknown: u64,
    /// Attempts that settled a record.
    pub handled: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Acknowledged records that a group never settled, counted for each group.
    pub lost: u64,
    /// Records that were handled before an earlier one of their key.
    pub out_of_order: u64,
    /// Stored records that one group settled again, whether allowed or not.
    pub duplicates: u64,
    /// Records that were found in a dead letter stream.
    pub dead_lettered: u64,
    /// Records that a policy skipped.
    pub skipped: u64,
    /// Ownerships of a partition by a member after the partition's first one.
    pub handovers: u64,
    /// Members that were killed.
    pub crashes: u64,
    /// The number of all violations.
    pub violations: u64,
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The counters.
    pub summary: Summary,
    /// The violations that were found.
    pub violations: Vec<Violation>,
}

/// Checks a history.
pub fn check(entries: &[Entry]) -> Verdict {
    Rules::default().check(entries)
}

impl Rules {
    /// Checks a history by these rules as well as those that always hold.
    pub fn check(&self, entries: &[Entry]) -> Verdict {
        let index = history_index::HistoryIndex::read(entries);
        let mut violations = Vec::new();
        integrity::check(&index, entries, &mut violations);
        order::check(&index, entries, &mut violations);
        owners::check(&index, entries, self.most_repeats, &mut violations);
        progress::check(&index, entries, &mut violations);
        recreated::check(&index, entries, &mut violations);
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
    /// Returns whether there are no violations.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// Returns the counters of a clean run.
    ///
    /// # Panics
    /// With the violations, if there are any: for tests.
    #[track_caller]
    pub fn assert_clean(&self) -> Summary {
        assert!(self.is_clean(), "{self}");
        self.summary
    }
}

/// The maximum number of violations in a message.
const MAX_SHOWN: usize = 20;

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} violations, {:?}",
            self.violations.len(),
            self.summary
        )?;
        for violation in self.violations.iter().take(MAX_SHOWN) {
            writeln!(f, "  {violation}")?;
        }
        match self.violations.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more"),
        }
    }
}

/// A partition as a group sees it.
type Share<'a> = (&'a str, &'a Partition);
