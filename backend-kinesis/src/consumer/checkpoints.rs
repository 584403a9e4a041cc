//! The stored progress of a group.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt};
use millstream_core::{Checkpoint, Error, ErrorKind, Lag, Partition, Result, Start, driver};

use super::lag::lag;
use super::source::Source;
use super::table;
use crate::config::LeaseKeys;
use crate::connection::Connection;
use crate::lease::{self, KeyForm, LeaseStore, Reset, ResumePoint, Stored};
use crate::stream::{Shard, describe, shards};

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

    /// Returns the progress in one stream: the stored progress, and the progress that missing leases of shards imply.
    async fn of_stream(&self, name: &str, stored: &[Stored]) -> Result<Vec<Checkpoint>> {
        let described = describe(&self.connection, READ, name).await;
        let listed = match described {
            Ok(info) if stored.iter().all(|stored| stored.is_of(&info)) => {
                shards(&self.connection, READ, name).await
            }
            // Another stream has its name.
            Ok(_) => return Ok(Vec::new()),
            Err(error) => Err(error),
        };
        let shards = match listed {
            // It was deleted; its leases belong to no stream.
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
        let looked = checkpoints
            .into_values()
            .map(async |(mut checkpoint, resume)| {
                if let Some(place) = resume {
                    checkpoint.lag = lag(&self.connection, &checkpoint.partition, &place).await;
                }
                checkpoint
            });
        Ok(stream::iter(looked).buffered(AT_ONCE).collect().await)
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
        let mut streams: HashMap<Arc<str>, Vec<Stored>> = HashMap::new();
        for stored in stored {
            streams
                .entry(stored.lease.stream.clone())
                .or_default()
                .push(stored);
        }
        if streams.contains_key("") {
            let message = "only Java workers have used the lease table so far, and it does not \
                           tell of which stream it is: start a member first";
            return Err(
                Error::new(ErrorKind::Invalid, READ, message).with_group(self.group.clone())
            );
        }
        let mut checkpoints = Vec::new();
        for (name, stored) in &streams {
            checkpoints.extend(self.of_stream(name, stored).await?);
        }
        checkpoints.sort_by(|one, other| one.partition.cmp(&other.partition));
        Ok(checkpoints)
    }

    async fn reset(&self, stream: &str, to: Start) -> Result<()> {
        let store = table::of(&self.connection, &self.group, "reset")?;
        let stored = self.stored(&*store, "reset", stream).await?;
        let keys = match self.connection.config.leases.keys {
            LeaseKeys::Single => KeyForm::Single,
            LeaseKeys::Multi => KeyForm::Multi,
            LeaseKeys::Auto => stored[0].form,
        };
        let source = Source(self.connection.clone());
        let reset = Reset {
            store: &*store,
            source: &source,
            keys,
            failover: self.connection.config.consumer.session_timeout,
            // An owner that drains for longer than the session timeout counts as silent.
            drain: self.connection.config.consumer.session_timeout,
        };
        let reset = reset.run(stream, to).await;
        reset.map_err(|error| error.with_group(self.group.clone()))
    }
}
