use std::time::SystemTime;

/// Where a group begins that has no checkpoint yet, and where
/// [`reset`](crate::ConsumerGroup::reset) moves it.
///
/// `Latest` is pinned when the group is born: the positions are stored at its first join, so that a
/// crash before the first checkpoint loses nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Start {
    /// The oldest record that the stream still holds.
    #[default]
    Earliest,
    /// After the newest record at the time of asking.
    Latest,
    /// The first record whose broker timestamp is not before the given time.
    At(SystemTime),
}
