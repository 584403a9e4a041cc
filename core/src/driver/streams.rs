use std::fmt::Debug;

use async_trait::async_trait;

use crate::{Partition, Result, StreamDescription, StreamSpec};

/// The administration of streams.
#[async_trait]
pub trait Streams: Debug + Send + Sync + 'static {
    /// Creates a stream and waits until it can be used. The caller has checked name and number.
    ///
    /// # Errors
    /// * `AlreadyExists` if there is one of that name that this call has not created. After a lost
    ///   response, a driver that cannot tell does not repeat the request and returns `Timeout`.
    /// * `Invalid` for a name or a number that this backend does not accept.
    async fn create(&self, spec: &StreamSpec) -> Result<()>;

    /// Returns the names of all streams, sorted.
    async fn list(&self) -> Result<Vec<String>>;

    /// Describes a stream, with the closed partitions that still hold records.
    ///
    /// # Errors
    /// `NotFound` if there is none of that name.
    async fn describe(&self, stream: &str) -> Result<StreamDescription>;

    /// Deletes a stream with its records and with [the progress of its groups](super#deleted-streams).
    /// Memberships that read it end with `NotFound`.
    ///
    /// # Errors
    /// `NotFound` if there is none of that name.
    async fn delete(&self, stream: &str) -> Result<()>;

    /// Closes one open partition and opens two that share its keys. Every key keeps its order: the
    /// children are assigned in a group when the parent is [completed](super::Membership::complete).
    ///
    /// # Errors
    /// `Unsupported` where the backend cannot split; `NotFound` for an unknown stream or partition;
    /// `Invalid` if the partition is closed already, or too small to be split.
    async fn split(&self, partition: &Partition) -> Result<()>;

    /// Closes two open partitions of one stream and opens one with the keys of both. Every key keeps
    /// its order, as with [`split`](Self::split).
    ///
    /// # Errors
    /// `Unsupported` where the backend cannot merge; `NotFound` for an unknown stream or partition;
    /// `Invalid` if one is closed already, if both are the same, or if these two cannot be merged
    /// (Kinesis: they must be adjacent).
    async fn merge(&self, one: &Partition, other: &Partition) -> Result<()>;

    /// Grows the stream to `partitions` in all. Every group reads the new ones from their beginning,
    /// including a group that has started at `Latest`. Keys may move to the new partitions.
    ///
    /// # Errors
    /// `Unsupported` where the backend cannot add partitions; `NotFound` for an unknown stream;
    /// `Invalid` if it has as many already.
    async fn add_partitions(&self, stream: &str, partitions: usize) -> Result<()>;
}
