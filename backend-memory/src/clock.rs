//! Broker time: whole milliseconds since 1970, measured by tokio's clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Converts tokio's instants to timestamps, so that `tokio::time::pause` applies to the broker.
///
/// The wall clock is read at most once, when the broker is created: a clock that is set back cannot
/// disturb the order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
    start_millis: i64,
}

impl Clock {
    pub(crate) fn new(start_time: Option<SystemTime>) -> Self {
        Self {
            started: Instant::now(),
            start_millis: to_millis(start_time.unwrap_or_else(SystemTime::now)),
        }
    }

    /// Moves the start forward, so that time in a reopened broker never goes back.
    pub(crate) fn not_before(&mut self, millis: i64) {
        self.start_millis = self.start_millis.max(millis);
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    pub(crate) fn millis(&self, now: Instant) -> i64 {
        let elapsed = now.saturating_duration_since(self.started).as_millis();
        self.start_millis
            .saturating_add(i64::try_from(elapsed).unwrap_or(i64::MAX))
    }
}

/// Rounds a time down to whole milliseconds. Times before 1970 are negative.
pub(crate) fn to_millis(time: SystemTime) -> i64 {
    let capped = |millis: u128| i64::try_from(millis).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => capped(after.as_millis()),
        Err(before) => -capped(before.duration().as_nanos().div_ceil(1_000_000)),
    }
}

pub(crate) fn to_time(millis: i64) -> SystemTime {
    let distance = Duration::from_millis(millis.unsigned_abs());
    if millis >= 0 {
        UNIX_EPOCH + distance
    } else {
        UNIX_EPOCH.checked_sub(distance).unwrap_or(UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_milliseconds_are_exact_on_both_sides_of_1970() {
        for millis in [-1_001, -1, 0, 1, 1_700_000_000_123] {
            assert_eq!(to_millis(to_time(millis)), millis);
        }
    }

    #[test]
    fn fractions_are_rounded_down() {
        let before = UNIX_EPOCH - Duration::from_micros(1);
        assert_eq!(to_millis(before), -1);
        assert_eq!(to_millis(UNIX_EPOCH + Duration::from_micros(1_999)), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn follows_the_paused_clock() {
        let clock = Clock::new(Some(to_time(5_000)));
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(clock.millis(Instant::now()), 5_250);
    }
}
