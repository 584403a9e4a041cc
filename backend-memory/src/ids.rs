//! Numbers that identify things within one broker.

/// A stream's number in the broker. Never reused: a stream that is recreated under an old name is
/// another stream.
pub(crate) type StreamId = u32;

/// A partition's number in its stream, which is also its id in decimal. Never reused.
pub(crate) type PartitionId = u32;

/// A partition of the broker.
pub(crate) type PartitionRef = (StreamId, PartitionId);

/// A group's number in the broker.
pub(crate) type GroupId = usize;

/// A member's number within its group, in the order of joining.
pub(crate) type MemberId = u64;
