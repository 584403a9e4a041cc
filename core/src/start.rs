use std::time::SystemTime;

/// Where a group without a checkpoint begins, and where [`reset`](crate::ConsumerGroup::reset) moves
/// it.
///
/// `Latest` and `At` are resolved at the group's first join, which stores the positions. A crash
/// before the first checkpoint therefore loses nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Start {
    /// The oldest record that the stream still holds.
    #[default]
    Earliest,
    /// After the newest record at the time of the first join or of the reset.
    Latest,
    /// The first record whose broker timestamp is not before the given time.
    At(SystemTime),
}
