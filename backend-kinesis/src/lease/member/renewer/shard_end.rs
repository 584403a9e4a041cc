//! Shard end: the leases of the children are created before the end is stored, so a member that stops
//! in the middle leaves no shard that nobody would read.

use std::sync::Arc;

use millstream_core::telemetry::event;
use millstream_core::{Epoch, Error, ErrorKind, Result};

use super::held::{Stage, Write};
use crate::lease::change;
use crate::lease::command::{Reply, respond};
use crate::lease::key::{LeaseKey, Stream};
use crate::lease::member::Member;
use crate::lease::row::{Begin, NewRow, Progress, Row};
use crate::lease::shards::descendants_of;
use crate::lease::source::ShardSource;
use crate::lease::table::Table;
use crate::stream::Shard;

impl Member {
    pub(in crate::lease::member) fn complete(
        &mut self,
        lease: &LeaseKey,
        epoch: Epoch,
        children: Vec<Shard>,
        reply: Reply,
    ) {
        let key = self.streams.key(lease);
        let held = key.as_ref().and_then(|key| self.held.get(key));
        if held.is_some_and(|held| held.epoch == epoch && held.stage == Stage::Ended) {
            return respond(reply, Ok(()));
        }
        let key = self.in_use(lease, epoch);
        let held = key.and_then(|key| Some((key.clone(), self.held.get(&key)?)));
        let stream = self.streams.get(&lease.stream).cloned();
        let (Some((key, held)), Some(stream)) = (held, stream) else {
            return respond(reply, Err(Self::fenced("complete", lease)));
        };
        let preparation = Preparation {
            table: self.table.clone(),
            source: self.options.source.clone(),
            stream,
            row: held.row.clone(),
            shard: lease.shard.clone(),
        };
        // It does not increment the counter, so renewals continue concurrently.
        self.fly(async move {
            let made = preparation.make(children).await;
            move |member: &mut Self| member.prepared(&key, epoch, made, reply)
        });
    }

    fn prepared(&mut self, key: &Arc<str>, epoch: Epoch, made: Result<Children>, reply: Reply) {
        let children = match made {
            Ok(children) => children,
            Err(error) => {
                self.on_table_error(&error);
                if let Some(lease) = self.streams.parse(key) {
                    // A missing lease may be the reason.
                    self.sync(&lease.stream);
                }
                return respond(reply, Err(error));
            }
        };
        if let Some(lease) = self.streams.parse(key) {
            let listed = self.shards.entry(lease.stream).or_default();
            for child in children.shards {
                if !listed.iter().any(|shard| shard.id == child.id) {
                    listed.push(child);
                }
            }
        }
        for row in children.rows {
            self.saw(row);
        }
        let held = self.held.get_mut(key);
        match held.filter(|held| held.epoch == epoch && held.is_in_use()) {
            Some(held) => held.waiting.push_back(Write::Store {
                progress: Progress::End,
                reply,
            }),
            None => {
                if let Some(lease) = self.streams.parse(key) {
                    respond(reply, Err(Self::fenced("complete", &lease)));
                }
            }
        }
    }

    /// Continues after the shard end is stored.
    pub(in crate::lease::member) fn ended(&mut self, key: &Arc<str>) {
        if let Some(held) = self.held.get(key) {
            event!(
                debug, "millstream.kinesis.lease.ended",
                group = %self.options.group, stream = %held.lease.stream,
                partition = %held.lease.shard, epoch = %held.epoch,
                "a shard is read to its end"
            );
            let children = self.keys_of(&held.lease, &held.row.children);
            let mine = |key: &Arc<str>| self.held.contains_key(key) || self.taking.contains(key);
            if !children.iter().all(mine) {
                // The children may begin, and their owners do not know it yet.
                self.nudge_about(children);
            }
        }
        self.look_at_parents();
    }
}

/// The children of a shard, and the leases that were created for them.
struct Children {
    shards: Vec<Shard>,
    rows: Vec<Row>,
}

