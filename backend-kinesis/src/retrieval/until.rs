//! The condition at which a reader stops polling.

/// The event that ends polling, apart from shard end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The first record.
    Record,
    /// No remaining record may be removed before it is read.
    Safe,
    /// Never.
    End,
}
