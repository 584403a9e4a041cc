//! What leases have to know of the streams themselves.

use std::fmt::Debug;

use async_trait::async_trait;
use millstream_core::Result;

use super::row::Pin;
use crate::stream::{Shard, StreamInfo};

/// The streams, as Kinesis tells of them. Each method asks once, or a few times; dropping a future
/// leaves nothing behind.
#[async_trait]
pub(crate) trait ShardSource: Debug + Send + Sync + 'static {
    /// What tells a stream from another of the same name. `NotFound` if there is none.
    async fn info(&self, stream: &str) -> Result<StreamInfo>;

    /// All shards, the closed ones that still hold records too. `NotFound` if there is no such
    /// stream.
    async fn shards(&self, stream: &str) -> Result<Vec<Shard>>;

    /// The tip of a shard, now.
    async fn latest(&self, stream: &str, shard: &str) -> Result<Pin>;
}
