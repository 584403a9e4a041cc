//! The administration of streams.

mod ends;
mod reshard;
mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use aws_sdk_kinesis::error::ProvideErrorMetadata;
use aws_sdk_kinesis::types::{self, StreamModeDetails};
use futures_util::{StreamExt, TryStreamExt, stream};
use millstream::{
    Error, ErrorKind, Partition, PartitionDescription, Result, StreamDescription, StreamSpec,
    driver,
};

use crate::config::StreamMode;
use crate::connection::Connection;
use crate::error;
use crate::stream::{self as listed, Shard};

/// The longest name that [Kinesis takes].
///
/// [Kinesis takes]: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_CreateStream.html
const NAME_LONGEST: usize = 128;

/// How many shards are looked into at once. More would meet the limits of the account.
const LOOKS: usize = 8;

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
}

#[async_trait]
impl driver::Streams for Streams {
    async fn create(&self, spec: &StreamSpec) -> Result<()> {
        const CREATE: &str = "create stream";
        let name = &*spec.name;
        let invalid = |message| Error::new(ErrorKind::Invalid, CREATE, message).with_stream(name);
        if name.len() > NAME_LONGEST {
            let message = format!("a name of {} bytes: use 1 to {NAME_LONGEST}", name.len());
            return Err(invalid(message));
        }
        let shards = i32::try_from(spec.partitions).map_err(|_| {
            invalid(format!(
                "{} shards are more than Kinesis takes",
                spec.partitions
            ))
        })?;
        // So that a repeat of a request whose answer was lost is not taken for somebody else's.
        match listed::describe(&self.connection, CREATE, name).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(already_exists(CREATE, name)),
        }
        let settings = &self.connection.config.streams;
        let (mode, shards) = match settings.mode {
            StreamMode::Provisioned => (types::StreamMode::Provisioned, Some(shards)),
            StreamMode::OnDemand => (types::StreamMode::OnDemand, None),
        };
        let mode = StreamModeDetails::builder().stream_mode(mode).build();
        let mode = mode.map_err(|e| invalid(e.to_string()))?;
        let tags = settings.tags.clone().into_iter().collect();
        let tags = Some(tags).filter(|_| !settings.tags.is_empty());
        let unanswered = AtomicBool::new(false);
        let call = || async {
            let create = self.connection.kinesis.create_stream().stream_name(name);
            let create = create
                .set_shard_count(shards)
                .stream_mode_details(mode.clone())
                .set_tags(tags.clone());
            let Err(error) = create.send().await else {
                return Ok(());
            };
            if error.code() == Some("ResourceInUseException") {
                return match unanswered.load(Ordering::Relaxed) {
                    true => Ok(()),
                    false => Err(already_exists(CREATE, name).with_source(error)),
                };
            }
            let error = error::of(CREATE, error).with_stream(name);
            if error.is_retryable() && error.kind() != ErrorKind::Throttled {
                unanswered.store(true, Ordering::Relaxed);
            }
            Err(error)
        };
        self.connection.ask(CREATE, call).await?;
        state::until_active(&self.connection, CREATE, name).await
    }

    async fn list(&self) -> Result<Vec<String>> {
        const LIST: &str = "list streams";
        let mut names: Vec<String> = Vec::new();
        loop {
            let call = || async {
                let list = self.connection.kinesis.list_streams();
                let list = list.set_exclusive_start_stream_name(names.last().cloned());
                list.send().await.map_err(|e| error::of(LIST, e))
            };
            let answer = self.connection.ask(LIST, call).await?;
            let is_done = !answer.has_more_streams || answer.stream_names.is_empty();
            names.extend(answer.stream_names);
            if is_done {
                names.sort_unstable();
                return Ok(names);
            }
        }
    }

    /// Looks into each shard for its first and its last record: some requests to each, out of the
    /// five a second that its readers share.
    async fn describe(&self, stream: &str) -> Result<StreamDescription> {
        const DESCRIBE: &str = "describe stream";
        let shards = listed::shards(&self.connection, DESCRIBE, stream).await?;
        let name: Arc<str> = stream.into();
        let partition = |id: &Arc<str>| Partition::new(name.clone(), &**id);
        let looks = shards.into_iter().map(|shard: Shard| {
            let this = partition(&shard.id);
            let parents = shard.parents.iter().map(partition).collect();
            async move {
                let ends = match ends::look(&self.connection, DESCRIBE, &this).await {
                    // Its last record went with it, after it was listed.
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
        // Made first: a stream of futures that borrow is not `Send` to the compiler.
        let looks: Vec<_> = looks.collect();
        let partitions = stream::iter(looks).buffered(LOOKS).try_collect();
        Ok(StreamDescription {
            name: stream.to_owned(),
            partitions: partitions.await?,
        })
    }

    async fn delete(&self, stream: &str) -> Result<()> {
        const DELETE: &str = "delete stream";
        let unanswered = AtomicBool::new(false);
        let call = || async {
            let delete = self.connection.kinesis.delete_stream().stream_name(stream);
            // Else a consumer of enhanced fan-out keeps the stream.
            let delete = delete.enforce_consumer_deletion(true);
            let Err(error) = delete.send().await else {
                return Ok(());
            };
            let error = error::of(DELETE, error).with_stream(stream);
            match error.kind() {
                ErrorKind::NotFound if unanswered.load(Ordering::Relaxed) => return Ok(()),
                ErrorKind::Timeout | ErrorKind::Unavailable => {
                    unanswered.store(true, Ordering::Relaxed);
                }
                _ => {}
            }
            Err(error)
        };
        self.connection.ask(DELETE, call).await?;
        state::until_gone(&self.connection, DELETE, stream).await
    }

    async fn split(&self, partition: &Partition) -> Result<()> {
        reshard::split(&self.connection, partition).await
    }

    async fn merge(&self, one: &Partition, other: &Partition) -> Result<()> {
        reshard::merge(&self.connection, one, other).await
    }

    async fn add_partitions(&self, stream: &str, _partitions: usize) -> Result<()> {
        let message = "a Kinesis stream grows by splits: use split, which keeps the order of keys";
        Err(Error::new(ErrorKind::Unsupported, "add partitions", message).with_stream(stream))
    }
}

fn already_exists(operation: &'static str, stream: &str) -> Error {
    let message = "there is a stream of that name";
    Error::new(ErrorKind::AlreadyExists, operation, message).with_stream(stream)
}
