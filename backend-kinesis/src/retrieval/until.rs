//! When a reader stops polling.

/// What polling ends with, but for the end of the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// With the first record.
    Record,
    /// When nothing that is left may go before it is read.
    Safe,
    /// Never.
    End,
}
