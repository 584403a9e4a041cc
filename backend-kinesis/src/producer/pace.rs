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
//! Others may write to the shard too, and Kinesis may count otherwise. Each refusal for speed lowers
//! the rate a little, and time raises it again, by the curve of [CUBIC]: fast at first and then
//! slower and slower, to stay just below the rate of the last refusal for long, and faster and faster
//! beyond it, to find out what others have left.
//!
//! [CUBIC]: https://www.rfc-editor.org/rfc/rfc9438
//! [limits]: https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html

use std::mem;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Rate;

const BYTES: f64 = 1_048_576.0;
const RECORDS: f64 = 1_000.0;

/// What a lane that was idle may send at once, as time at its full rate.
const BURST: Duration = Duration::from_millis(50);

/// A lane at its limit sends about 10 records a tick, and lanes share their requests.
const TICK: Duration = Duration::from_millis(10);

/// What is left of the rate after a refusal, and how often at most it is lowered.
const CUT: f64 = 0.98;
const CUT_EVERY: Duration = Duration::from_millis(100);
const LEAST: f64 = 0.01;

/// A new producer does not know yet how Kinesis counts, and who else is there: it begins as after a
/// refusal at this part of the limit.
const FIRST: f64 = 0.975;

/// How fast the rate comes back, in parts of the limit and by the third power of seconds: 10 s after
/// a refusal near the full rate it is what it was before.
const GROWTH: f64 = 2e-5;

/// The buckets of one shard. Each is the time when it will be full again.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    share: f64,
    /// When the ticks began.
    epoch: Instant,
    bytes_full: Instant,
    records_full: Instant,
    rests_until: Instant,
    /// Whether a burst would be refused as well: something was refused, and nothing has gone since.
    is_dry: bool,
    /// The part of `share` that was too much at the last refusal, and when that was.
    cut: (f64, Instant),
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
            is_dry: false,
            cut: (FIRST, now),
        }
    }

    /// When the next record may go.
    pub(super) fn opens(&self) -> Instant {
        self.rests_until
    }

    /// Counts an entry that goes now. `bytes` are its data and its key, which count both.
    pub(super) fn spend(&mut self, bytes: usize, now: Instant) {
        let (bytes, record) = self.costs(bytes, now);
        let least = match mem::take(&mut self.is_dry) {
            true => now + BURST,
            false => now,
        };
        self.bytes_full = self.bytes_full.max(least) + bytes;
        self.records_full = self.records_full.max(least) + record;
        let full = self.bytes_full.max(self.records_full);
        let debt = full.saturating_duration_since(now + BURST);
        if !debt.is_zero() {
            self.rest(now + debt);
        }
    }

    /// The shard has refused an entry as too fast. It has cost nothing, but there is no room now.
    pub(super) fn throttled(&mut self, bytes: usize, now: Instant) {
        let (bytes, record) = self.costs(bytes, now);
        for (full, cost) in [
            (&mut self.bytes_full, bytes),
            (&mut self.records_full, record),
        ] {
            *full = full.checked_sub(cost).unwrap_or(now);
        }
        self.is_dry = true;
        let (_, at) = self.cut;
        if at + CUT_EVERY <= now {
            self.cut = (self.level(now), now);
        }
        self.rest(now + TICK);
    }

    /// The time that an entry takes of each bucket.
    fn costs(&self, bytes: usize, now: Instant) -> (Duration, Duration) {
        let rate = self.share * self.level(now);
        let cost = |amount: f64, limit: f64| Duration::from_secs_f64(amount / (limit * rate));
        (cost(bytes as f64, BYTES), cost(1.0, RECORDS))
    }

    /// The part of `share` that refusals leave.
    fn level(&self, now: Instant) -> f64 {
        let (before, at) = self.cut;
        let passed = now.saturating_duration_since(at).as_secs_f64();
        let plateau = (before * (1.0 - CUT) / GROWTH).cbrt();
        (before + GROWTH * (passed - plateau).powi(3)).clamp(LEAST, 1.0)
    }

    /// Rests until the first tick at `until` or after it.
    fn rest(&mut self, until: Instant) {
        let ticks = (until - self.epoch).as_nanos().div_ceil(TICK.as_nanos());
        let ticks = u32::try_from(ticks).unwrap_or(u32::MAX);
        self.rests_until = self.rests_until.max(self.epoch + TICK * ticks);
    }
}
