use std::fmt;
use std::sync::Arc;

use millstream_core::{Epoch, Partition, Position};

use crate::history::{Handling, Ownership};

/// A record and its location, as a violation names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordLocation {
    /// The record's id.
    pub id: u64,
    /// The partition.
    pub partition: Partition,
    /// The position.
    pub position: Position,
}

/// A violation: the record and the member or group concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// An acknowledged record was never settled by a group that owes it.
    Lost {
        /// The group.
        group: Arc<str>,
        /// The record, where its receipt says it is.
        record: RecordLocation,
        /// Whether a handler gave up on it, and neither a dead letter nor a skip followed.
        gave_up: bool,
    },
    /// A record was handled while an earlier one of its key, by order of sending, was not settled.
    OutOfOrder {
        /// The record that came too early.
        handling: Handling,
        /// The record that it overtook.
        earlier: u64,
        /// Their key.
        key: Arc<str>,
    },
    /// A record was handled while an earlier one of its key, by order of storing, was not settled.
    Overtaken {
        /// The record that came too early.
        handling: Handling,
        /// The position that it overtook.
        earlier: Position,
        /// Their key.
        key: Arc<str>,
    },
    /// Two records of one key were with handlers at the same time.
    Overlap {
        /// The handling that had begun.
        first: Handling,
        /// The handling that began before the first ended.
        second: Handling,
        /// Their key.
        key: Arc<str>,
    },
    /// The stored checkpoint passed a record that the group had not settled.
    CheckpointPastUnsettled {
        /// The group.
        group: Arc<str>,
        /// The record.
        record: RecordLocation,
        /// The checkpoint.
        checkpoint: Position,
        /// The epoch that wrote it.
        epoch: Option<Epoch>,
    },
    /// The stored checkpoint went back without a reset.
    CheckpointWentBack {
        /// The group.
        group: Arc<str>,
        /// The partition.
        partition: Partition,
        /// The checkpoint that was read before.
        from: Position,
        /// The checkpoint that was read after.
        to: Option<Position>,
    },
    /// An owner stored a checkpoint after a newer owner had begun.
    StaleCheckpoint {
        /// The group.
        group: Arc<str>,
        /// The partition.
        partition: Partition,
        /// The epoch that wrote it.
        epoch: Epoch,
        /// The newer epoch.
        newer: Epoch,
    },
    /// Two members owned one partition in one epoch.
    TwoOwners {
        /// The first.
        first: Ownership,
        /// The second.
        second: Ownership,
    },
    /// A partition was assigned with an epoch that is not larger than an earlier one.
    EpochNotGrown {
        /// The assignment.
        assigned: Ownership,
        /// The largest epoch before.
        before: Epoch,
    },
    /// A member without a fault handled a record although there was a newer owner.
    StaleHandling {
        /// The handling.
        handling: Handling,
        /// The newer owner's epoch.
        newer: Epoch,
    },
    /// A member learned of its loss and then began with another record of that partition.
    HandledAfterLoss {
        /// The handling.
        handling: Handling,
    },
    /// A settled record was delivered again although its owner had handed over cleanly, or still owned it.
    Repeated {
        /// The second handling.
        handling: Handling,
        /// The owner that had settled it.
        settled_by: Ownership,
    },
    /// A record was delivered again although the stored checkpoint had passed it.
    RepeatedBelowCheckpoint {
        /// The handling.
        handling: Handling,
        /// The checkpoint that was read before.
        checkpoint: Position,
    },
    /// A new owner had to repeat more settled records than allowed.
    TooManyRepeats {
        /// The new owner.
        by: Ownership,
        /// The number of records that were delivered again.
        repeats: u64,
        /// The bound.
        bound: u64,
    },
    /// Receipts of one key do not grow in the order of sending.
    ReceiptOrder {
        /// The key.
        key: Arc<str>,
        /// The record that was sent first.
        earlier: RecordLocation,
        /// The record that was sent later and stored before it.
        later: RecordLocation,
    },
    /// A receipt has a position that holds another record.
    WrongReceipt {
        /// The record, where its receipt says it is.
        receipt: RecordLocation,
        /// The id that was found there.
        found: u64,
    },
    /// A record was received with another key, payload or headers than were sent.
    Altered {
        /// The handling.
        handling: Handling,
    },
    /// A record was received that was never sent.
    Phantom {
        /// The handling.
        handling: Handling,
    },
    /// A record was received although its receipt reported a rejection.
    FailedYetStored {
        /// The handling.
        handling: Handling,
    },
    /// A record is stored twice although no fault affected a send.
    StoredTwice {
        /// One of its locations.
        one: RecordLocation,
        /// The other location.
        other: RecordLocation,
    },
}

