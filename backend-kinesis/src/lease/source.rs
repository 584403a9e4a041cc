//! The information about streams that leases need.

use std::fmt::Debug;

use async_trait::async_trait;
use millstream_core::Result;

use super::row::Pin;
use crate::stream::{Shard, StreamInfo};

/// The streams as Kinesis reports them. Each method sends one or a few requests; dropping a future
/// leaves nothing behind.
#[async_trait]
pub(crate) trait ShardSource: Debug + Send + Sync + 'static {
    /// Returns the stream's identity, which distinguishes it from another of the same name. `NotFound` if there is
    /// none.
    async fn info(&self, stream: &str) -> Result<StreamInfo>;

    /// Returns all shards, including the closed ones that still hold records. `NotFound` if there is no such
    /// stream.
    async fn shards(&self, stream: &str) -> Result<Vec<Shard>>;

    /// Returns the current tip of a shard.
    async fn latest(&self, stream: &str, shard: &str) -> Result<Pin>;
}
