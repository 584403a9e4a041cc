//! How fast a shard is written to.
//!
//! A shard takes [1 MiB and 1,000 records a second][limits], and what is more is refused, which costs
//! a round trip and, with a key that waits for it, more. So each shard has two buckets that run
//! full at that rate, times the share of it that is ours.
//!
//! What goes may be as large as it is: it goes when nothing is owed any more, and leaves a debt. A
//! lane that has to wait does so until the next of the ticks that all lanes of a producer have in
//! common. Otherwise, with a full backlog, each answer and each millisecond would let one record go,
//! in a request of its own.
//!
//! Others may write to the shard too. Each refusal for speed lowers the rate a little, and time
//! raises it again.
//!
//! [limits]: https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Rate;

const BYTES: f64 = 1_048_576.0;
const RECORDS: f64 = 1_000.0;

/// What a lane that was idle may send at once, as time at its full rate.
const BURST: Duration = Duration::from_millis(50);

/// A lane at its limit sends about 10 records a tick, and lanes share their requests.
const TICK: Duration = Duration::from_millis(10);

/// By how much refusals lower the rate, and how often at most. Until others leave it is about right
/// then, so for a while it comes back slowly.
const CUT: f64 = 0.96;
const CUT_EVERY: Duration = Duration::from_millis(100);
const CAUTION: Duration = Duration::from_secs(10);
const REGAIN_CAUTIOUSLY: f64 = 0.004;
const REGAIN: f64 = 0.05;
const LEAST: f64 = 0.01;

/// The buckets of one shard. Each is the time when it will be full again.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    share: f64,
    /// When the ticks began.
    epoch: Instant,
    bytes_full: Instant,
    records_full: Instant,
    rests_until: Instant,
    /// The part of `share` that refusals have left, as of `level_at`.
    level: f64,
    level_at: Instant,
    last_cut: Option<Instant>,
}

impl Pace {
    /// With full buckets.
    pub(super) fn new(rate: Rate, epoch: Instant, now: Instant) -> Self {
        Self {
            share: rate.into(),
            epoch,
            bytes_full: now,
            records_full: now,
            rests_until: now,
            level: 1.0,
            level_at: now,
            last_cut: None,
        }
    }

    /// When the next record may go.
    pub(super) fn opens(&self) -> Instant {
        self.rests_until
    }

    /// Counts a record that goes now. `bytes` are its data and its key, which count both.
    pub(super) fn spend(&mut self, bytes: usize, now: Instant) {
        let rate = self.share * self.level(now);
        let cost = |amount: f64, limit: f64| Duration::from_secs_f64(amount / (limit * rate));
        self.bytes_full = self.bytes_full.max(now) + cost(bytes as f64, BYTES);
        self.records_full = self.records_full.max(now) + cost(1.0, RECORDS);
        let full = self.bytes_full.max(self.records_full);
        let debt = full.saturating_duration_since(now + BURST);
        if !debt.is_zero() {
            self.rest(now + debt);
        }
    }

    /// The shard has refused something as too fast.
    pub(super) fn throttled(&mut self, now: Instant) {
        if self.last_cut.is_none_or(|last| last + CUT_EVERY <= now) {
            self.level = (self.level(now) * CUT).max(LEAST);
            self.last_cut = Some(now);
        }
        self.records_full = self.records_full.max(now + BURST);
        self.rest(now + TICK);
    }

    fn level(&mut self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.level_at).as_secs_f64();
        let is_cautious = self.last_cut.is_some_and(|last| now < last + CAUTION);
        let regain = if is_cautious {
            REGAIN_CAUTIOUSLY
        } else {
            REGAIN
        };
        self.level = (self.level + regain * passed).min(1.0);
        self.level_at = now;
        self.level
    }

    /// Rests until the first tick at `until` or after it.
    fn rest(&mut self, until: Instant) {
        let ticks = (until - self.epoch).as_nanos().div_ceil(TICK.as_nanos());
        let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
        self.rests_until = self.rests_until.max(self.epoch + TICK * ticks);
    }
}
