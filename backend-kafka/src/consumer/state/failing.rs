//! Decides when to report repeated failures of a partition.

use std::time::{Duration, Instant};

/// How long failures may last before they are reported. Most are over within this time.
const UNREPORTED: Duration = Duration::from_secs(10);

/// Failures of one kind, since the last success.
#[derive(Debug)]
pub(crate) struct Failing {
    since: Instant,
    is_reported: bool,
}

impl Failing {
    pub(crate) fn since(now: Instant) -> Self {
        Self {
            since: now,
            is_reported: false,
        }
    }

    /// Returns whether another failure must be reported: once, when failures last.
    pub(crate) fn is_to_be_reported(&mut self, now: Instant) -> bool {
        let is_due = !self.is_reported && now >= self.since + UNREPORTED;
        self.is_reported |= is_due;
        is_due
    }

    /// Returns whether failures were reported, so that their end must be reported too.
    pub(crate) fn is_reported(&self) -> bool {
        self.is_reported
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_that_last_are_reported_once() {
        let begun = Instant::now();
        let mut failing = Failing::since(begun);
        for (after, expected) in [(0, false), (9_999, false), (10_000, true), (60_000, false)] {
            let now = begun + Duration::from_millis(after);
            assert_eq!(failing.is_to_be_reported(now), expected, "{after} ms");
        }
        assert!(failing.is_reported());
        assert!(!Failing::since(begun).is_reported());
    }
}
