//! The interval between two requests to a shard.
//!
//! A shard accepts [5 requests a second and returns 2 MiB a second][limits], for all pollers together.
//! So a reader waits 200 ms between its requests and longer after a large response, and slows down while
//! throttling shows that others read too.
//!
//! [limits]: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html

use std::time::Duration;

/// The minimum time between two requests.
const LEAST: Duration = Duration::from_millis(200);

/// The maximum, regardless of the number of readers: a second for each of five others.
const MOST: Duration = Duration::from_secs(2);

/// The bytes that a shard returns per second.
const BYTES_A_SECOND: f64 = 2_097_152.0;

/// The maximum delay of a reader while the service is unavailable.
const LONGEST: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Pace {
    /// The time between two requests, adapted to the presumed number of readers.
    gap: Duration,
    /// The number of consecutive failed requests.
    failures: u32,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            gap: LEAST,
            failures: 0,
        }
    }

    /// Returns how long to wait, counted from the last request, after a response of this size. `idle` is for a
    /// shard that has no more records.
    pub(super) fn after(&mut self, bytes: usize, idle: Option<Duration>) -> Duration {
        self.succeeded();
        // Returns to the full pace in about 20 requests; the decrease is fast only for large gaps.
        self.gap = self.gap.mul_f64(0.9).max(LEAST);
        let paid = Duration::from_secs_f64(bytes as f64 / BYTES_A_SECOND);
        self.gap.max(paid).max(idle.unwrap_or_default())
    }

    /// Records a successful request.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Returns how long to wait after a throttled request.
    pub(super) fn throttled(&mut self) -> Duration {
        self.failures += 1;
        self.gap = self.gap.mul_f64(1.5).min(MOST);
        // Readers that were throttled together must not retry together.
        self.gap.mul_f64(0.5 + fastrand::f64())
    }

    /// Returns how long to wait after a failed request.
    pub(super) fn failed(&mut self) -> Duration {
        let doubled = LEAST * 2_u32.saturating_pow(self.failures.min(10));
        self.failures += 1;
        doubled.min(LONGEST).mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn asks_five_times_a_second_at_most() {
        assert_eq!(Pace::new().after(0, None), 200 * MS);
        assert_eq!(Pace::new().after(1, Some(250 * MS)), 250 * MS);
    }

    #[test]
    fn a_large_answer_is_paid_for() {
        assert_eq!(Pace::new().after(10 << 20, None), 5_000 * MS);
    }

    #[test]
    fn others_who_read_are_given_room_and_the_pace_comes_back() {
        let mut pace = Pace::new();
        let waits: Vec<_> = (0..8).map(|_| pace.throttled()).collect();
        assert!(
            waits
                .iter()
                .all(|wait| *wait >= 100 * MS && *wait <= 3_000 * MS)
        );
        assert!(pace.after(0, None) > 1_000 * MS);
        let back = (0..30).map(|_| pace.after(0, None)).last();
        assert_eq!(back, Some(200 * MS));
    }

    #[test]
    fn what_is_down_is_asked_ever_less_often() {
        let mut pace = Pace::new();
        for most in [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
            let wait = pace.failed();
            assert!(
                wait >= most * MS / 2 && wait <= most * MS,
                "{wait:?} {most}"
            );
        }
        pace.after(0, None);
        assert!(pace.failed() <= 200 * MS);
    }
}
