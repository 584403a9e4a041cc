use std::fmt::Debug;

use async_trait::async_trait;

use crate::{Partition, Result, StreamDescription, StreamSpec};

/// The administration of streams.
#[async_trait]
pub trait Streams: Debug + Send + Sync + 'static {
    /// Creates a stream and waits until it can be used. `AlreadyExists` if there is one of that
    /// name.
    async fn create(&self, spec: &StreamSpec) -> Result<()>;

    /// Returns the names of all streams, sorted.
    async fn list(&self) -> Result<Vec<String>>;

    /// Describes a stream. `NotFound` if there is none.
    async fn describe(&self, stream: &str) -> Result<StreamDescription>;

    /// Deletes a stream with its records. Members that read it get `NotFound`.
    async fn delete(&self, stream: &str) -> Result<()>;

    /// Closes one open partition and opens two that share its keys. `Unsupported` where the backend
    /// cannot.
    async fn split(&self, partition: &Partition) -> Result<()>;

    /// Closes two open partitions and opens one with the keys of both. `Unsupported` where the
    /// backend cannot.
    async fn merge(&self, one: &Partition, other: &Partition) -> Result<()>;

    /// Grows the stream to `partitions` in all. `Unsupported` where the backend cannot, `Invalid`
    /// if it has as many already.
    async fn add_partitions(&self, stream: &str, partitions: usize) -> Result<()>;
}
