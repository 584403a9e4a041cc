use std::error::Error as StdError;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::{Error, ErrorKind, Result};

/// The failure policy: a record whose handler failed is retried in place, and when its attempts are
/// used up, it is dead-lettered, skipped, or the consumer stops.
///
/// While a record waits for its next attempt, the later records of its key wait too; other keys
/// continue. A classified [`Failure`](crate::Failure) may override the policy's delay or attempts.
///
/// ```
/// use millstream_core::{DeadLetter, Retry};
///
/// let policy = Retry::exponential().attempts(5).then(DeadLetter::stream("car-raw-events.dead"));
/// ```
///
/// The default is [`Retry::exponential`]: 20 attempts in 6 to 12 minutes, then the consumer stops with
/// the error. No record is skipped silently.
#[derive(Clone)]
pub struct Retry {
    attempts: u32,
    backoff: Backoff,
    exhausted: OnExhausted,
    retry_if: Option<Arc<RetryIf>>,
}

type RetryIf = dyn Fn(&(dyn StdError + Send + Sync + 'static)) -> bool + Send + Sync;

#[derive(Debug, Clone, Copy)]
enum Backoff {
    Exponential { min: Duration, max: Duration },
    Fixed(Duration),
}

/// What happens to a record when its attempts are used up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnExhausted {
    /// The consumer drains, checkpoints, leaves and returns the error. The record is delivered again to
    /// the next member.
    Stop,
    /// The record is skipped, counted and logged.
    Skip,
    /// The record is sent to another stream, and is settled when that stream has stored it.
    DeadLetter(DeadLetter),
}

/// Destination for records that have used up their attempts.
///
/// A dead letter has the key, payload and headers of the record. Its timestamp is the time of the
/// letter, so that retention counts from there. These headers are added, in place of those of an
/// earlier letter if the record was one:
///
/// | header | value |
/// |---|---|
/// | `millstream-dead-reason` | the reason with its causes, cut at 1,000 characters |
/// | `millstream-dead-attempts` | attempts made |
/// | `millstream-dead-group` | the group |
/// | `millstream-dead-stream`, `-partition`, `-position` | where the record is stored |
/// | `millstream-dead-timestamp` | the record's timestamp, in milliseconds since 1970 |
/// | `millstream-dead-changed` | what was changed or left out of the record, if anything |
///
/// Every record that can be read becomes a letter. A header without a name, or with control
/// characters in its name, is called `millstream-dead-named-` and the percent-encoded name. If the
/// stream does not accept the letter, it is changed step by step: the key is replaced by a hash of it
/// and kept in the header `millstream-dead-key`; the reason is cut to 100 characters, then left out
/// with attempts and group; the record's headers are left out; finally the payload, which is then empty,
/// and the key. Such a letter is logged (`millstream.consumer.dead_letter_changed`) and counted.
///
/// If the letter cannot be sent now, sending is retried for as long as the partition is owned: the key
/// waits, and nothing is lost. If it can never be sent (its stream was deleted, or access is denied),
/// the consumer stops with that error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The stream's name. It must exist when the member joins, must take records with headers (Kinesis:
    /// not with `producer.headers = "refuse"` without aggregation), and must not be one that the group
    /// reads.
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
    /// Returns a policy of 20 attempts that waits 100 ms after the first failure and twice the delay
    /// after each further one, up to 30 s. A random time of up to the delay is added to each.
    pub const fn exponential() -> Self {
        let backoff = Backoff::Exponential {
            min: Duration::from_millis(100),
            max: Duration::from_secs(30),
        };
        Self {
            attempts: 20,
            backoff,
            exhausted: OnExhausted::Stop,
            retry_if: None,
        }
    }

    /// Returns a policy of 5 attempts that waits `delay` after each failure. 0 to 1 day.
    pub const fn fixed(delay: Duration) -> Self {
        Self {
            attempts: 5,
            backoff: Backoff::Fixed(delay),
            exhausted: OnExhausted::Stop,
            retry_if: None,
        }
    }

    /// Returns a policy of a single attempt.
    pub const fn none() -> Self {
        Self::fixed(Duration::ZERO).attempts(1)
    }

    /// Sets the number of attempts in all, at least 1. Default 20, or 5 for [`fixed`](Self::fixed).
    #[must_use]
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sets the first and the longest delay, before the random time is added. The first must be over 0
    /// and at most the longest, the longest at most 1 day. After [`fixed`](Self::fixed), the delays
    /// become exponential.
    #[must_use]
    pub const fn delays(mut self, min: Duration, max: Duration) -> Self {
        self.backoff = Backoff::Exponential { min, max };
        self
    }

    /// Sets what happens when the attempts are used up. Default [`OnExhausted::Stop`].
    #[must_use]
    pub fn then(mut self, exhausted: impl Into<OnExhausted>) -> Self {
        self.exhausted = exhausted.into();
        self
    }

    /// Sets which errors are retried. If `predicate` returns false for the reason of a failure, the
    /// failure is treated as [permanent](crate::Failure::permanent). It is not called for failures that
    /// are already permanent or [unavailable](crate::Failure::unavailable). If it panics, that counts as
    /// true.
    ///
    /// ```
    /// use millstream_core::Retry;
    ///
    /// let policy = Retry::exponential().retry_if(|error| !error.is::<std::num::ParseIntError>());
    /// ```
    #[must_use]
    pub fn retry_if(
        mut self,
        predicate: impl Fn(&(dyn StdError + Send + Sync + 'static)) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.retry_if = Some(Arc::new(predicate));
        self
    }

    pub(crate) fn exhausted(&self) -> &OnExhausted {
        &self.exhausted
    }

    /// Returns the number of attempts in all.
    pub(crate) fn limit(&self) -> u32 {
        self.attempts
    }

    pub(crate) fn allows(&self, reason: &(dyn StdError + Send + Sync + 'static)) -> bool {
        self.retry_if
            .as_ref()
            .is_none_or(|predicate| predicate(reason))
    }

    /// Returns the delay after the failure of `attempt`, from 1. Jitter is drawn from `seed`, so that a run
    /// under a seed replays exactly.
    pub(crate) fn delay(&self, attempt: u32, seed: u64) -> Duration {
        match self.backoff {
            Backoff::Exponential { min, max } => exponential(min, max, attempt, seed),
            Backoff::Fixed(delay) => delay,
        }
    }

    /// Returns the delay after the `count`th failure in a row that is not counted as an attempt.
    pub(crate) fn outage_delay(count: u32, seed: u64) -> Duration {
        exponential(
            Duration::from_millis(100),
            Duration::from_secs(30),
            count,
            seed,
        )
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

/// Returns `min`, doubled with each attempt up to `max`, plus a random time of up to the same.
fn exponential(min: Duration, max: Duration, attempt: u32, seed: u64) -> Duration {
    let factor = 1_u32
        .checked_shl(attempt.saturating_sub(1))
        .unwrap_or(u32::MAX);
    let delay = min.saturating_mul(factor).min(max);
    let mut hasher = FixedState::default().build_hasher();
    hasher.write_u64(seed);
    hasher.write_u32(attempt);
    let jitter = (hasher.finish() >> 32) as f64 / (1_u64 << 32) as f64;
    delay + delay.mul_f64(jitter)
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("attempts", &self.attempts)
            .field("backoff", &self.backoff)
            .field("exhausted", &self.exhausted)
            .field("retry_if", &self.retry_if.is_some())
            .finish()
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::exponential()
    }
}
