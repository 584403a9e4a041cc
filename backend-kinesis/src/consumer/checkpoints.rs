//! The stored progress of a group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt};
use millstream_core::{Checkpoint, Error, ErrorKind, Lag, Partition, Result, Start, driver};

use super::lag::lag;
use super::shard_source::KinesisShardSource;
use super::table;
use crate::connection::Connection;
use crate::lease::{self, LeaseStore, Reset, ResumePoint, Stored};
use crate::stream::{Shard, StreamInfo, describe, shards};

const READ: &str = "read checkpoints";

/// The number of shards whose lag is read concurrently.
const AT_ONCE: usize = 8;

/// The progress of one group.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    connection: Arc<Connection>,
    group: Arc<str>,
}

impl Checkpoints {
    pub(crate) fn new(connection: &Arc<Connection>, group: &str) -> Self {
        Self {
            connection: connection.clone(),
            group: group.into(),
        }
    }

    fn unknown(&self, operation: &'static str) -> Error {
        let message = "no member ever joined the group: its lease table has no leases";
        Error::new(ErrorKind::NotFound, operation, message).with_group(self.group.clone())
    }

    /// Returns the leases, at least one.
    async fn stored(
        &self,
        store: &dyn LeaseStore,
        operation: &'static str,
        otherwise: &str,
    ) -> Result<Vec<Stored>> {
        match lease::read(store, otherwise).await {
            Ok(stored) if !stored.is_empty() => Ok(stored),
            Ok(_) => Err(self.unknown(operation)),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(self.unknown(operation)),
            Err(error) => Err(error.with_group(self.group.clone())),
        }
    }

    /// Describes the stream of the leases: by its name, or, if that is no stream of this account or another one, by its
    /// ARN. `None` if it was deleted; its leases then belong to no stream.
    async fn stream_of(&self, stored: &[Stored]) -> Result<Option<StreamInfo>> {
        let is_of = |info: &StreamInfo| stored.iter().all(|stored| stored.is_of(info));
        let Stored { lease, arn, .. } = &stored[0];
        let by_name = match describe(&self.connection, READ, &lease.stream).await {
            Ok(info) if is_of(&info) => return Ok(Some(info)),
            Ok(info) if arn.as_ref() == Some(&info.arn) => return Ok(None),
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Denied) => {
                return Err(error);
            }
            by_name => by_name,
        };
        let described = match arn {
            Some(arn) => describe(&self.connection, READ, arn).await,
            None => by_name,
        };
        match described {
            Ok(info) => Ok(Some(info).filter(is_of)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the progress in one stream: the stored progress, and the progress that missing leases of shards imply.
    async fn of_stream(&self, stored: &[Stored]) -> Result<Vec<Checkpoint>> {
        let Some(info) = self.stream_of(stored).await? else {
            return Ok(Vec::new());
        };
        let name = &*info.name;
        let shards = match shards(&self.connection, READ, name).await {
            // It was deleted since.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            shards => shards?,
        };
        let begun: BTreeSet<&str> = stored.iter().map(|s| &*s.lease.shard).collect();
        let mut checkpoints: BTreeMap<Partition, (Checkpoint, Option<ResumePoint>)> =
            BTreeMap::new();
        for stored in stored {
            let partition = Partition::new(name, stored.lease.shard.to_string());
            let checkpoint = Checkpoint {
                partition: partition.clone(),
                position: match stored.resume {
                    Some(ResumePoint::After(position)) => Some(position),
                    _ => None,
                },
                epoch: stored.epoch,
                completed: stored.resume.is_none(),
                lag: Lag::default(),
            };
            checkpoints.insert(partition, (checkpoint, stored.resume.clone()));
        }
        for shard in &shards {
            if begun.contains(&*shard.id) || !is_cleaned_up(shard, &shards, &begun) {
                continue;
            }
            let partition = Partition::new(name, shard.id.to_string());
            let checkpoint = Checkpoint {
                partition: partition.clone(),
                position: None,
                epoch: None,
                completed: true,
                lag: Lag::default(),
            };
            checkpoints.insert(partition, (checkpoint, None));
        }
        let with_lags = checkpoints
            .into_values()
            .map(async |(mut checkpoint, resume)| {
                if let Some(resume) = resume {
                    checkpoint.lag = lag(&self.connection, &checkpoint.partition, &resume).await;
                }
                checkpoint
            });
        Ok(stream::iter(with_lags).buffered(AT_ONCE).collect().await)
    }
}

/// Returns whether a shard without a lease was read to shard end: its lease was deleted when those of its
/// descendants had begun.
fn is_cleaned_up(shard: &Shard, shards: &[Shard], begun: &BTreeSet<&str>) -> bool {
    let mut children = shards.iter().filter(|s| s.parents.contains(&shard.id));
    !shard.open
        && children.any(|child| begun.contains(&*child.id) || is_cleaned_up(child, shards, begun))
}

#[async_trait]
impl driver::Checkpoints for Checkpoints {
    async fn read(&self) -> Result<Vec<Checkpoint>> {
        let store = table::of(&self.connection, &self.group, READ)?;
        let stored = self.stored(&*store, READ, "").await?;
        if stored.iter().any(|stored| stored.lease.stream.is_empty()) {
            let message = "only Java workers have used the lease table so far, and it does not \
                           name its stream: start a member first";
            return Err(
                Error::new(ErrorKind::Invalid, READ, message).with_group(self.group.clone())
            );
        }
        // Streams of two accounts may have the same name.
        let mut streams: BTreeMap<&str, Vec<Stored>> = BTreeMap::new();
        for stored in &stored {
            let stream = streams.entry(stored.identifier()).or_default();
            stream.push(stored.clone());
        }
        let mut checkpoints = Vec::new();
        for stored in streams.values() {
            checkpoints.extend(self.of_stream(stored).await?);
        }
        checkpoints.sort_by(|one, other| one.partition.cmp(&other.partition));
        Ok(checkpoints)
    }

    async fn reset(&self, stream: &str, to: Start) -> Result<()> {
        let store = table::of(&self.connection, &self.group, "reset")?;
        // There must be a group to be moved.
        self.stored(&*store, "reset", stream).await?;
        let source = KinesisShardSource(self.connection.clone());
        let reset = Reset {
            store: &*store,
            source: &source,
            keys: self.connection.config.leases.keys,
            failover: self.connection.config.consumer.session_timeout,
            // An owner that drains for longer than the session timeout counts as silent.
            drain: self.connection.config.consumer.session_timeout,
        };
        let reset = reset.run(stream, to).await;
        reset.map_err(|error| error.with_group(self.group.clone()))
    }
}

#[cfg(test)]
mod tests {
    use millstream_core::driver::Checkpoints as _;

    use super::*;
    use crate::fake_service::{ARN, FakeService};

    #[tokio::test]
    async fn progress_in_a_stream_of_another_account_is_found_by_its_arn() {
        let service = FakeService::start().await;
        let connection = Connection::open(service.config()).await.unwrap();
        let checkpoints = Checkpoints::new(&Arc::new(connection), "group");
        let read = checkpoints.read().await.unwrap();
        let [checkpoint] = &read[..] else {
            panic!("not one: {read:?}");
        };
        let shard = Partition::new(ARN, "shardId-000000000000");
        assert_eq!(checkpoint.partition, shard);
        assert_eq!(checkpoint.lag.records, Some(0));
    }
}
