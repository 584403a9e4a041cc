//! Decides whether a topic is gone.
//!
//! A broker with outdated metadata does not know an existing topic, and librdkafka asks any broker, maybe the same
//! one again and again. So a topic is only considered gone when nothing else has been reported for a while.
//!
//! Rejected: believing two brokers that agree. It takes a client for each, and a cluster may have one broker.

use std::time::{Duration, Instant};

/// How long a topic must be reported missing.
const CERTAIN_AFTER: Duration = Duration::from_secs(30);

/// The maximum gap between two reports. Reports that are further apart say nothing about the time in between.
const LONGEST_GAP: Duration = Duration::from_secs(20);

/// The reports that a topic does not exist, since it was last seen.
#[derive(Debug, Default)]
pub(crate) struct Absence(Option<Reports>);

#[derive(Debug)]
struct Reports {
    first: Instant,
    last: Instant,
}

impl Absence {
    /// Records that a broker does not know the topic. Returns whether the topic is gone.
    pub(crate) fn on_unknown(&mut self, now: Instant) -> bool {
        let first = match &self.0 {
            Some(reports) if now <= reports.last + LONGEST_GAP => reports.first,
            _ => now,
        };
        self.0 = Some(Reports { first, last: now });
        self.is_certain()
    }

    /// Records that the topic is there.
    pub(crate) fn on_known(&mut self) {
        self.0 = None;
    }

    /// Returns whether the topic is gone.
    pub(crate) fn is_certain(&self) -> bool {
        let reports = self.0.as_ref();
        reports.is_some_and(|reports| reports.last >= reports.first + CERTAIN_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records reports at these seconds, and returns the result of each.
    fn reports(seconds: &[u64]) -> Vec<bool> {
        let begun = Instant::now();
        let mut absence = Absence::default();
        let at = |second: &u64| begun + Duration::from_secs(*second);
        let reports = seconds.iter().map(|second| absence.on_unknown(at(second)));
        reports.collect()
    }

    #[test]
    fn a_topic_that_is_missing_for_long_is_gone() {
        assert_eq!(reports(&[0, 8, 16, 29]), [false; 4]);
        assert_eq!(reports(&[0, 15, 30]), [false, false, true]);
    }

    #[test]
    fn reports_that_are_far_apart_are_no_series() {
        assert_eq!(reports(&[0, 3_600, 3_610]), [false; 3]);
    }

    #[test]
    fn a_topic_that_was_seen_is_missing_from_the_next_report_on() {
        let begun = Instant::now();
        let mut absence = Absence::default();
        absence.on_unknown(begun);
        absence.on_known();
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(!absence.on_unknown(at(15)));
        assert!(!absence.on_unknown(at(30)));
        assert!(absence.on_unknown(at(45)));
    }
}
