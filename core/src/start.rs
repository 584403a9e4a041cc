use std::time::SystemTime;

/// The position where a group without a checkpoint begins, and to which
/// [`reset`](crate::ConsumerGroup::reset) moves it.
///
/// It is resolved when the group joins with a stream for the first time, and the positions are stored
/// then. A crash before the first checkpoint therefore loses nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Start {
    /// The oldest record that the stream holds at that time. If retention removes records before they
    /// are read, that is a data loss; see [`OnDataLoss`](crate::OnDataLoss).
    #[default]
    Earliest,
    /// After the newest record at the time of the first join or of the reset.
    Latest,
    /// The first record in stored order whose [timestamp](crate::Delivery::timestamp) is not before the
    /// given time: the producer's timestamp if it set one, else the broker's. All records after it are
    /// delivered, whatever their timestamps are. If there is none yet, this is the same as `Latest`.
    At(SystemTime),
}