impl fmt::Display for RecordLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "record {} at {}@{}",
            self.id, self.partition, self.position
        )
    }
}

fn owner(by: &Ownership) -> String {
    format!(
        "{} of group {} (epoch {} of {})",
        by.member, by.group, by.epoch, by.partition
    )
}

fn what(handling: &Handling) -> String {
    format!(
        "record {} at position {} by {}, attempt {}",
        handling.id,
        handling.position,
        owner(&handling.by),
        handling.attempt
    )
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost {
                group,
                record,
                gave_up: false,
            } => {
                write!(f, "lost: group {group} never settled {record}")
            }
            Self::Lost {
                group,
                record,
                gave_up: true,
            } => write!(
                f,
                "lost: group {group} gave up {record}, and it was neither dead-lettered nor skipped"
            ),
            Self::OutOfOrder {
                handling,
                earlier,
                key,
            } => write!(
                f,
                "out of order: key {key}: {} began before record {earlier}, sent earlier, was settled",
                what(handling)
            ),
            Self::Overtaken {
                handling,
                earlier,
                key,
            } => write!(
                f,
                "overtaken: key {key}: {} began before position {earlier} was settled",
                what(handling)
            ),
            Self::Overlap { first, second, key } => write!(
                f,
                "overlap: key {key}: {} began while {} had not ended",
                what(second),
                what(first)
            ),
            Self::CheckpointPastUnsettled {
                group,
                record,
                checkpoint,
                epoch,
            } => {
                write!(
                    f,
                    "checkpoint past unsettled: group {group} stored {checkpoint}"
                )?;
                if let Some(epoch) = epoch {
                    write!(f, " (epoch {epoch})")?;
                }
                write!(f, " before {record} was settled")
            }
            Self::CheckpointWentBack {
                group,
                partition,
                from,
                to,
            } => {
                write!(
                    f,
                    "checkpoint went back: group {group}, {partition}: from {from} to "
                )?;
                match to {
                    Some(to) => write!(f, "{to}"),
                    None => f.write_str("none"),
                }
            }
            Self::StaleCheckpoint {
                group,
                partition,
                epoch,
                newer,
            } => write!(
                f,
                "stale checkpoint: group {group}, {partition}: epoch {epoch} stored a checkpoint after epoch {newer} had begun"
            ),
            Self::TwoOwners { first, second } => {
                write!(f, "two owners: {} and {}", owner(first), owner(second))
            }
            Self::EpochNotGrown { assigned, before } => write!(
                f,
                "epoch not grown: {} was assigned after epoch {before}",
                owner(assigned)
            ),
            Self::StaleHandling { handling, newer } => write!(
                f,
                "stale handling: {} began although epoch {newer} was at work",
                what(handling)
            ),
            Self::HandledAfterLoss { handling } => write!(
                f,
                "handled after loss: {} began after the member learned that it lost the partition",
                what(handling)
            ),
            Self::Repeated {
                handling,
                settled_by,
            } => write!(
                f,
                "repeated: {} began although {} had settled it and it was not faulted",
                what(handling),
                owner(settled_by)
            ),
            Self::RepeatedBelowCheckpoint {
                handling,
                checkpoint,
            } => write!(
                f,
                "repeated below checkpoint: {} began although {checkpoint} was stored",
                what(handling)
            ),
            Self::TooManyRepeats { by, repeats, bound } => write!(
                f,
                "too many repeats: {} repeated {repeats} settled records, the bound is {bound}",
                owner(by)
            ),
            Self::ReceiptOrder {
                key,
                earlier,
                later,
            } => write!(
                f,
                "receipts out of order: key {key}: {later} was sent after {earlier}"
            ),
            Self::WrongReceipt { receipt, found } => write!(
                f,
                "wrong receipt: {receipt} by its receipt, but record {found} is there"
            ),
            Self::Altered { handling } => {
                write!(f, "altered: {} is not as it was sent", what(handling))
            }
            Self::Phantom { handling } => {
                write!(f, "phantom: {} was never sent", what(handling))
            }
            Self::FailedYetStored { handling } => write!(
                f,
                "failed yet stored: {} was refused by its receipt",
                what(handling)
            ),
            Self::StoredTwice { one, other } => {
                write!(
                    f,
                    "stored twice: {one} is also {other}, and no send was faulted"
                )
            }
        }
    }
}
