//! Limits the write rate to a shard, as the KPL does.
//!
//! A shard accepts [1 MiB and 1,000 records a second][limits], and more is rejected, which costs
//! a round trip and, if later records of a key wait for it, more. So each shard has two token buckets that
//! refill at that rate, multiplied by the configured share.
//!
//! An entry may be of any size: it is sent when the bucket has no debt any more, and leaves a debt. A
//! shard that has to wait does so until the next tick, and all shards of a producer have the same
//! ticks. Otherwise, with a full backlog, each response and each millisecond would release one record,
//! in a request of its own.
//!
//! Other producers may write to the shard too, and Kinesis may count differently. Each throttled entry lowers
//! the rate a little, and time raises it again, by the curve of [CUBIC]: fast at first and then
//! slower and slower, to stay just below the rate of the last throttling for long, and faster and faster
//! beyond it, to find the rate that others have left.
//!
//! [CUBIC]: https://www.rfc-editor.org/rfc/rfc9438
//! [limits]: https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html

use std::mem;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Rate;

const BYTES: f64 = 1_048_576.0;
const RECORDS: f64 = 1_000.0;

/// The burst that an idle shard may be sent at once, as time at its full rate.
const BURST: Duration = Duration::from_millis(50);

/// A shard at its limit is sent about 10 records a tick, and shards share their requests.
const TICK: Duration = Duration::from_millis(10);

/// The part of the rate that a throttled entry takes away. An entry of more than a twentieth of the bytes of a second
/// takes away more, in proportion. Otherwise a shard that gets few large entries a second would be throttled for many
/// seconds until its rate is found.
const CUT: f64 = 0.02;
const CUT_PER_SECOND: f64 = 20.0 * CUT;
const LARGEST_CUT: f64 = 0.1;

/// The minimum time between two reductions.
const CUT_EVERY: Duration = Duration::from_millis(100);
const LEAST: f64 = 0.01;

/// A new producer does not know how Kinesis counts, and whether there are other producers. It begins as after a
/// throttled entry at this fraction of the limit.
const FIRST: f64 = 0.975;

/// The growth of the rate, in fractions of the limit and by the third power of seconds: 10 s after
/// a throttled entry near the full rate, it is what it was before.
const GROWTH: f64 = 2e-5;

/// The token buckets of one shard. Each is stored as the time when it will be full again.
#[derive(Debug, Clone)]
pub(super) struct RateLimiter {
    share: f64,
    /// When the ticks began.
    epoch: Instant,
    bytes_full: Instant,
    records_full: Instant,
    blocked_until: Instant,
    /// Whether a burst would be throttled as well: an entry was throttled, and none was sent since.
    is_exhausted: bool,
    cut: Cut,
}

/// The last reduction of the rate.
#[derive(Debug, Clone)]
struct Cut {
    /// The fraction of `share` that was too much.
    before: f64,
    /// The part of it that was taken away.
    part: f64,
    at: Instant,
}

impl RateLimiter {
    /// Creates full buckets.
    pub(super) fn new(rate: Rate, epoch: Instant, now: Instant) -> Self {
        Self {
            share: rate.into(),
            epoch,
            bytes_full: now,
            records_full: now,
            blocked_until: now,
            is_exhausted: false,
            cut: Cut {
                before: FIRST,
                part: CUT,
                at: now,
            },
        }
    }

    /// Returns when the next record may be sent.
    pub(super) fn ready_at(&self) -> Instant {
        self.blocked_until
    }

    /// Returns the bytes that the shard accepts in a second, as far as is known.
    pub(super) fn bytes_per_second(&self, now: Instant) -> f64 {
        BYTES * self.share * self.level(now)
    }

    /// Counts an entry that is sent now. `bytes` are its data and its key, which both count.
    pub(super) fn spend(&mut self, bytes: usize, now: Instant) {
        let (bytes, record) = self.costs(bytes, now);
        let least = match mem::take(&mut self.is_exhausted) {
            true => now + BURST,
            false => now,
        };
        self.bytes_full = self.bytes_full.max(least) + bytes;
        self.records_full = self.records_full.max(least) + record;
        let full = self.bytes_full.max(self.records_full);
        let debt = full.saturating_duration_since(now + BURST);
        if !debt.is_zero() {
            self.block_until(now + debt);
        }
    }

    /// Handles an entry that the shard has throttled. It has cost nothing, but there is no room now.
    pub(super) fn throttled(&mut self, bytes: usize, now: Instant) {
        let (byte_cost, record_cost) = self.costs(bytes, now);
        for (full, cost) in [
            (&mut self.bytes_full, byte_cost),
            (&mut self.records_full, record_cost),
        ] {
            *full = full.checked_sub(cost).unwrap_or(now);
        }
        self.is_exhausted = true;
        if self.cut.at + CUT_EVERY <= now {
            let part = CUT_PER_SECOND * bytes as f64 / BYTES;
            self.cut = Cut {
                before: self.level(now),
                part: part.clamp(CUT, LARGEST_CUT),
                at: now,
            };
        }
        self.block_until(now + TICK);
    }

    /// Returns the time that an entry takes from each bucket.
    fn costs(&self, bytes: usize, now: Instant) -> (Duration, Duration) {
        let rate = self.share * self.level(now);
        let cost = |amount: f64, limit: f64| Duration::from_secs_f64(amount / (limit * rate));
        (cost(bytes as f64, BYTES), cost(1.0, RECORDS))
    }

    /// Returns the fraction of `share` that remains after throttling.
    fn level(&self, now: Instant) -> f64 {
        let Cut { before, part, at } = self.cut;
        let passed = now.saturating_duration_since(at).as_secs_f64();
        let plateau = (before * part / GROWTH).cbrt();
        (before + GROWTH * (passed - plateau).powi(3)).clamp(LEAST, 1.0)
    }

    /// Waits until the first tick at `until` or after it.
    fn block_until(&mut self, until: Instant) {
        let ticks = (until - self.epoch).as_nanos().div_ceil(TICK.as_nanos());
        let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
        self.blocked_until = self.blocked_until.max(self.epoch + TICK * ticks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_throttled_entry_takes_away_more() {
        for (bytes, part) in [
            (100, 0.02),
            (51_200, 0.02),
            (104_858, 0.04),
            (209_715, 0.08),
            (10 << 20, 0.1),
        ] {
            let epoch = Instant::now();
            let mut limiter = RateLimiter::new(Rate(1_000), epoch, epoch);
            let now = epoch + Duration::from_secs(1);
            let before = limiter.bytes_per_second(now);
            limiter.throttled(bytes, now);
            let lost = 1.0 - limiter.bytes_per_second(now) / before;
            assert!((lost - part).abs() < 0.001, "{bytes} took away {lost}");
        }
    }
}
