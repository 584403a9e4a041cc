//! The failures that no receipt reported because the receipt was dropped unread.

use crate::Error;

/// How many errors are kept, of however many failures.
const KEPT: usize = 32;

/// Failures that no receipt reported, numbered from 0 in the order in which they were recorded.
///
/// Each clone of a producer remembers up to which failure its last flush has reported, so a flush
/// of one clone takes nothing from another. Rejected: one slot that the first flush empties (the
/// other clones then report success for a record that is lost), and a slot for each clone (an
/// allocation and a lock for each `clone`).
///
/// The number of failures is exact. Only a few of the errors themselves are kept: a broker that is down
/// fails thousands of records.
#[derive(Debug, Default)]
pub(super) struct UnobservedFailures {
    total: u64,
    /// The number of failures that a flush or close of any clone has reported.
    reported: u64,
    /// Errors by the number of the failure, oldest first. The newest one is always there.
    errors: Vec<(u64, Error)>,
}

/// Failures to report by one call.
#[derive(Debug)]
pub(super) struct FailureReport {
    pub(super) first: Error,
    pub(super) count: u64,
    /// The number of failures that no call has reported before.
    pub(super) unreported: u64,
}

impl UnobservedFailures {
    /// Adds `count` failures. Returns whether they are the first ones since the last report.
    pub(super) fn record(&mut self, error: Error, count: u64) -> bool {
        let is_first = self.total == self.reported;
        if self.errors.len() == KEPT {
            let mut keep = false;
            self.errors.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.errors.push((self.total, error));
        self.total += count;
        is_first
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Returns where a report begins for a clone that has reported the first `seen` failures.
    pub(super) fn start(&self, seen: u64) -> u64 {
        seen.min(self.reported)
    }

    /// Returns the failures from number `from` on, and marks all as reported.
    pub(super) fn report_since(&mut self, from: u64) -> Option<FailureReport> {
        let count = self.total.saturating_sub(from);
        let unreported = self.total - self.reported;
        self.reported = self.total;
        if count == 0 {
            return None;
        }
        let first = self.errors.iter().find(|(number, _)| *number >= from);
        let (_, first) = first.or(self.errors.last())?;
        Some(FailureReport {
            first: first.clone(),
            count,
            unreported,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind::Denied;

    fn error(number: u64) -> Error {
        Error::new(Denied, "send", number.to_string())
    }

    #[test]
    fn each_reader_gets_what_it_has_not_seen() {
        let mut failures = UnobservedFailures::default();
        assert!(failures.report_since(0).is_none());
        assert!(failures.record(error(0), 1));
        assert!(!failures.record(error(1), 2));
        let report = failures.report_since(0).unwrap();
        assert_eq!((report.first.message(), report.count), ("0", 3));
        assert_eq!(report.unreported, 3);
        let again = failures.report_since(1).unwrap();
        assert_eq!((again.first.message(), again.count), ("1", 2));
        assert_eq!(again.unreported, 0);
        assert!(failures.report_since(3).is_none());
        assert!(failures.record(error(3), 1));
        assert_eq!(failures.start(0), 0);
        assert_eq!(failures.start(4), 3, "nobody has reported number 3");
    }

    #[test]
    fn counts_stay_exact_when_errors_are_left_out() {
        let mut failures = UnobservedFailures::default();
        for number in 0..1_000 {
            failures.record(error(number), 1);
            assert!(failures.errors.len() <= KEPT);
        }
        for from in 0..1_000 {
            let report = failures.report_since(from).unwrap();
            assert_eq!(report.count, 1_000 - from);
            let first: u64 = report.first.message().parse().unwrap();
            assert!(first >= from, "{first} was seen before {from}");
        }
        assert!(failures.report_since(1_000).is_none());
    }
}
