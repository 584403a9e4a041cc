//! A group's stored progress, for whoever is no member of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream::{Epoch, Error, ErrorKind, Result, Start};

use super::birth;
use super::change;
use super::key::{KeyForm, LeaseKey, Stream, Streams};
use super::options::ResumePoint;
use super::row::{Begin, Row};
use super::shards::{Plan, begin};
use super::source::ShardSource;
use super::store::{LeaseStore, Outcome};
use crate::connection::ask;
use crate::stream::Shard;

/// How long requests are tried again.
const PATIENCE: Duration = Duration::from_secs(30);

/// The progress in one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) lease: LeaseKey,
    /// How its key is written.
    pub(crate) form: KeyForm,
    /// Where an owner would go on; none where all is settled.
    pub(crate) resume: Option<ResumePoint>,
    /// That of the last take by one of us; unset if only Java workers had it.
    pub(crate) epoch: Option<Epoch>,
}

/// Reads the progress in all shards that have a lease, in the order of streams and shards.
/// `NotFound` if there is no table.
///
/// A table of one stream that only Java workers have used does not tell the stream's name; its
/// leases are said to be of `otherwise`.
pub(crate) async fn read(store: &dyn LeaseStore, otherwise: &str) -> Result<Vec<Stored>> {
    let items = ask("read checkpoints", PATIENCE, || store.scan(true)).await?;
    let rows: Vec<Row> = items.iter().flat_map(Row::read).collect();
    let named = |row: &Row| {
        let arn = row.own.stream.as_ref().map(|(arn, _)| arn.clone())?;
        arn.rsplit_once('/').map(|(_, name)| Arc::from(name))
    };
    let single = rows.iter().find_map(named);
    let single: Arc<str> = single.unwrap_or_else(|| otherwise.into());
    let mut stored: Vec<Stored> = rows
        .into_iter()
        .map(|row| Stored {
            lease: LeaseKey::read(&row.key, &single),
            form: KeyForm::of(&row.key),
            resume: ResumePoint::of(&row, Start::Earliest),
            epoch: row.own.epoch,
        })
        .collect();
    stored.sort_by(|one, other| one.lease.cmp(&other.lease));
    Ok(stored)
}

/// Moves the group to another place in a stream, also while members run: they lose their leases and
/// take them again. Returns when the new place is stored.
pub(crate) async fn reset(
    store: &dyn LeaseStore,
    source: &dyn ShardSource,
    keys: KeyForm,
    stream: &str,
    to: Start,
) -> Result<()> {
    let info = ask("reset", PATIENCE, || source.info(stream)).await?;
    let streams = Streams::new(keys, std::slice::from_ref(&info))?;
    let items = ask("reset", PATIENCE, || store.scan(true)).await?;
    let rows: Vec<Row> = items.iter().flat_map(Row::read).collect();
    birth::identify(&streams, keys, &rows)?;
    let rows: BTreeMap<Arc<str>, Row> =
        rows.into_iter().map(|row| (row.key.clone(), row)).collect();
    let mut shards = ask("reset", PATIENCE, || source.shards(stream)).await?;
    // The oldest first: a child that is reset waits for parents that are already.
    shards.sort_by(|one, other| (one.starting, &one.id).cmp(&(other.starting, &other.id)));
    for stream in streams.iter() {
        for shard in &shards {
            let row = rows.get(&stream.key(&shard.id));
            let closed = to == Start::Latest && !shard.open;
            if closed && row.is_none() {
                continue;
            }
            let begin = match closed {
                true => None,
                false => {
                    let plan = Plan {
                        shard: shard.clone(),
                        begin: to,
                    };
                    let new = || begin(source, stream, plan.clone());
                    Some(ask("reset", PATIENCE, new).await?)
                }
            };
            match begin {
                Some(new) => {
                    let item = new.item(stream);
                    let create = || store.create(item.clone());
                    let is_new = row.is_none() && ask("reset", PATIENCE, create).await?;
                    if !is_new {
                        move_row(store, stream, shard, Some(&new.begin)).await?;
                    }
                }
                None => move_row(store, stream, shard, None).await?,
            }
        }
    }
    Ok(())
}

/// Moves one lease, whatever its owner does at the same time.
async fn move_row(
    store: &dyn LeaseStore,
    stream: &Stream,
    shard: &Shard,
    to: Option<&Begin>,
) -> Result<()> {
    let key = stream.key(&shard.id);
    let contested = || {
        let message = format!("the lease {key} changes all the time");
        Error::new(ErrorKind::Unavailable, "reset", message)
    };
    let attempt = || async {
        let Some(item) = store.get(&key).await? else {
            // Deleted by a cleanup meanwhile: it was read to its end, so it stays that way.
            return Ok(());
        };
        let row = Row::read(&item).map_err(|_| {
            let message = format!("the lease {key} cannot be understood");
            Error::new(ErrorKind::Corrupt, "reset", message)
        })?;
        match store.update(&key, &change::reset(&row, to)).await? {
            Outcome::Applied(_) | Outcome::Refused(None) => Ok(()),
            // The owner has renewed it meanwhile.
            Outcome::Refused(Some(_)) => Err(contested()),
        }
    };
    ask("reset", PATIENCE, attempt).await
}
