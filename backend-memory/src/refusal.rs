//! Everything that the broker refuses, and the one table from that to the SDK's errors.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use millstream_core::{Error, ErrorKind};

/// Why the broker does not do what was asked.
#[derive(Debug, Clone)]
pub(crate) enum Refusal {
    UnknownStream,
    UnknownPartition,
    UnknownGroup,
    StreamExists,
    StreamDeleted,
    PartitionClosed,
    MergeWithItself,
    SplitSingleHash,
    AddAfterReshard,
    AddNothing { have: usize },
    NoPartitions,
    RecordTooLarge { size: usize, limit: usize },
    KeyTooLong { size: usize, limit: usize },
    RateExceeded,
    ThrottleInjected,
    EarlierFailed,
    Fenced,
    PartlyFenced,
    ForeignPosition,
    NotEnded,
    MemberGone,
    MemberCrashed,
    UnknownMember,
    CheckpointLost,
    Injected(ErrorKind),
    Script(String),
    Setting(String),
    Storage(Arc<io::Error>),
    StorageBroken,
    Corrupt { file: PathBuf, at: u64 },
    Locked { folder: PathBuf },
}

impl Refusal {
    /// What the caller can do about it: the table.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownStream
            | Self::UnknownPartition
            | Self::UnknownGroup
            | Self::UnknownMember
            | Self::StreamDeleted => ErrorKind::NotFound,
            Self::StreamExists => ErrorKind::AlreadyExists,
            Self::PartitionClosed
            | Self::MergeWithItself
            | Self::SplitSingleHash
            | Self::AddAfterReshard
            | Self::AddNothing { .. }
            | Self::NoPartitions
            | Self::KeyTooLong { .. }
            | Self::ForeignPosition
            | Self::NotEnded
            | Self::Script(_)
            | Self::Setting(_) => ErrorKind::Invalid,
            Self::RecordTooLarge { .. } => ErrorKind::TooLarge,
            Self::RateExceeded | Self::ThrottleInjected => ErrorKind::Throttled,
            Self::EarlierFailed
            | Self::PartlyFenced
            | Self::MemberCrashed
            | Self::CheckpointLost
            | Self::Storage(_)
            | Self::StorageBroken
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
            Self::UnknownPartition => "the stream has no such partition, or nobody owns it",
            Self::UnknownGroup => "no member of this group ever joined",
            Self::StreamExists => "there is a stream of that name",
            Self::StreamDeleted => "the stream was deleted",
            Self::PartitionClosed => "the partition is closed already, name an open one",
            Self::MergeWithItself => "a partition cannot be merged with itself, name two",
            Self::SplitSingleHash => "the partition owns a single hash, it cannot be split",
            Self::AddAfterReshard => {
                "the stream was split or merged before, and adding would move keys without parents \
                 and children: split or merge instead"
            }
            Self::NoPartitions => "0 partitions asked for, use at least 1",
            Self::RateExceeded => {
                "the partition's rate is used up, slow down (limits.records_per_second, \
                 limits.bytes_per_second)"
            }
            Self::ThrottleInjected => "throttled by a fault",
            Self::EarlierFailed => "not stored: an earlier record of its key failed in the call",
            Self::Fenced => "the partition is not this member's any more",
            Self::PartlyFenced => {
                "not stored: some of the partitions are not this member's any more"
            }
            Self::ForeignPosition => "the partition has no such position",
            Self::NotEnded => "the partition has not ended for this member",
            Self::MemberGone => "the member has left the group",
            Self::MemberCrashed => "the member was crashed by a fault",
            Self::UnknownMember => "no such member, or it has left",
            Self::CheckpointLost => "the checkpoint or its answer was lost by a fault",
            Self::Storage(_) => "the folder of persist cannot be read or written",
            Self::StorageBroken => {
                "an earlier write to the journal failed half way, open the folder again"
            }
            Self::AddNothing { have } => {
                return format!("the stream has {have} partitions already, ask for more").into();
            }
            Self::RecordTooLarge { size, limit } => {
                let limit = format!("the stream takes {limit} (limits.record_bytes)");
                return format!("the record has {size} bytes, {limit}").into();
            }
            Self::KeyTooLong { size, limit } => {
                let limit = format!("the stream takes {limit} (limits.key_bytes)");
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

impl From<io::Error> for Refusal {
    fn from(cause: io::Error) -> Self {
        Self::Storage(Arc::new(cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_kind_and_says_something() {
        use ErrorKind::*;
        let storage = || Refusal::from(io::Error::other("disk full"));
        let table = [
            (Refusal::UnknownStream, NotFound, false),
            (Refusal::UnknownPartition, NotFound, false),
            (Refusal::UnknownGroup, NotFound, false),
            (Refusal::UnknownMember, NotFound, false),
            (Refusal::StreamDeleted, NotFound, false),
            (Refusal::StreamExists, AlreadyExists, false),
            (Refusal::PartitionClosed, Invalid, false),
            (Refusal::MergeWithItself, Invalid, false),
            (Refusal::SplitSingleHash, Invalid, false),
            (Refusal::AddAfterReshard, Invalid, false),
            (Refusal::AddNothing { have: 3 }, Invalid, false),
            (Refusal::NoPartitions, Invalid, false),
            (
                Refusal::RecordTooLarge { size: 2, limit: 1 },
                TooLarge,
                false,
            ),
            (Refusal::KeyTooLong { size: 2, limit: 1 }, Invalid, false),
            (Refusal::ForeignPosition, Invalid, false),
            (Refusal::NotEnded, Invalid, false),
            (Refusal::Script("x".into()), Invalid, false),
            (Refusal::Setting("x".into()), Invalid, false),
            (Refusal::RateExceeded, Throttled, true),
            (Refusal::ThrottleInjected, Throttled, true),
            (Refusal::EarlierFailed, Unavailable, true),
            (Refusal::PartlyFenced, Unavailable, true),
            (Refusal::MemberCrashed, Unavailable, true),
            (Refusal::CheckpointLost, Unavailable, true),
            (storage(), Unavailable, true),
            (Refusal::StorageBroken, Unavailable, true),
            (Refusal::Locked { folder: "f".into() }, Unavailable, true),
            (Refusal::Fenced, Fenced, false),
            (Refusal::MemberGone, Closed, false),
            (
                Refusal::Corrupt {
                    file: "f".into(),
                    at: 7,
                },
                Corrupt,
                false,
            ),
            (Refusal::Injected(Denied), Denied, false),
        ];
        for (refusal, kind, retryable) in table {
            let error = refusal.during("test");
            assert_eq!(error.kind(), kind, "{refusal:?}");
            assert_eq!(error.is_retryable(), retryable, "{refusal:?}");
            assert!(!error.message().is_empty(), "{refusal:?}");
        }
    }
}
