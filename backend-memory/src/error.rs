//! The broker's errors, and the one table from them to the SDK's errors.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use millstream_core::{Error, ErrorKind};

/// The reason why the broker rejected a request.
#[derive(Debug, Clone)]
pub(crate) enum BrokerError {
    UnknownStream,
    UnknownPartition,
    UnknownGroup,
    StreamExists,
    StreamDeleted,
    PartitionClosed,
    MergeWithItself,
    SplitSingleHash,
    AddAfterReshard,
    AddNothing {
        have: usize,
    },
    NoPartitions,
    RecordTooLarge {
        size: usize,
        limit: usize,
    },
    KeyTooLong {
        size: usize,
        limit: usize,
    },
    /// The record, or the name of the stream, has a property that the broker does not accept.
    NotAccepted(Cow<'static, str>),
    /// The imitated broker has no such operation.
    Unsupported(&'static str),
    RateExceeded,
    ThrottleInjected,
    EarlierFailed,
    Fenced,
    PartlyFenced,
    UnknownPosition,
    NotEnded,
    MemberGone,
    MemberCrashed,
    UnknownMember,
    CheckpointLost,
    Injected(ErrorKind),
    Script(String),
    Setting(String),
    Storage(Arc<io::Error>),
    Corrupt {
        file: PathBuf,
        at: u64,
    },
    Locked {
        folder: PathBuf,
    },
}

impl BrokerError {
    /// Returns the error kind. This is the table.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownStream
            | Self::UnknownPartition
            | Self::UnknownGroup
            | Self::UnknownMember
            | Self::UnknownPosition
            | Self::StreamDeleted => ErrorKind::NotFound,
            Self::StreamExists => ErrorKind::AlreadyExists,
            Self::PartitionClosed
            | Self::MergeWithItself
            | Self::SplitSingleHash
            | Self::AddAfterReshard
            | Self::AddNothing { .. }
            | Self::NoPartitions
            | Self::KeyTooLong { .. }
            | Self::NotEnded
            | Self::NotAccepted(_)
            | Self::Script(_)
            | Self::Setting(_) => ErrorKind::Invalid,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::RecordTooLarge { .. } => ErrorKind::TooLarge,
            Self::RateExceeded | Self::ThrottleInjected => ErrorKind::Throttled,
            Self::EarlierFailed
            | Self::PartlyFenced
            | Self::MemberCrashed
            | Self::CheckpointLost
            | Self::Storage(_)
            | Self::Locked { .. } => ErrorKind::Unavailable,
            Self::Fenced => ErrorKind::Fenced,
            Self::MemberGone => ErrorKind::Closed,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Injected(kind) => *kind,
        }
    }

    fn message(&self) -> Cow<'static, str> {
        let text = match self {
            Self::UnknownStream => "no such stream, create it first",
            Self::UnknownPartition => "the stream has no such partition, or no member owns it",
            Self::UnknownGroup => "no member of this group has ever joined",
            Self::StreamExists => "a stream of that name exists",
            Self::StreamDeleted => "the stream was deleted",
            Self::PartitionClosed => "the partition is already closed, name an open one",
            Self::MergeWithItself => "a partition cannot be merged with itself, name two",
            Self::SplitSingleHash => "the partition owns a single hash, it cannot be split",
            Self::AddAfterReshard => {
                "the stream was split or merged before, and added partitions would take keys without \
                 being their children: split or merge instead"
            }
            Self::NoPartitions => "0 partitions requested, use at least 1",
            Self::RateExceeded => {
                "the partition's rate limit is exceeded, slow down (limits.records_per_second, \
                 limits.bytes_per_second)"
            }
            Self::ThrottleInjected => "throttled by a fault",
            Self::EarlierFailed => {
                "not stored: an earlier record of its key failed in the same call"
            }
            Self::Fenced => "the member no longer owns the partition",
            Self::PartlyFenced => "not stored: the member no longer owns some of the partitions",
            Self::UnknownPosition => "the partition has no such position",
            Self::NotEnded => "the partition has not ended for this member",
            Self::MemberGone => "the member has left the group",
            Self::MemberCrashed => "the member was crashed by a fault",
            Self::UnknownMember => "no such member, or it has left",
            Self::CheckpointLost => "the checkpoint or its response was lost by a fault",
            Self::Storage(_) => "the folder of persist cannot be read or written",
            Self::NotAccepted(reason) => return reason.clone(),
            Self::Unsupported(reason) => reason,
            Self::AddNothing { have } => {
                return format!("the stream already has {have} partitions, request more").into();
            }
            Self::RecordTooLarge { size, limit } => {
                let limit = format!("use at most {limit} (limits.record_bytes)");
                return format!("the record has {size} bytes, {limit}").into();
            }
            Self::KeyTooLong { size, limit } => {
                let limit = format!("use at most {limit} (limits.key_bytes)");
                return format!("the key has {size} bytes, {limit}").into();
            }
            Self::Injected(kind) => return format!("{kind} by a fault").into(),
            Self::Script(reason) | Self::Setting(reason) => return reason.clone().into(),
            Self::Corrupt { file, at } => {
                let file = file.display();
                return format!("{file} is damaged at byte {at}, restore it or use another").into();
            }
            Self::Locked { folder } => {
                let folder = folder.display();
                return format!("{folder} is in use by another broker, use another").into();
            }
        };
        text.into()
    }

    pub(crate) fn during(&self, operation: &'static str) -> Error {
        let error = Error::new(self.kind(), operation, self.message());
        match self {
            Self::Storage(cause) => error.with_source(cause.clone()),
            _ => error,
        }
    }
}

