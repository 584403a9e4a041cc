//! Shard end: the leases of the children are created before the end is stored, so a member that stops
//! in the middle leaves no shard that nobody would read.

use std::sync::Arc;

use millstream_core::{Error, ErrorKind, Result};

use crate::lease::change;
use crate::lease::key::Stream;
use crate::lease::row::{Begin, NewRow, Progress, Row};
use crate::lease::shards::descendants_of;
use crate::lease::source::ShardSource;
use crate::lease::table::Table;
use crate::stream::Shard;

/// The children of a shard, and the leases that were created for them.
#[derive(Debug)]
pub(super) struct Children {
    pub(super) shards: Vec<Shard>,
    pub(super) rows: Vec<Row>,
}

/// The steps before the shard end can be stored. They do not increment the counter, so renewals continue concurrently.
#[derive(Debug)]
pub(super) struct ShardEnd {
    pub(super) table: Table,
    pub(super) source: Arc<dyn ShardSource>,
    pub(super) stream: Stream,
    pub(super) row: Row,
    pub(super) shard: Arc<str>,
}

impl ShardEnd {
    /// Creates the leases of the children, and stores the children in the parent's row. Without `known` children, they are
    /// looked up.
    pub(super) async fn create_children(&self, known: Vec<Shard>) -> Result<Children> {
        let children = match known.is_empty() {
            true => self.listed_children().await?,
            false => known,
        };
        if let Some(unrelated) = children
            .iter()
            .find(|child| !child.parents.contains(&self.shard))
        {
            let message = format!("{} does not name this shard as its parent", unrelated.id);
            return Err(self.error(ErrorKind::Unavailable, message));
        }
        let mut rows = Vec::new();
        for child in &children {
            rows.extend(self.create_child(child).await?);
        }
        let ids: Vec<Arc<str>> = children.iter().map(|child| child.id.clone()).collect();
        if !ids.is_empty() {
            let update = change::children(&ids);
            let outcome = self.table.change(&self.row.key, &update).await;
            let outcome = outcome.map_err(|(_, error)| error)?;
            // If the row is gone, the shard end cannot be stored either, which reports the error.
            if outcome.row.is_some_and(|row| row.children.is_empty()) {
                let error = outcome.error;
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
            rows,
        })
    }

    async fn create_child(&self, child: &Shard) -> Result<Option<Row>> {
        let store = &self.table.store;
        let key = self.stream.key(&child.id);
        if self.table.get(&key).await?.is_some() {
            return Ok(None);
        }
        self.check_other_parents(child).await?;
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
    async fn check_other_parents(&self, child: &Shard) -> Result<()> {
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
    async fn listed_children(&self) -> Result<Vec<Shard>> {
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
        let lease = self.stream.lease(&self.shard);
        Error::new(kind, "complete", message).with_partition(&lease.partition())
    }
}