/// The steps before the shard end can be stored.
struct Preparation {
    table: Table,
    source: Arc<dyn ShardSource>,
    stream: Stream,
    row: Row,
    shard: Arc<str>,
}

impl Preparation {
    /// Creates the leases of the children, and stores the children in the parent's row.
    async fn make(&self, told: Vec<Shard>) -> Result<Children> {
        let children = match told.is_empty() {
            true => self.listed().await?,
            false => told,
        };
        if let Some(stranger) = children
            .iter()
            .find(|child| !child.parents.contains(&self.shard))
        {
            let message = format!("{} does not name this shard as its parent", stranger.id);
            return Err(self.error(ErrorKind::Unavailable, message));
        }
        let mut made = Vec::new();
        for child in &children {
            made.extend(self.make_one(child).await?);
        }
        let ids: Vec<Arc<str>> = children.iter().map(|child| child.id.clone()).collect();
        if !ids.is_empty() {
            let attempt = self
                .table
                .change(&self.row.key, &change::children(&ids))
                .await;
            let attempt = attempt.map_err(|(_, error)| error)?;
            // If the row is gone, the shard end cannot be stored either, which reports the error.
            if attempt.row.is_some_and(|row| row.children.is_empty()) {
                let error = attempt.error;
                return Err(error.unwrap_or_else(|| {
                    self.error(
                        ErrorKind::Unavailable,
                        "its children could not be noted".into(),
                    )
                }));
            }
        }
        Ok(Children {
            shards: children,
            rows: made,
        })
    }

    async fn make_one(&self, child: &Shard) -> Result<Option<Row>> {
        let store = &self.table.store;
        let key = self.stream.key(&child.id);
        if self.table.get(&key).await?.is_some() {
            return Ok(None);
        }
        self.look_at_adjacent(child).await?;
        let begin = match (self.row.progress, self.row.own.start) {
            // No record of the parent was new enough, and the same may hold for the child.
            (Progress::AtTimestamp, Some(time)) => Begin::At {
                time,
                resolved: None,
            },
            _ => Begin::TrimHorizon,
        };
        let row = NewRow {
            shard: child.clone(),
            begin,
        };
        let item = row.item(&self.stream);
        let is_new = store.create(item.clone()).await?;
        Ok(Row::read(&item).ok().filter(|_| is_new))
    }

    /// The child of a merge may only get its lease when both parents have theirs, or it would begin
    /// before the other parent is read.
    async fn look_at_adjacent(&self, child: &Shard) -> Result<()> {
        let others = child.parents.iter().filter(|parent| **parent != self.shard);
        for other in others {
            if self.table.get(&self.stream.key(other)).await?.is_some() {
                continue;
            }
            let shards = self.source.shards(&self.stream.name).await?;
            if shards.iter().any(|shard| shard.id == *other) {
                let message = format!(
                    "{other}, the other parent of {}, has no lease yet",
                    child.id
                );
                return Err(self.error(ErrorKind::Unavailable, message));
            }
        }
        Ok(())
    }

    /// Returns the listed children.
    async fn listed(&self) -> Result<Vec<Shard>> {
        let shards = self.source.shards(&self.stream.name).await?;
        let children: Vec<Shard> = descendants_of(&self.shard, &shards).cloned().collect();
        let is_listed = shards.iter().any(|shard| shard.id == self.shard);
        // A shard that is neither listed nor a listed shard's parent was removed by retention.
        if children.is_empty() && is_listed {
            let message = "no children of the shard are listed: it has not ended yet";
            return Err(self.error(ErrorKind::Unavailable, message.into()));
        }
        Ok(children)
    }

    fn error(&self, kind: ErrorKind, message: String) -> Error {
        let partition = Member::partition(&self.stream.lease(&self.shard));
        Error::new(kind, "complete", message).with_partition(&partition)
    }
}
