use std::sync::Arc;

use crate::{Partition, Position, Result, driver, naming};

/// Settings of a stream to create.
///
/// ```
/// # use millstream_core::StreamSpec;
/// let spec = StreamSpec::new("car-raw-events").partitions(8);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamSpec {
    /// The name: 1-249 of `A-Z a-z 0-9 . _ -`, but not `.` or `..`. A backend may accept fewer
    /// (Kinesis: 128).
    pub name: String,
    /// The number of partitions at the start, 1 to 100,000. Default 1.
    pub partitions: usize,
}

impl StreamSpec {
    /// Creates the settings of a stream with one partition.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            partitions: 1,
        }
    }

    /// Sets the number of partitions.
    #[must_use]
    pub fn partitions(mut self, partitions: usize) -> Self {
        self.partitions = partitions;
        self
    }
}

/// Description of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamDescription {
    /// The name.
    pub name: String,
    /// The partitions in order, including closed ones that still hold records.
    pub partitions: Vec<PartitionDescription>,
}

/// Description of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDescription {
    /// The partition.
    pub partition: Partition,
    /// Whether it still accepts records.
    pub open: bool,
    /// The partitions that it came from by a split or a merge.
    pub parents: Vec<Partition>,
    /// The oldest record that is left.
    pub earliest: Option<Position>,
    /// The newest record.
    pub latest: Option<Position>,
}

/// The administration of streams, from [`Client::streams`](crate::Client::streams).
///
/// # Cancel safety
/// If a call is dropped, the change either happens or does not.
#[derive(Debug, Clone)]
pub struct Streams(pub(crate) Arc<dyn driver::Streams>);

impl Streams {
    /// Creates a stream and waits until it can be used.
    ///
    /// # Errors
    /// `AlreadyExists` if there is a stream of that name; `Invalid` for a name or a number that no
    /// backend accepts.
    pub async fn create(&self, spec: StreamSpec) -> Result<()> {
        naming::new_stream("create stream", &spec.name)?;
        naming::partitions(&spec)?;
        self.0.create(&spec).await
    }

    /// Lists the names of all streams, sorted.
    pub async fn list(&self) -> Result<Vec<String>> {
        self.0.list().await
    }

    /// Describes a stream.
    ///
    /// # Errors
    /// `NotFound` if there is no stream of that name.
    pub async fn describe(&self, stream: &str) -> Result<StreamDescription> {
        self.0.describe(stream).await
    }

    /// Deletes a stream with all its records, and with the progress of its groups. Consumers that read
    /// it end with `NotFound`.
    ///
    /// A new stream of the same name is read from its [`start`](crate::ConsumerGroup::start). On
    /// Kinesis the progress stays in the group's lease table, and the group cannot join with the new
    /// stream until that table is deleted.
    ///
    /// # Errors
    /// `NotFound` if there is no stream of that name.
    pub async fn delete(&self, stream: &str) -> Result<()> {
        self.0.delete(stream).await
    }

    /// Closes an open partition and opens two that share its keys (Kinesis: SplitShard). Every key
    /// keeps its order.
    ///
    /// # Errors
    /// `Unsupported` where the backend cannot split (Kafka), `NotFound`, `Invalid` if the partition
    /// is already closed.
    pub async fn split(&self, partition: &Partition) -> Result<()> {
        self.0.split(partition).await
    }

    /// Closes two open partitions and opens one with the keys of both (Kinesis: MergeShards). Every
    /// key keeps its order.
    ///
    /// # Errors
    /// `Unsupported` where the backend cannot merge (Kafka), `NotFound`, `Invalid` if one is already
    /// closed or both are the same.
    pub async fn merge(&self, one: &Partition, other: &Partition) -> Result<()> {
        self.0.merge(one, other).await
    }

    /// Grows a stream to `partitions` in all (Kafka: CreatePartitions). Groups read the new ones
    /// from their beginning. Keys may move to other partitions, and such a key has no order across
    /// the move.
    ///
    /// # Errors
    /// `Unsupported` where the backend cannot add partitions (Kinesis), `NotFound`, `Invalid` if the
    /// stream already has as many.
    pub async fn add_partitions(&self, stream: &str, partitions: usize) -> Result<()> {
        self.0.add_partitions(stream, partitions).await
    }
}
