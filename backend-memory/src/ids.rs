//! Numbers that name things within one broker.

/// A stream's number in the broker; never used again, so a stream that is made anew under an old
/// name is another one.
pub(crate) type StreamId = u32;

/// A partition's number in its stream, which is also its id in decimal; never used again.
pub(crate) type PartitionId = u32;

/// A partition of the broker.
pub(crate) type Slot = (StreamId, PartitionId);

/// A group's number in the broker.
pub(crate) type GroupId = usize;

/// A member's number within its group, in the order of joining.
pub(crate) type MemberId = u64;
