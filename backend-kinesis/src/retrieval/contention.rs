//! Notices that another group uses the same registered consumer.
//!
//! Kinesis has one subscription for a consumer and a shard. A call within 5 seconds of a successful one is rejected, and a
//! later one replaces the subscription. So two groups that share a consumer replace each other's subscriptions every few
//! seconds, and are rejected several times in between.
//!
//! A single replacement and the rejections around it are normal while a shard moves between members. Subscriptions that
//! break off are normal too, as are the rejections that follow: those do not count as replaced.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How long an incident counts.
const WITHIN: Duration = Duration::from_secs(60);

/// The number of incidents that are reported. Two groups cause more than 20 within a minute. A shard that moves causes
/// two replacements and eight rejections at most: of the previous owner, before it learns of its loss, and of the next.
const REPORTED: usize = 15;

/// The number of replacements that are reported.
const REPLACEMENTS: usize = 2;

/// What another subscription does to that of the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Incident {
    /// It was rejected, because the other one is active.
    Rejected,
    /// It was active, and ended early.
    Replaced,
}

/// The recent incidents of one reader.
#[derive(Debug, Default)]
pub(super) struct Contention(VecDeque<(Instant, Incident)>);

impl Contention {
    /// Records an incident. Returns the number of incidents within a minute, if only another group explains them.
    pub(super) fn note(&mut self, incident: Incident, now: Instant) -> Option<usize> {
        self.0.push_back((now, incident));
        while let Some((at, _)) = self.0.front()
            && now - *at >= WITHIN
        {
            self.0.pop_front();
        }
        let replaced = |(_, incident): &&(Instant, Incident)| *incident == Incident::Replaced;
        let replacements = self.0.iter().filter(replaced).count();
        let is_contended = self.0.len() >= REPORTED && replacements >= REPLACEMENTS;
        is_contended.then_some(self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::Incident::{Rejected, Replaced};
    use super::*;

    /// Returns the index of the first incident that is reported. The incidents are this far apart.
    fn reported(gap: Duration, incidents: &[Incident]) -> Option<usize> {
        let begun = Instant::now();
        let mut contention = Contention::default();
        let mut notes = (0..).zip(incidents).map(|(index, incident)| {
            let now = begun + gap * index;
            contention.note(*incident, now).is_some()
        });
        notes.position(|is_reported| is_reported)
    }

    #[test]
    fn groups_that_replace_each_other_are_reported_within_a_minute() {
        let second = Duration::from_secs(1);
        let fight = [Replaced, Rejected, Rejected, Rejected, Rejected].repeat(10);
        let reported = reported(2 * second, &fight);
        assert!(
            reported.is_some_and(|index| index < 30),
            "it is reported at {reported:?}"
        );
    }

    #[test]
    fn normal_operation_is_not_reported() {
        let second = Duration::from_secs(1);
        let moves = [Replaced, Rejected, Rejected, Rejected, Rejected].repeat(2);
        assert_eq!(reported(second, &moves), None, "a shard that moves");
        assert_eq!(
            reported(second, &[Rejected; 600]),
            None,
            "subscriptions that break off"
        );
        assert_eq!(
            reported(5 * second, &[Replaced; 600]),
            None,
            "subscriptions that end early"
        );
    }
}
