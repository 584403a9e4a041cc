//! The administration of streams.

mod create;
mod delete;
mod ends;
mod reshard;
mod state;

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use millstream_core::{
    Error, ErrorKind, Partition, PartitionDescription, Result, StreamDescription, StreamSpec,
    driver,
};
use tokio::time::timeout;

use crate::connection::Connection;
use crate::stream::{self as listed, Shard, check_name};

/// The number of shards that are read concurrently. More would exceed the limits of the account.
const CONCURRENT_SHARDS: usize = 8;

#[derive(Debug)]
pub(crate) struct Streams {
    connection: Arc<Connection>,
}

impl Streams {
    pub(crate) fn new(connection: &Arc<Connection>) -> Self {
        Self {
            connection: connection.clone(),
        }
    }

    /// Checks the name of a stream that exists.
    fn check(&self, operation: &'static str, stream: &str) -> Result<()> {
        check_name(stream, self.connection.region()).map_err(|rule| {
            let message = format!("stream name {stream:?} cannot be used, {rule}");
            Error::new(ErrorKind::Invalid, operation, message)
        })
    }

    /// Limits a change, including everything it waits for, to the timeout of one call.
    async fn in_time(
        &self,
        operation: &'static str,
        stream: &str,
        change: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let within = self.connection.config.request_timeout;
        let done = timeout(within, change).await.unwrap_or_else(|_| {
            let message = format!("it is not done within {within:?}, and may be later");
            Err(Error::new(ErrorKind::Timeout, operation, message))
        });
        done.map_err(|error| match error.stream() {
            None => error.with_stream(stream),
            Some(_) => error,
        })
    }
}

#[async_trait]
impl driver::Streams for Streams {
    async fn create(&self, spec: &StreamSpec) -> Result<()> {
        let created = create::create(&self.connection, spec);
        self.in_time("create stream", &spec.name, created).await
    }

    async fn list(&self) -> Result<Vec<String>> {
        const LIST: &str = "list streams";
        let mut names: Vec<String> = Vec::new();
        loop {
            let call = || async {
                let list = self.connection.kinesis.list_streams();
                let list = list.set_exclusive_start_stream_name(names.last().cloned());
                list.send()
                    .await
                    .map_err(|e| self.connection.error(LIST, e))
            };
            let response = self.connection.retry(LIST, call).await?;
            let is_done = !response.has_more_streams || response.stream_names.is_empty();
            names.extend(response.stream_names);
            if is_done {
                names.sort_unstable();
                return Ok(names);
            }
        }
    }

    /// Reads the first and the last record of each shard: some requests to each, out of the
    /// five per second that its readers share.
    async fn describe(&self, stream: &str) -> Result<StreamDescription> {
        const DESCRIBE: &str = "describe stream";
        self.check(DESCRIBE, stream)?;
        let shards = listed::shards(&self.connection, DESCRIBE, stream).await?;
        let name: Arc<str> = stream.into();
        let partition = |id: &Arc<str>| Partition::new(name.clone(), &**id);
        let descriptions = shards.into_iter().map(|shard: Shard| {
            let this = partition(&shard.id);
            let parents = shard.parents.iter().map(partition).collect();
            async move {
                let ends = match ends::find(&self.connection, DESCRIBE, &this).await {
                    // Its last record was removed with it, after it was listed.
                    Err(error) if error.kind() == ErrorKind::NotFound && !shard.open => None,
                    ends => ends?,
                };
                Ok(PartitionDescription {
                    partition: this,
                    open: shard.open,
                    parents,
                    earliest: ends.map(|ends| ends.earliest),
                    latest: ends.and_then(|ends| ends.latest),
                })
            }
        });
        // Created first: a stream of futures that borrow is not `Send` to the compiler.
        let descriptions: Vec<_> = descriptions.collect();
        let partitions = stream::iter(descriptions)
            .buffered(CONCURRENT_SHARDS)
            .try_collect();
        Ok(StreamDescription {
            name: stream.to_owned(),
            partitions: partitions.await?,
        })
    }

    async fn delete(&self, stream: &str) -> Result<()> {
        self.check("delete stream", stream)?;
        let deleted = delete::delete(&self.connection, stream);
        self.in_time("delete stream", stream, deleted).await
    }

    async fn split(&self, partition: &Partition) -> Result<()> {
        self.check("split", partition.stream())?;
        let split = reshard::split(&self.connection, partition);
        self.in_time("split", partition.stream(), split).await
    }

    async fn merge(&self, one: &Partition, other: &Partition) -> Result<()> {
        self.check("merge", one.stream())?;
        let merged = reshard::merge(&self.connection, one, other);
        self.in_time("merge", one.stream(), merged).await
    }

    async fn add_partitions(&self, stream: &str, _partitions: usize) -> Result<()> {
        let message = "a Kinesis stream grows by splits: use split, which keeps the order of keys";
        Err(Error::new(ErrorKind::Unsupported, "add partitions", message).with_stream(stream))
    }
}
