//! Lease cleanup: deletes leases of shards at shard end.
//!
//! A lease must stay as long as something depends on it: its children, until each has begun, and
//! its children's leases, whose parents are checked. So the oldest generation is deleted first.

use std::sync::Arc;

use millstream_core::Result;

use super::key::{LeaseKey, Stream};
use super::row::new::string;
use super::row::{Progress, Row, names};
use super::shards::descendants_of;
use super::source::ShardSource;
use super::store::{Condition, LeaseStore};

/// Deletes the lease of a shard at shard end, if it is no longer needed.
pub(crate) async fn clean(
    store: &dyn LeaseStore,
    source: &dyn ShardSource,
    stream: &Stream,
    lease: &LeaseKey,
    row: &Row,
    me: &str,
) -> Result<bool> {
    if !is_needless(store, source, stream, lease, row).await? {
        return Ok(false);
    }
    // Another process may have moved the group to another position meanwhile.
    let given = [
        Condition::Is(names::OWNER, string(me)),
        Condition::Is(names::CHECKPOINT, string(names::SHARD_END)),
    ];
    store.delete(&row.key, &given).await
}

async fn is_needless(
    store: &dyn LeaseStore,
    source: &dyn ShardSource,
    stream: &Stream,
    lease: &LeaseKey,
    row: &Row,
) -> Result<bool> {
    let read = async |shard: &Arc<str>| -> Result<Option<Row>> {
        let item = store.get(&stream.key(shard)).await?;
        Ok(item.and_then(|item| Row::read(&item).ok()))
    };
    for parent in &row.parents {
        if read(parent).await?.is_some() {
            return Ok(false);
        }
    }
    let mut children = row.children.clone();
    if children.is_empty() {
        let shards = source.shards(&stream.name).await?;
        children = descendants_of(&lease.shard, &shards)
            .map(|child| child.id.clone())
            .collect();
        if children.is_empty() {
            // Removed by retention, with all its descendants.
            return Ok(!shards.iter().any(|shard| shard.id == lease.shard));
        }
    }
    let mut missing = false;
    for child in &children {
        match read(child).await? {
            Some(child) if has_begun(&child) => {}
            Some(_) => return Ok(false),
            None => missing = true,
        }
    }
    if !missing {
        return Ok(true);
    }
    // A shard that retention has removed leaves nothing to wait for.
    let shards = source.shards(&stream.name).await?;
    let listed = |id: &Arc<str>| shards.iter().any(|shard| shard.id == *id);
    Ok(!listed(&lease.shard) && !children.iter().any(listed))
}

fn has_begun(row: &Row) -> bool {
    !matches!(row.progress, Progress::TrimHorizon | Progress::AtTimestamp)
}
