//! The interval between two requests to a shard.
//!
//! A shard accepts [5 requests a second and returns 2 MiB a second][limits], for all pollers together.
//! So a reader waits 200 ms between its requests and longer after a large response. When it is throttled, others read
//! too: it slows down until it is not, and keeps that pace for two minutes, before it slowly looks whether there is more
//! room again.
//!
//! No two requests have exactly the same interval between them. A reader with five requests at a fixed interval per
//! second would always be the one that is accepted, and the other readers of its shard would be throttled until it
//! stopped.
//!
//! [limits]: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html

use std::time::Duration;

use tokio::time::Instant;

/// The minimum time between two requests.
const LEAST: Duration = Duration::from_millis(200);

/// The maximum, regardless of the number of readers: a second for each of five others.
const MOST: Duration = Duration::from_secs(2);

/// The bytes that a shard returns per second.
const BYTES_A_SECOND: f64 = 2_097_152.0;

/// The maximum delay of a reader while the service is unavailable.
const LONGEST: Duration = Duration::from_secs(10);

/// How long a reader keeps its pace after it was throttled.
const MEMORY: Duration = Duration::from_secs(120);

/// The maximum part by which an interval is longer than it must be.
const JITTER: f64 = 0.1;

/// How long throttling lasts before it is reported.
const REPORTED: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Pace {
    /// The time between two requests, adapted to the presumed number of readers.
    gap: Duration,
    /// The number of consecutive failed requests.
    failures: u32,
    throttling: Option<Throttling>,
}

/// Throttled requests with less than [`MEMORY`] between them.
#[derive(Debug)]
struct Throttling {
    since: Instant,
    last: Instant,
    is_reported: bool,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            gap: LEAST,
            failures: 0,
            throttling: None,
        }
    }

    /// Returns how long to wait, counted from the last request, after a response of this size. `idle` is for a
    /// shard that has no more records.
    pub(super) fn after(&mut self, bytes: usize, idle: Option<Duration>, now: Instant) -> Duration {
        self.succeeded();
        self.forget(now);
        if self.throttling.is_none() {
            // Returns from the slowest to the full pace within 100 seconds. A reader that hurries is throttled several
            // times before it notices that the others are still there.
            self.gap = self.gap.mul_f64(0.98).max(LEAST);
        }
        let paid = Duration::from_secs_f64(bytes as f64 / BYTES_A_SECOND);
        let gap = self.gap.mul_f64(1.0 + JITTER * fastrand::f64());
        gap.max(paid).max(idle.unwrap_or_default())
    }

    /// Records a successful request.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Returns how long to wait after a throttled request.
    pub(super) fn throttled(&mut self, now: Instant) -> Duration {
        self.failures += 1;
        self.forget(now);
        let throttling = self.throttling.get_or_insert(Throttling {
            since: now,
            last: now,
            is_reported: false,
        });
        throttling.last = now;
        self.gap = self.gap.mul_f64(1.5).min(MOST);
        // Readers that were throttled together must not retry together.
        self.gap.mul_f64(0.5 + fastrand::f64())
    }

    fn forget(&mut self, now: Instant) {
        self.throttling
            .take_if(|throttling| now - throttling.last >= MEMORY);
    }

    /// Returns how long the reader has been throttled, if that is to be reported: once, after a minute.
    pub(super) fn reports_throttling(&mut self, now: Instant) -> Option<Duration> {
        let throttling = self.throttling.as_mut()?;
        let lasts = now - throttling.since;
        let is_due = lasts >= REPORTED && !throttling.is_reported;
        throttling.is_reported |= is_due;
        is_due.then_some(lasts)
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
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn asks_five_times_a_second_at_most() {
        let now = Instant::now();
        let busy = Pace::new().after(0, None, now);
        assert!(busy >= 200 * MS && busy <= 220 * MS, "{busy:?}");
        assert_eq!(Pace::new().after(1, Some(250 * MS), now), 250 * MS);
    }

    #[test]
    fn a_large_answer_is_paid_for() {
        assert_eq!(
            Pace::new().after(10 << 20, None, Instant::now()),
            5_000 * MS
        );
    }

    #[test]
    fn others_who_read_are_given_room_and_the_pace_comes_back() {
        let mut pace = Pace::new();
        let now = Instant::now();
        let waits: Vec<_> = (0..8).map(|_| pace.throttled(now)).collect();
        assert!(
            waits
                .iter()
                .all(|wait| *wait >= 100 * MS && *wait <= 3_000 * MS)
        );
        let mut at = now;
        while at < now + MEMORY {
            let kept = pace.after(0, None, at);
            assert!(kept >= MOST, "{kept:?} after {:?}", at - now);
            at += kept;
        }
        let mut wait = MOST;
        while wait > 220 * MS {
            wait = pace.after(0, None, at);
            at += wait;
        }
        assert!(at <= now + MEMORY + 100 * SECOND, "{:?}", at - now);
    }

    #[test]
    fn throttling_is_reported_once_after_a_minute() {
        let mut pace = Pace::new();
        let begun = Instant::now();
        let mut report = |after: u32| {
            let now = begun + after * SECOND;
            pace.throttled(now);
            pace.after(0, None, now);
            pace.reports_throttling(now)
        };
        assert_eq!([0, 30, 59].map(&mut report), [None; 3]);
        assert_eq!([61, 90].map(&mut report), [Some(61 * SECOND), None]);
        assert_eq!(report(240), None, "it was over");
        assert_eq!(report(299), None);
        assert_eq!(report(300), Some(60 * SECOND));
    }

    /// Three readers of a shard that allows five requests a second, in simulated time, for ten minutes. Returns how
    /// many requests they made and how many were throttled.
    fn contend(seed: u64) -> (u32, u32) {
        fastrand::seed(seed);
        let begun = Instant::now();
        let mut admitted = std::collections::VecDeque::new();
        let mut readers: Vec<_> = (0..3)
            .map(|index| (begun + index * 70 * MS, Pace::new()))
            .collect();
        let (mut requests, mut throttled) = (0, 0);
        while let Some((at, pace)) = readers.iter_mut().min_by_key(|(at, _)| *at) {
            let now = *at;
            if now > begun + 600 * SECOND {
                break;
            }
            while admitted.front().is_some_and(|at| *at + SECOND <= now) {
                admitted.pop_front();
            }
            requests += 1;
            let wait = if admitted.len() < 5 {
                admitted.push_back(now);
                pace.after(0, None, now)
            } else {
                throttled += 1;
                pace.throttled(now)
            };
            *at = now + wait;
        }
        (requests, throttled)
    }

    #[test]
    fn readers_with_a_backlog_are_rarely_throttled() {
        for seed in 0..100 {
            let (requests, throttled) = contend(seed);
            assert!(
                throttled * 50 < requests,
                "{throttled} of {requests} with seed {seed}"
            );
            assert!(
                requests > 600 * 5 / 2,
                "{requests} is half of the quota, with seed {seed}"
            );
        }
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
        pace.after(0, None, Instant::now());
        assert!(pace.failed() <= 200 * MS);
    }
}
