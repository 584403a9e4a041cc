//! Creates, lists, describes, deletes and reshards streams.

use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::{Partition, Result, StreamDescription, StreamSpec, driver};

use crate::broker::Broker;
use crate::error::BrokerError;
use crate::journal::JournalEntry;

#[derive(Debug)]
pub(crate) struct MemoryStreams {
    pub(crate) broker: Arc<Broker>,
}

#[async_trait]
impl driver::Streams for MemoryStreams {
    async fn create(&self, spec: &StreamSpec) -> Result<()> {
        let created = self
            .broker
            .with(|state, _| state.create(&spec.name, spec.partitions));
        created.map_err(|error| error.during("create stream").with_stream(&*spec.name))
    }

    async fn list(&self) -> Result<Vec<String>> {
        let name = |(name, _): (&Arc<str>, _)| name.to_string();
        Ok(self
            .broker
            .with(|state, _| state.catalog.names().map(name).collect()))
    }

    async fn describe(&self, stream: &str) -> Result<StreamDescription> {
        let described = self.broker.with(|state, now| {
            let id = state.catalog.id(stream)?;
            state.describe(id, now)
        });
        described.map_err(|error| error.during("describe stream").with_stream(stream))
    }

    async fn delete(&self, stream: &str) -> Result<()> {
        let deleted = self.broker.with(|state, _| {
            let stream = state.catalog.id(stream)?;
            state.commit(JournalEntry::StreamDeleted { stream })
        });
        deleted.map_err(|error| error.during("delete stream").with_stream(stream))
    }

    async fn split(&self, partition: &Partition) -> Result<()> {
        let split = self.broker.with(|state, _| {
            state.rules.check_split_and_merge()?;
            let (id, parent) = state.catalog.partition_ref(partition)?;
            let stream = state.catalog.get(id).ok_or(BrokerError::UnknownStream)?;
            stream.check_split(parent)?;
            state.commit(JournalEntry::PartitionSplit { stream: id, parent })
        });
        split.map_err(|error| error.during("split").with_partition(partition))
    }

    async fn merge(&self, one: &Partition, other: &Partition) -> Result<()> {
        let merged = self.broker.with(|state, _| {
            state.rules.check_split_and_merge()?;
            let (id, first) = state.catalog.partition_ref(one)?;
            let (same, second) = state.catalog.partition_ref(other)?;
            if same != id {
                return Err(BrokerError::UnknownPartition);
            }
            let stream = state.catalog.get(id).ok_or(BrokerError::UnknownStream)?;
            stream.check_merge(first, second)?;
            state.commit(JournalEntry::PartitionsMerged {
                stream: id,
                one: first,
                other: second,
            })
        });
        merged.map_err(|error| error.during("merge").with_partition(one))
    }

    async fn add_partitions(&self, stream: &str, partitions: usize) -> Result<()> {
        let grown = self.broker.with(|state, _| {
            state.rules.check_add_partitions()?;
            let id = state.catalog.id(stream)?;
            let found = state.catalog.get(id).ok_or(BrokerError::UnknownStream)?;
            found.check_growth(partitions)?;
            state.commit(JournalEntry::PartitionsAdded {
                stream: id,
                partitions,
            })
        });
        grown.map_err(|error| error.during("add partitions").with_stream(stream))
    }
}
