use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::telemetry::Causes;
use crate::{Error, ErrorKind};

type Reason = Box<dyn StdError + Send + Sync>;

/// Why a handler did not settle its delivery, and what to do about it.
///
/// Any error becomes a `Failure` by `?`: `std::io::Error`, `anyhow::Error`, a boxed error, a
/// `String`. Such a plain error says nothing about its cause, so the delivery is retried as often as
/// the group's [`Retry`](crate::Retry) allows. The constructors say more:
///
/// | | attempts | next attempt |
/// |---|---|---|
/// | plain error, panic, timeout | counted | after the policy's delay |
/// | [`permanent`](Self::permanent) | none left | none: the policy's final action at once |
/// | [`retry_after`](Self::retry_after) | counted | after the given time |
/// | [`unavailable`](Self::unavailable) | not counted | with growing delays of up to 60 s, without a limit |
///
/// A handler returns `Result<(), Failure>`, or any error that converts into it. The class is part
/// of this type and does not travel inside another error: convert with the constructors where the
/// handler returns, not below an `anyhow` context. `Failure` itself is not an
/// [`Error`](std::error::Error), which is what lets `?` take every error.
///
/// ```
/// use millstream_core::{Delivery, Failure};
///
/// async fn handle(delivery: Delivery) -> Result<(), Failure> {
///     let text = std::str::from_utf8(delivery.payload()).map_err(Failure::permanent)?;
///     let speed: u32 = text.parse().map_err(Failure::permanent)?;
///     std::fs::write("speed", speed.to_string())?; // retried
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Failure {
    kind: FailureKind,
    reason: Arc<dyn StdError + Send + Sync>,
}

/// A [`Failure`]'s effect on the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// A plain error, which does not classify itself.
    Unknown,
    /// No attempt can succeed.
    Permanent,
    /// The next attempt must wait for this time.
    RetryAfter(Duration),
    /// A dependency of the handler is down.
    Unavailable,
    /// The handler took longer than
    /// [`handler_timeout`](crate::ConsumerGroup::handler_timeout).
    Timeout,
    /// The handler panicked.
    Panic,
}

impl FailureKind {
    /// Returns the kind's stable name in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Permanent => "permanent",
            Self::RetryAfter(_) => "retry_after",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Panic => "panic",
        }
    }
}

impl Failure {
    /// Fails permanently: there is no further attempt, and the policy's final action follows at once.
    pub fn permanent(reason: impl Into<Reason>) -> Self {
        Self::new(FailureKind::Permanent, reason.into())
    }

    /// Fails, and requests the next attempt after `delay` instead of the policy's delay. The attempt is
    /// counted. A delay over 1 day counts as 1 day.
    pub fn retry_after(reason: impl Into<Reason>, delay: Duration) -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self::new(FailureKind::RetryAfter(delay.min(DAY)), reason.into())
    }

    /// Fails because a dependency is down. The delivery is retried until the dependency is back, after
    /// 100 ms, then after twice the delay each time, up to 30 s. A random time of up to the delay is
    /// added to each. No attempt is counted, so an outage never uses up the attempts.
    ///
    /// Meanwhile the key waits and other keys continue. When the partition has as many unsettled
    /// records as [`max_unsettled_per_partition`](crate::ConsumerGroup::max_unsettled_per_partition)
    /// allows, it is paused.
    pub fn unavailable(reason: impl Into<Reason>) -> Self {
        Self::new(FailureKind::Unavailable, reason.into())
    }

    /// Returns the kind, which determines the next attempt.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// Returns the error that the failure was created from.
    pub fn reason(&self) -> &(dyn StdError + Send + Sync + 'static) {
        &*self.reason
    }

    pub(crate) fn panicked(message: &str) -> Self {
        let reason = format!("handler panicked: {message}");
        Self::new(FailureKind::Panic, reason.into())
    }

    pub(crate) fn timeout(limit: Duration) -> Self {
        let message = format!("the handler took longer than handler_timeout, which is {limit:?}");
        let error = Error::new(ErrorKind::Timeout, "handle", message);
        Self::new(FailureKind::Timeout, error.into())
    }

    /// Creates the failure for an error of a send by a pipeline.
    pub(crate) fn of_send(error: Error) -> Self {
        let kind = match error.kind() {
            kind if kind.is_retryable() => FailureKind::Unavailable,
            kind if kind.concerns_record() => FailureKind::Permanent,
            _ => FailureKind::Unknown,
        };
        Self::new(kind, error.into())
    }

    pub(crate) fn into_reason(self) -> Arc<dyn StdError + Send + Sync> {
        self.reason
    }

    fn new(kind: FailureKind, reason: Reason) -> Self {
        Self {
            kind,
            reason: Arc::from(reason),
        }
    }
}

impl<E: Into<Reason>> From<E> for Failure {
    fn from(reason: E) -> Self {
        Self::new(FailureKind::Unknown, reason.into())
    }
}

/// Prints the reason with its causes.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Causes(&*self.reason), f)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failure: {self}", self.kind.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn every_error_converts_and_keeps_its_type() {
        fn plain() -> Result<(), Failure> {
            Err(io::Error::other("disk"))?;
            Ok(())
        }
        fn boxed() -> Result<(), Failure> {
            let error: Box<dyn StdError + Send + Sync> = Box::new(io::Error::other("disk"));
            Err(error)?;
            Ok(())
        }
        fn text() -> Result<(), Failure> {
            Err("disk")?;
            Err("disk".to_owned())?;
            Ok(())
        }
        for failure in [plain().unwrap_err(), boxed().unwrap_err()] {
            assert!(failure.reason().is::<io::Error>());
            assert_eq!(failure.kind(), FailureKind::Unknown);
        }
        assert_eq!(text().unwrap_err().to_string(), "disk");
    }

    #[test]
    fn text_has_all_causes() {
        let cause = Error::new(ErrorKind::Unavailable, "write", "no space left");
        let failure =
            Failure::from(Error::new(ErrorKind::Timeout, "save", "late").with_source(cause));
        assert_eq!(
            failure.to_string(),
            "save failed (timeout): late: write failed (unavailable): no space left"
        );
    }
}
