//! The one error type: a kind to branch on, and the context to log.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::Partition;

/// A result whose error is the SDK's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an [`Error`].
///
/// Programs branch on the kind, never on the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The call, the record or the setting is wrong: change it. A retry gives the same result.
    Invalid,
    /// The record is larger than the stream accepts.
    TooLarge,
    /// The stream, the partition or the group does not exist.
    NotFound,
    /// The stream to create already exists.
    AlreadyExists,
    /// The broker knows the client, and does not permit the call.
    Denied,
    /// The broker does not accept the client's credentials.
    Unauthenticated,
    /// The rate is over a limit of the broker: slow down and try again.
    Throttled,
    /// The broker is down or cannot be reached: try again later.
    Unavailable,
    /// The partition has a newer owner: this one must stop.
    Fenced,
    /// The handle was closed.
    Closed,
    /// There was no result in time, or there can no longer be one. The call may or may not have
    /// taken effect.
    Timeout,
    /// It is not known whether the call has taken effect, and it must not be repeated: an exactly-once
    /// step whose commit got no response. The member that resumes finds out from the stored progress.
    OutcomeUnknown,
    /// Stored data cannot be decoded.
    Corrupt,
    /// The next position is older than what the stream still holds: records were lost to the group.
    DataLoss,
    /// This backend does not support the call.
    Unsupported,
    /// The application's handler failed, and its failure policy is to stop.
    Handler,
}

impl ErrorKind {
    /// Returns the kind's stable name in logs and metrics: lower case, without blanks.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Denied => "denied",
            Self::Unauthenticated => "unauthenticated",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Fenced => "fenced",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Corrupt => "corrupt",
            Self::DataLoss => "data_loss",
            Self::Unsupported => "unsupported",
            Self::Handler => "handler",
        }
    }

    /// Returns whether the same call may succeed later: [`Throttled`](Self::Throttled),
    /// [`Unavailable`](Self::Unavailable) and [`Timeout`](Self::Timeout).
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable | Self::Timeout)
    }

    /// Returns whether a refused record is the cause, so that other records are not affected.
    pub(crate) const fn concerns_record(self) -> bool {
        matches!(self, Self::Invalid | Self::TooLarge)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The error of a failed call.
///
/// `Display` prints one line (operation, kind, message, stream or partition, group), and `Debug` adds
/// the causes, which [`source`](StdError::source) returns. Cheap to clone, since one refusal of a
/// broker may apply to many records.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    message: Cow<'static, str>,
    stream: Option<Arc<str>>,
    partition: Option<Partition>,
    group: Option<Arc<str>>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Creates an error of `kind` for `operation` (a verb such as `"send"`), with a lower-case
    /// message that says what to change.
    pub fn new(
        kind: ErrorKind,
        operation: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Arc::new(Inner {
            kind,
            operation,
            message: message.into(),
            stream: None,
            partition: None,
            group: None,
            source: None,
        }))
    }

    /// Adds the stream.
    #[must_use]
    pub fn with_stream(mut self, stream: impl Into<Arc<str>>) -> Self {
        Arc::make_mut(&mut self.0).stream = Some(stream.into());
        self
    }

    /// Adds the partition, and with it the stream.
    #[must_use]
    pub fn with_partition(mut self, partition: &Partition) -> Self {
        Arc::make_mut(&mut self.0).partition = Some(partition.clone());
        self
    }

    /// Adds the group.
    #[must_use]
    pub fn with_group(mut self, group: impl Into<Arc<str>>) -> Self {
        Arc::make_mut(&mut self.0).group = Some(group.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Arc::make_mut(&mut self.0).source = Some(Arc::from(source.into()));
        self
    }

    /// Adds a cause that is shared with other errors.
    pub(crate) fn with_shared_source(mut self, source: Arc<dyn StdError + Send + Sync>) -> Self {
        Arc::make_mut(&mut self.0).source = Some(source);
        self
    }

    /// Returns the kind, which says what the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns whether the same call may succeed later; see [`ErrorKind::is_retryable`].
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }

    /// Returns the verb of the call that failed.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// Returns only the message, without kind and context.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the stream that the error is about, if any.
    pub fn stream(&self) -> Option<&str> {
        self.0
            .partition
            .as_ref()
            .map(Partition::stream)
            .or(self.0.stream.as_deref())
    }

    /// Returns the partition that the error is about, if any.
    pub fn partition(&self) -> Option<&Partition> {
        self.0.partition.as_ref()
    }

    /// Returns the group that the error is about, if any.
    pub fn group(&self) -> Option<&str> {
        self.0.group.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        write!(
            f,
            "{} failed ({}): {}",
            inner.operation, inner.kind, inner.message
        )?;
        if let Some(partition) = &inner.partition {
            write!(f, ", partition {partition}")?;
        } else if let Some(stream) = &inner.stream {
            write!(f, ", stream {stream}")?;
        }
        if let Some(group) = &inner.group {
            write!(f, ", group {group}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, "\n  caused by: {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_kinds_are_single_words() {
        for (kind, name) in [
            (ErrorKind::TooLarge, "too_large"),
            (ErrorKind::NotFound, "not_found"),
            (ErrorKind::AlreadyExists, "already_exists"),
            (ErrorKind::DataLoss, "data_loss"),
            (ErrorKind::OutcomeUnknown, "outcome_unknown"),
        ] {
            assert_eq!((kind.as_str(), &*kind.to_string()), (name, name));
        }
    }

    #[test]
    fn prints_in_one_line_and_keeps_its_causes() {
        let cause = Error::new(ErrorKind::Unavailable, "connect", "no route");
        let error = Error::new(ErrorKind::Timeout, "send", "not stored within 2 minutes")
            .with_partition(&Partition::new("s", "3"))
            .with_group("g")
            .with_source(cause);
        assert_eq!(
            error.to_string(),
            "send failed (timeout): not stored within 2 minutes, partition s/3, group g"
        );
        assert!(
            format!("{error:?}").ends_with("caused by: connect failed (unavailable): no route")
        );
        assert_eq!((error.stream(), error.is_retryable()), (Some("s"), true));
    }
}
