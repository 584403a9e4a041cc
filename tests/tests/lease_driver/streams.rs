//! The administration of streams.

use async_trait::async_trait;
use millstream_core::{
    Error, ErrorKind, Partition, PartitionDescription, Result, StreamDescription, StreamSpec,
    driver,
};

use crate::driver::{LeaseBackend, unsupported};

#[async_trait]
impl driver::Streams for LeaseBackend {
    async fn create(&self, spec: &StreamSpec) -> Result<()> {
        let mut table = self.table();
        if table.streams.contains_key(&spec.name) {
            let message = "there is a stream of this name";
            let error = Error::new(ErrorKind::AlreadyExists, "create stream", message);
            return Err(error.with_stream(&*spec.name));
        }
        table.create(&spec.name, spec.partitions);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<String>> {
        Ok(self.table().streams.keys().cloned().collect())
    }

    async fn describe(&self, stream: &str) -> Result<StreamDescription> {
        let mut table = self.table();
        let logs = table.stream("describe stream", stream)?.logs.iter();
        let description = logs.enumerate().map(|(number, log)| PartitionDescription {
            partition: Partition::new(stream, number.to_string()),
            open: true,
            parents: Vec::new(),
            earliest: (log.first < log.end()).then(|| log.first.into()),
            latest: (log.first < log.end()).then(|| (log.end() - 1).into()),
        });
        Ok(StreamDescription {
            name: stream.to_owned(),
            partitions: description.collect(),
        })
    }

    async fn delete(&self, stream: &str) -> Result<()> {
        self.table().delete(stream)
    }

    async fn split(&self, _: &Partition) -> Result<()> {
        unsupported("split")
    }

    async fn merge(&self, _: &Partition, _: &Partition) -> Result<()> {
        unsupported("merge")
    }

    async fn add_partitions(&self, stream: &str, partitions: usize) -> Result<()> {
        let mut table = self.table();
        if table.stream("add partitions", stream)?.logs.len() >= partitions {
            let message = "the stream has as many partitions";
            let error = Error::new(ErrorKind::Invalid, "add partitions", message);
            return Err(error.with_stream(stream));
        }
        table.create(stream, partitions);
        Ok(())
    }
}