impl From<io::Error> for BrokerError {
    fn from(cause: io::Error) -> Self {
        Self::Storage(Arc::new(cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_kind_and_a_message() {
        use ErrorKind::*;
        let storage = || BrokerError::from(io::Error::other("disk full"));
        let table = [
            (BrokerError::UnknownStream, NotFound, false),
            (BrokerError::UnknownPartition, NotFound, false),
            (BrokerError::UnknownGroup, NotFound, false),
            (BrokerError::UnknownMember, NotFound, false),
            (BrokerError::StreamDeleted, NotFound, false),
            (BrokerError::StreamExists, AlreadyExists, false),
            (BrokerError::PartitionClosed, Invalid, false),
            (BrokerError::MergeWithItself, Invalid, false),
            (BrokerError::SplitSingleHash, Invalid, false),
            (BrokerError::AddAfterReshard, Invalid, false),
            (BrokerError::AddNothing { have: 3 }, Invalid, false),
            (BrokerError::NoPartitions, Invalid, false),
            (
                BrokerError::RecordTooLarge { size: 2, limit: 1 },
                TooLarge,
                false,
            ),
            (
                BrokerError::KeyTooLong { size: 2, limit: 1 },
                Invalid,
                false,
            ),
            (BrokerError::UnknownPosition, NotFound, false),
            (BrokerError::NotEnded, Invalid, false),
            (BrokerError::NotAccepted("x".into()), Invalid, false),
            (BrokerError::Unsupported("x"), Unsupported, false),
            (BrokerError::Script("x".into()), Invalid, false),
            (BrokerError::Setting("x".into()), Invalid, false),
            (BrokerError::RateExceeded, Throttled, true),
            (BrokerError::ThrottleInjected, Throttled, true),
            (BrokerError::EarlierFailed, Unavailable, true),
            (BrokerError::PartlyFenced, Unavailable, true),
            (BrokerError::MemberCrashed, Unavailable, true),
            (BrokerError::CheckpointLost, Unavailable, true),
            (storage(), Unavailable, true),
            (
                BrokerError::Locked { folder: "f".into() },
                Unavailable,
                true,
            ),
            (BrokerError::Fenced, Fenced, false),
            (BrokerError::MemberGone, Closed, false),
            (
                BrokerError::Corrupt {
                    file: "f".into(),
                    at: 7,
                },
                Corrupt,
                false,
            ),
            (BrokerError::Injected(Denied), Denied, false),
        ];
        for (case, kind, retryable) in table {
            let error = case.during("test");
            assert_eq!(error.kind(), kind, "{case:?}");
            assert_eq!(error.is_retryable(), retryable, "{case:?}");
            assert!(!error.message().is_empty(), "{case:?}");
        }
    }
}
