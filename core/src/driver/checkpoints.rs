use std::fmt::Debug;

use async_trait::async_trait;

use crate::{Checkpoint, Result, Start};

/// The stored progress of one group.
#[async_trait]
pub trait Checkpoints: Debug + Send + Sync + 'static {
    /// Reads the progress of every partition of every stream that the group reads, in the order of
    /// partitions. Streams that were deleted are left out.
    ///
    /// [`Checkpoint::position`] and [`Checkpoint::epoch`] are those of the last settled record: a start that was
    /// resolved by a join or a reset is not a position. Lags are counted from it nevertheless. A store that keeps one
    /// epoch for each partition may show that of the last assignment, which may not have settled anything (Kinesis).
    ///
    /// # Errors
    /// `NotFound` for a group that no member ever joined.
    async fn read(&self) -> Result<Vec<Checkpoint>>;

    /// Moves the group in `stream` to `to`, even while members run: they drain, checkpoint, and
    /// continue from the new position in a new epoch.
    ///
    /// Returns when the new position is stored, so that [`read`](Self::read) shows it from then on. A
    /// member that does not drain in time is fenced and does not delay it further. `to` is resolved
    /// [as by a first join](super#where-a-group-starts). A stream that the group has never read gets
    /// its start this way, and members that join later with the stream begin there.
    ///
    /// # Errors
    /// * `NotFound` for an unknown stream, and for a group that no member ever joined.
    /// * `Unsupported` for a [`Start`] that the driver does not know.
    ///
    /// # Cancel safety
    /// If the future is dropped, the group is moved or not, possibly later.
    async fn reset(&self, stream: &str, to: Start) -> Result<()>;
}
