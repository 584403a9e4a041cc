//! The preparation before a member's first scan: a table that can be shared, and initial leases whose start
//! is pinned.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_core::{Error, ErrorKind, Result};

use super::key::{KeyForm, Stream};
use super::options::WorkerOptions;
use super::row::{self, Progress, Row, Unread};
use super::shards::{self, first_hole, known};
use super::store::{Item, LeaseStore};
use super::streams::Streams;
use crate::config::LeaseKeys;
use crate::connection::retry;
use crate::stream::{Shard, StreamInfo};

/// How long requests are retried before a join fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// The initial state of a member.
#[derive(Debug)]
pub(super) struct Bootstrap {
    pub(super) streams: Streams,
    pub(super) items: Vec<Item>,
    pub(super) shards: HashMap<Arc<str>, Vec<Shard>>,
}

/// Prepares everything that a member needs. When it returns, each stream has its initial leases, and records that
/// are sent from now on are read.
pub(super) async fn prepare(options: &WorkerOptions) -> Result<Bootstrap> {
    let (store, source) = (&*options.store, &*options.source);
    store.open().await?;
    retry("join", PATIENCE, || refuse_native(store)).await?;
    let mut items = retry("join", PATIENCE, || store.scan(true)).await?;
    let rows = leases(&items);
    let streams = Streams::new(options.keys, &options.streams, &rows)?;
    identify(&streams, options.keys, &rows)?;
    refuse_damaged(&streams, &items)?;
    let mut listed = HashMap::new();
    let mut created = false;
    for stream in streams.iter() {
        let rows = of_stream(&streams, stream, &items);
        if rows.iter().any(Row::is_anonymous) {
            let shards = retry("join", PATIENCE, || source.shards(&stream.name)).await?;
            refuse_foreign(stream, &rows, &shards)?;
        }
        // A member that stopped during the first shard sync has left a hole.
        if !is_whole(&rows) || rows.is_empty() {
            let known = known(stream, &rows);
            let sync = || shards::sync(store, source, stream, &known, options.start);
            let made = retry("join", PATIENCE, sync).await?;
            created |= !made.rows.is_empty();
            listed.insert(stream.name.clone(), made.shards);
        } else if let Ok(shards) = source.shards(&stream.name).await {
            listed.insert(stream.name.clone(), shards);
        }
    }
    if created {
        items = retry("join", PATIENCE, || store.scan(true)).await?;
        // A member with other streams may have made leases of another format at the same time.
        Streams::new(options.keys, &options.streams, &leases(&items))?;
    }
    Ok(Bootstrap {
        streams,
        items,
        shards: listed,
    })
}

fn leases(items: &[Item]) -> Vec<Row> {
    items.iter().flat_map(Row::read).collect()
}

fn of_stream(streams: &Streams, stream: &Stream, items: &[Item]) -> Vec<Row> {
    let mut rows = leases(items);
    rows.retain(|row| {
        let lease = streams.parse(&row.key);
        lease.is_some_and(|lease| lease.stream == stream.name)
    });
    rows
}

/// Returns whether the leases cover all hash keys, as far as their ranges are known.
fn is_whole(rows: &[Row]) -> bool {
    let unread: Vec<&Row> = rows.iter().filter(|row| !row.is_ended()).collect();
    let ranges: Option<Vec<_>> = unread.iter().map(|row| row.range).collect();
    ranges.is_none_or(|ranges| first_hole(ranges).is_none())
}

/// Rejects a table in which Java workers use the protocol of the KCL 3.x: there a leader assigns the
/// leases, and a worker that takes some works against it.
pub(super) async fn refuse_native(store: &dyn LeaseStore) -> Result<()> {
    let native = ["CLIENT_VERSION_3X", "CLIENT_VERSION_3X_WITH_ROLLBACK"];
    match store.client_version().await? {
        Some(version) if native.contains(&version.as_str()) => {
            let message = format!(
                "Java workers share the table {} by the KCL's native 3.x protocol ({version}): \
                 run them with CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X_PHASE1 after the KCL's \
                 rollback script, or stop them all and delete the item Migration3.0",
                store.table()
            );
            Err(Error::new(ErrorKind::Unsupported, "join", message))
        }
        _ => Ok(()),
    }
}

