use std::time::Duration;

use backon::{BackoffBuilder, ConstantBuilder, ExponentialBuilder};

use crate::{Error, ErrorKind, Result};

/// What happens to a record whose handler failed: it is tried again in place, and when the attempts
/// run out, it is dead-lettered, skipped, or the consumer stops.
///
/// While a record waits for its next attempt, the later records of its key wait too; other keys go
/// on.
///
/// ```
/// use millstream_core::{DeadLetter, Retry};
///
/// let policy = Retry::exponential().attempts(5).then(DeadLetter::stream("car-raw-events.dead"));
/// ```
///
/// The default is [`Retry::exponential`] with 5 attempts, and then stop with the error: nothing
/// passes by in silence.
#[derive(Debug, Clone)]
pub struct Retry {
    attempts: u32,
    backoff: Backoff,
    exhausted: OnExhausted,
}

#[derive(Debug, Clone, Copy)]
enum Backoff {
    Exponential { min: Duration, max: Duration },
    Fixed(Duration),
}

/// What happens to a record when its attempts have run out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnExhausted {
    /// The consumer drains, checkpoints, leaves and returns the error; the record comes again to
    /// the next member.
    Stop,
    /// The record is passed over, counted and logged.
    Skip,
    /// The record is sent to another stream, and is settled when that stream has it.
    DeadLetter(DeadLetter),
}

/// Where records go that cannot be handled.
///
/// The dead letter has the key, payload, headers and timestamp of the record, and these headers
/// besides: `millstream-dead-reason` (with its causes, cut at 1,000 characters),
/// `millstream-dead-attempts`, `millstream-dead-group`, `millstream-dead-stream`,
/// `millstream-dead-partition`, `millstream-dead-position`. If it cannot be sent, sending it is
/// tried again for as long as the partition is owned: the key waits, and nothing is lost. If it can
/// never be sent (its stream refuses it or is gone), the consumer stops with that error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The stream's name. It must exist when the member joins.
    pub stream: String,
}

impl DeadLetter {
    /// Sends dead letters to `stream`.
    pub fn stream(stream: impl Into<String>) -> Self {
        Self {
            stream: stream.into(),
        }
    }
}

impl From<DeadLetter> for OnExhausted {
    fn from(dead_letter: DeadLetter) -> Self {
        Self::DeadLetter(dead_letter)
    }
}

impl Retry {
    /// Waits 100 ms after the first failure and twice as long after each further one, up to 30 s,
    /// each prolonged by up to itself at random.
    pub const fn exponential() -> Self {
        let backoff = Backoff::Exponential {
            min: Duration::from_millis(100),
            max: Duration::from_secs(30),
        };
        Self {
            attempts: 5,
            backoff,
            exhausted: OnExhausted::Stop,
        }
    }

    /// Waits `delay` after each failure. 0 to 1 day.
    pub const fn fixed(delay: Duration) -> Self {
        Self {
            attempts: 5,
            backoff: Backoff::Fixed(delay),
            exhausted: OnExhausted::Stop,
        }
    }

    /// Tries once.
    pub const fn none() -> Self {
        Self::fixed(Duration::ZERO).attempts(1)
    }

    /// Sets how often a record is tried in all, at least 1. Default 5.
    #[must_use]
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sets the first and the longest delay: over 0, the first not over the longest, the longest at
    /// most 1 day. For [`fixed`](Self::fixed) it makes the delays exponential.
    #[must_use]
    pub const fn delays(mut self, min: Duration, max: Duration) -> Self {
        self.backoff = Backoff::Exponential { min, max };
        self
    }

    /// Sets what happens when the attempts have run out. Default [`OnExhausted::Stop`].
    #[must_use]
    pub fn then(mut self, exhausted: impl Into<OnExhausted>) -> Self {
        self.exhausted = exhausted.into();
        self
    }

    pub(crate) fn exhausted(&self) -> &OnExhausted {
        &self.exhausted
    }

    /// The delays between the attempts. Jitter is drawn from `seed`, so that a run under a seed
    /// replays exactly.
    pub(crate) fn delays_seeded(&self, seed: u64) -> impl Iterator<Item = Duration> + Send + use<> {
        let times = self.attempts as usize - 1;
        let delays: Box<dyn Iterator<Item = Duration> + Send> = match self.backoff {
            Backoff::Exponential { min, max } => Box::new(
                ExponentialBuilder::new()
                    .with_min_delay(min)
                    .with_max_delay(max)
                    .with_max_times(times)
                    .with_jitter()
                    .with_jitter_seed(seed)
                    .build(),
            ),
            Backoff::Fixed(delay) => Box::new(
                ConstantBuilder::new()
                    .with_delay(delay)
                    .with_max_times(times)
                    .build(),
            ),
        };
        delays
    }

    pub(crate) fn validate(&self) -> Result<()> {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let refuse = |message: String| Err(Error::new(ErrorKind::Invalid, "join", message));
        if self.attempts == 0 {
            return refuse("retry attempts is 0, use at least 1".into());
        }
        let longest = match self.backoff {
            Backoff::Exponential { min, max } if min.is_zero() || min > max => {
                let message = "retry delays need a first delay over zero that is not longer than \
                               the longest one";
                return refuse(message.into());
            }
            Backoff::Exponential { max, .. } => max,
            Backoff::Fixed(delay) => delay,
        };
        if longest > DAY {
            return refuse(format!(
                "the longest retry delay is {longest:?}, use at most 1 day"
            ));
        }
        Ok(())
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::exponential()
    }
}
