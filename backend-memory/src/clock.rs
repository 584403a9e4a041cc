//! Broker time: whole milliseconds since 1970, measured by tokio's clock.

use std::time::{SystemTime, UNIX_EPOCH};

use millstream_core::driver::{from_millis, to_millis};
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

/// Returns a stored timestamp. One that the platform cannot represent becomes 1970.
pub(crate) fn to_time(millis: i64) -> SystemTime {
    from_millis(millis).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn follows_the_paused_clock() {
        let clock = Clock::new(Some(to_time(5_000)));
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!(clock.millis(Instant::now()), 5_250);
    }
}
