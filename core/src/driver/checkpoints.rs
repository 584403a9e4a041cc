use std::fmt::Debug;

use async_trait::async_trait;

use crate::{Checkpoint, Result, Start};

/// The stored progress of one group.
#[async_trait]
pub trait Checkpoints: Debug + Send + Sync + 'static {
    /// Reads the progress of every partition of every stream that the group has progress on, in the
    /// order of partitions. `NotFound` for an unknown group.
    async fn read(&self) -> Result<Vec<Checkpoint>>;

    /// Moves the group in `stream` to `to`, also while members run: they drain, checkpoint, and
    /// continue from the new position in a new epoch. Returns when the new position is stored.
    /// `NotFound` for an unknown group or stream.
    async fn reset(&self, stream: &str, to: Start) -> Result<()>;
}
