//! When a reader stops polling, and why it stops subscribing.

/// The event that ends polling, apart from shard end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The first record.
    Record,
    /// The first record, or the certainty that a subscription by time begins before it.
    Quiet,
    /// Enhanced fan-out is no longer refused.
    Subscribable,
    /// Never.
    End,
}

/// Why a reader no longer subscribes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The shard is closed, and nothing more is pushed.
    Closed,
    /// Enhanced fan-out is refused for now.
    Refused,
}
