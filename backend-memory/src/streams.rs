//! The administration of streams.

use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::{Partition, Result, StreamDescription, StreamSpec, driver};

use crate::broker::Shared;
use crate::journal::Change;
use crate::refusal::Refusal;

#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) shared: Arc<Shared>,
}

#[async_trait]
impl driver::Streams for Streams {
    async fn create(&self, spec: &StreamSpec) -> Result<()> {
        let created = self
            .shared
            .with(|state, _| state.create(&spec.name, spec.partitions));
        created.map_err(|refusal| refusal.during("create stream").with_stream(&*spec.name))
    }

    async fn list(&self) -> Result<Vec<String>> {
        let name = |(name, _): (&Arc<str>, _)| name.to_string();
        Ok(self
            .shared
            .with(|state, _| state.catalog.names().map(name).collect()))
    }

    async fn describe(&self, stream: &str) -> Result<StreamDescription> {
        let described = self.shared.with(|state, now| {
            let id = state.catalog.id(stream)?;
            state.describe(id, now)
        });
        described.map_err(|refusal| refusal.during("describe stream").with_stream(stream))
    }

    async fn delete(&self, stream: &str) -> Result<()> {
        let deleted = self.shared.with(|state, _| {
            let stream = state.catalog.id(stream)?;
            state.commit(Change::Deleted { stream })
        });
        deleted.map_err(|refusal| refusal.during("delete stream").with_stream(stream))
    }

    async fn split(&self, partition: &Partition) -> Result<()> {
        let split = self.shared.with(|state, _| {
            let (id, parent) = state.catalog.slot(partition)?;
            let stream = state.catalog.get(id).ok_or(Refusal::UnknownStream)?;
            stream.check_split(parent)?;
            state.commit(Change::Split { stream: id, parent })
        });
        split.map_err(|refusal| refusal.during("split").with_partition(partition))
    }

    async fn merge(&self, one: &Partition, other: &Partition) -> Result<()> {
        let merged = self.shared.with(|state, _| {
            let (id, first) = state.catalog.slot(one)?;
            let (same, second) = state.catalog.slot(other)?;
            if same != id {
                return Err(Refusal::UnknownPartition);
            }
            let stream = state.catalog.get(id).ok_or(Refusal::UnknownStream)?;
            stream.check_merge(first, second)?;
            state.commit(Change::Merged {
                stream: id,
                one: first,
                other: second,
            })
        });
        merged.map_err(|refusal| refusal.during("merge").with_partition(one))
    }

    async fn add_partitions(&self, stream: &str, partitions: usize) -> Result<()> {
        let grown = self.shared.with(|state, _| {
            let id = state.catalog.id(stream)?;
            let found = state.catalog.get(id).ok_or(Refusal::UnknownStream)?;
            found.check_growth(partitions)?;
            state.commit(Change::Grown {
                stream: id,
                partitions,
            })
        });
        grown.map_err(|refusal| refusal.during("add partitions").with_stream(stream))
    }
}