/// Rejects a table whose leases are of other streams, or of a stream that was deleted and recreated:
/// their checkpoints mean nothing here.
pub(super) fn identify(streams: &Streams, keys: LeaseKeys, rows: &[Row]) -> Result<()> {
    let wrong = |message: String| Err(Error::new(ErrorKind::Invalid, "join", message));
    for row in rows {
        let other = match (keys, KeyForm::of(&row.key)) {
            (LeaseKeys::Single, KeyForm::Multi) => Some("several streams"),
            (LeaseKeys::Multi, KeyForm::Single) => Some("one stream"),
            _ => None,
        };
        if let Some(has) = other {
            return wrong(format!(
                "the table holds leases as the KCL writes them for {has} ({}): set `leases.keys` \
                 to \"auto\", which leaves them as they are, or name another table",
                row.key
            ));
        }
        let is_before = |stream: &&Stream| stream.is_namesake(&row.key) || stream.has_arn_of(row);
        let stream = match streams.parse(&row.key) {
            Some(lease) => streams.get(&lease.stream),
            None => streams.iter().find(is_before),
        };
        let Some(stream) = stream else {
            continue;
        };
        let is_same = streams.parse(&row.key).is_some()
            && row
                .own
                .stream
                .as_ref()
                .is_none_or(|(arn, created)| *arn == stream.arn && *created == stream.created);
        if !is_same {
            return wrong(format!(
                "the lease {} is of another stream than {}, or of one of that name that was \
                 deleted since: delete the table, or name another",
                row.key, stream.arn
            ));
        }
    }
    Ok(())
}

/// Rejects the leases that Java workers have made for another stream under the same name of a table: whoever
/// continued at their checkpoints would skip records. `shards` are all of the stream.
pub(super) fn refuse_foreign(stream: &Stream, rows: &[Row], shards: &[Shard]) -> Result<()> {
    let shards: HashMap<&str, &Shard> = shards.iter().map(|shard| (&*shard.id, shard)).collect();
    let mut ended = None;
    let mut is_certain = false;
    for row in rows.iter().filter(|row| row.is_anonymous()) {
        let Some(shard) = shards.get(&*row.key) else {
            // Retention has removed it.
            continue;
        };
        match row.progress {
            Progress::After(position) if shard.may_have(position) => is_certain = true,
            Progress::After(position) => {
                let reason = format!("its checkpoint {position} is of no record of that shard");
                return Err(foreign(stream, row, &reason));
            }
            Progress::End if shard.open => ended = ended.or(Some(row)),
            _ => {}
        }
    }
    // A shard that has just ended may be listed as open for a moment.
    match ended.filter(|_| !is_certain) {
        Some(row) => Err(foreign(stream, row, "it was read to its end, and is open")),
        None => Ok(()),
    }
}

fn foreign(stream: &Stream, row: &Row, reason: &str) -> Error {
    let message = format!(
        "Java workers have made the lease {} for another stream than {}: {reason}. Name another table by \
         `leases.table`, or choose another name for the group",
        row.key, stream.arn
    );
    Error::new(ErrorKind::Invalid, "join", message).with_stream(stream.name.clone())
}

/// Rejects a table with a lease of one of the streams that cannot be parsed: no member would ever read its shard.
pub(super) fn refuse_damaged(streams: &Streams, items: &[Item]) -> Result<()> {
    for item in items {
        let (Err(Unread::Lacks(attribute)), Some(key)) = (Row::read(item), row::key(item)) else {
            continue;
        };
        let lease = streams.parse(key);
        // Other rows without a usable attribute are none of leases.
        if lease.is_some_and(|lease| lease.shard.starts_with("shardId-")) {
            let message = format!(
                "the lease {key} has no usable attribute {attribute}, so that nobody would read its shard: restore \
                 the attribute, or delete the row to have the shard read from the group's start"
            );
            return Err(Error::new(ErrorKind::Invalid, "join", message));
        }
    }
    Ok(())
}

/// Rejects a stream that was deleted and recreated.
pub(super) fn same_stream(stream: &Stream, info: &StreamInfo) -> Result<()> {
    let now = Stream::new(stream.form(), info)?;
    if now.arn == stream.arn && now.created == stream.created {
        return Ok(());
    }
    let message = "the stream was deleted and created again: its leases are of the one before";
    Err(Error::new(ErrorKind::Invalid, "lease", message).with_stream(stream.name.clone()))
}
