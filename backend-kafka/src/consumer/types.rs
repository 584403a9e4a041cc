//! Types shared by the modules of a member.

use std::sync::Arc;

/// A partition by topic and number.
pub(crate) type TopicPartition = (Arc<str>, i32);

/// The position from which to read a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchPosition {
    pub(crate) partition: TopicPartition,
    /// The next offset. `None` is the beginning of the partition.
    pub(crate) offset: Option<i64>,
    /// The epoch of the leader that wrote the record before it, if it is known.
    pub(crate) leader_epoch: Option<i32>,
}
