//! Detects partitions without progress, and reports each stall once.

use std::time::Duration;

use tokio::time::Instant;

/// How often a member checks the progress of its partitions. Shorter pauses are not reported, because a
/// busy partition reaches its bounds many times a second.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The reported state of one partition, and since when its watermark has not moved.
#[derive(Debug, Default)]
pub(crate) struct StallDetector {
    /// The first unsettled number at the last check, and when it was first seen.
    watermark: Option<(u64, Instant)>,
    /// The reason of the pause that was reported.
    paused: Option<PauseReason>,
    /// Whether the oldest delivery was reported as stalled.
    stalled: bool,
}

/// Why no more records of a partition are read or handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PauseReason {
    MaxUnsettled,
    BufferBytes,
    /// Too many deliveries wait for their retry.
    Retries,
    /// Too many results of a pipeline wait to be published.
    Results,
}

impl PauseReason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::MaxUnsettled => "max_unsettled_per_partition",
            Self::BufferBytes => "buffer_bytes",
            Self::Retries => "retries",
            Self::Results => "unpublished_results",
        }
    }
}

/// The state of a partition at one check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observation {
    pub(crate) now: Instant,
    /// The first unsettled number, if any was received.
    pub(crate) watermark: Option<u64>,
    pub(crate) paused: Option<PauseReason>,
    /// When the first attempt of that number began, if it did.
    pub(crate) begun: Option<Instant>,
    /// The age from which on a delivery is stalled.
    pub(crate) limit: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StallEvent {
    Paused(PauseReason),
    Resumed(PauseReason),
    Stalled,
    Recovered,
}

impl StallDetector {
    /// Returns the events to report. Must be called at most once per [`CHECK_INTERVAL`].
    pub(crate) fn check(&mut self, seen: &Observation) -> Vec<StallEvent> {
        let mut events = Vec::new();
        let before = self.watermark;
        let moved = before.map(|(number, _)| number) != seen.watermark;
        if moved {
            self.watermark = seen.watermark.map(|number| (number, seen.now));
            if std::mem::take(&mut self.stalled) {
                events.push(StallEvent::Recovered);
            }
        }
        if seen.paused.is_none() {
            events.extend(self.paused.take().map(StallEvent::Resumed));
        }
        let Some((_, since)) = self.watermark else {
            return events;
        };
        let stands = seen.now.duration_since(since) >= CHECK_INTERVAL;
        if let Some(reason) = seen.paused.filter(|_| stands && self.paused.is_none()) {
            self.paused = Some(reason);
            events.push(StallEvent::Paused(reason));
        }
        let age = seen.begun.map(|begun| seen.now.duration_since(begun));
        if !self.stalled && age.is_some_and(|age| age >= seen.limit) {
            self.stalled = true;
            events.push(StallEvent::Stalled);
        }
        events
    }

    /// Returns whether the end of a reported state must still be reported.
    pub(crate) fn is_reported(&self) -> bool {
        self.stalled || self.paused.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    struct Checks {
        detector: StallDetector,
        start: Instant,
    }

    impl Checks {
        fn new() -> Self {
            Self {
                detector: StallDetector::default(),
                start: Instant::now(),
            }
        }

        fn at(
            &mut self,
            second: u64,
            watermark: Option<u64>,
            paused: Option<PauseReason>,
        ) -> Vec<StallEvent> {
            self.detector.check(&Observation {
                now: self.start + Duration::from_secs(second),
                watermark,
                paused,
                begun: watermark.map(|_| self.start),
                limit: LIMIT,
            })
        }
    }

    #[test]
    fn a_pause_is_reported_once_if_nothing_moves() {
        let reason = PauseReason::MaxUnsettled;
        let mut checks = Checks::new();
        assert_eq!(checks.at(0, Some(0), Some(reason)), []);
        assert_eq!(
            checks.at(1, Some(0), Some(reason)),
            [StallEvent::Paused(reason)]
        );
        assert_eq!(checks.at(2, Some(0), Some(reason)), []);
        assert_eq!(checks.at(3, Some(7), Some(reason)), []);
        assert_eq!(checks.at(5, Some(7), Some(reason)), []);
        assert_eq!(checks.at(6, Some(9), None), [StallEvent::Resumed(reason)]);
        assert!(!checks.detector.is_reported());
    }

    #[test]
    fn a_busy_partition_at_its_bound_reports_nothing() {
        let mut checks = Checks::new();
        for second in 0..30 {
            let seen = checks.at(second, Some(second * 1_000), Some(PauseReason::BufferBytes));
            assert_eq!(seen, []);
        }
    }

    #[test]
    fn a_stall_is_reported_once_and_so_is_its_end() {
        let mut checks = Checks::new();
        assert_eq!(checks.at(0, Some(3), None), []);
        assert_eq!(checks.at(59, Some(3), None), []);
        assert_eq!(checks.at(60, Some(3), None), [StallEvent::Stalled]);
        assert_eq!(checks.at(90, Some(3), None), []);
        assert_eq!(checks.at(91, None, None), [StallEvent::Recovered]);
        assert!(!checks.detector.is_reported());
    }
}
