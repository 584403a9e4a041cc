//! A group's stored progress, for whoever is no member of it.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::{Epoch, Result, Start};

use super::key::{KeyForm, LeaseKey, Stream};
use super::options::ResumePoint;
use super::row::Row;
use super::store::LeaseStore;
use crate::connection::ask;
use crate::stream::StreamInfo;

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
    /// Its key in the table.
    key: Arc<str>,
    /// The stream's ARN and its creation in seconds since the epoch, if the row has them.
    identity: Option<(Arc<str>, u64)>,
}

impl Stored {
    /// Whether it is of this stream, and not of one of its name that was deleted. A table of one stream
    /// that only Java workers have used does not tell.
    pub(crate) fn is_of(&self, info: &StreamInfo) -> bool {
        Stream::new(self.form, info).is_ok_and(|stream| {
            let identity = self.identity.as_ref();
            let is_same = identity.is_none_or(|of| (&of.0, of.1) == (&stream.arn, stream.created));
            is_same && stream.owns(&self.key)
        })
    }
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
            identity: row.own.stream.clone(),
            key: row.key,
        })
        .collect();
    stored.sort_by(|one, other| one.lease.cmp(&other.lease));
    Ok(stored)
}
