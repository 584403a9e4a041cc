//! A group's stored progress, read by processes that are not members.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_core::{Epoch, Result, Start};

use super::key::{KeyForm, LeaseKey, Stream};
use super::options::ResumePoint;
use super::row::Row;
use super::store::LeaseStore;
use crate::connection::retry;
use crate::stream::{Arn, StreamInfo};

/// How long requests are retried.
const PATIENCE: Duration = Duration::from_secs(30);

/// The stored progress in one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) lease: LeaseKey,
    /// The format of its key.
    form: KeyForm,
    /// Where an owner would continue. `None` if everything is settled.
    pub(crate) resume: Option<ResumePoint>,
    /// The epoch of the last take by a millstream member. `None` if only Java workers had it.
    pub(crate) epoch: Option<Epoch>,
    /// The ARN of its stream, if a row of the stream has it.
    pub(crate) arn: Option<Arc<str>>,
    /// Its key in the table.
    key: Arc<str>,
    /// The stream's ARN and its creation time in seconds since the epoch, if the row has them.
    identity: Option<(Arc<str>, u64)>,
}

impl Stored {
    /// Returns the part of its key that names the stream. Empty in a table of one stream.
    pub(crate) fn identifier(&self) -> &str {
        identifier(&self.key)
    }

    /// Returns whether it belongs to this stream, and not to a deleted stream of the same name. A table of one stream
    /// that only Java workers have used does not show that.
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
/// A table of one stream that only Java workers have used does not contain the stream's name. Its
/// leases are attributed to `otherwise`.
pub(crate) async fn read(store: &dyn LeaseStore, otherwise: &str) -> Result<Vec<Stored>> {
    let items = retry("read checkpoints", PATIENCE, || store.scan(true)).await?;
    let rows: Vec<Row> = items.iter().flat_map(Row::read).collect();
    let mut arns: HashMap<&str, Arc<str>> = HashMap::new();
    for row in &rows {
        if let Some((arn, _)) = &row.own.stream {
            arns.entry(identifier(&row.key))
                .or_insert_with(|| arn.clone());
        }
    }
    let single = arns.get("").and_then(|arn| Arn::parse(arn));
    let single: Arc<str> = single.map_or(otherwise, |arn| arn.name).into();
    let mut stored: Vec<Stored> = rows
        .iter()
        .map(|row| Stored {
            lease: LeaseKey::read(&row.key, &single),
            form: KeyForm::of(&row.key),
            resume: ResumePoint::of(row, Start::Earliest),
            epoch: row.own.epoch,
            arn: arns.get(identifier(&row.key)).cloned(),
            identity: row.own.stream.clone(),
            key: row.key.clone(),
        })
        .collect();
    stored.sort_by(|one, other| one.lease.cmp(&other.lease));
    Ok(stored)
}

/// Returns the part of a key that names the stream.
fn identifier(key: &str) -> &str {
    key.rsplit_once(':').map_or("", |(stream, _)| stream)
}
