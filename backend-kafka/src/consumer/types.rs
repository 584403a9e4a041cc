//! What the rooms of a member share.

use std::sync::Arc;

/// A partition by topic and number.
pub(crate) type TopicPartition = (Arc<str>, i32);

/// Where a partition is to be read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchPosition {
    pub(crate) partition: TopicPartition,
    /// The next offset. `None` is the beginning of the partition.
    pub(crate) offset: Option<i64>,
    /// The epoch of the leader that has written what stands before it, if it is known.
    pub(crate) leader_epoch: Option<i32>,
}
