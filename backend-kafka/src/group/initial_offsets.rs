//! The offsets at which a new group begins in a stream, stored before its first member reads.
//!
//! A group is new on a stream for which it has not stored any offset. Partitions that are added to
//! a stream later have no offset either. They are read from their beginning, and nothing is stored here.
//!
//! Two members may be the first at the same time, and Kafka stores offsets without a compare-and-set.
//! No records are lost:
//!
//! * Each member computes the offsets, then checks (again) whether some are stored, and stores its own in the
//!   next request. So offsets are never later than the call of `join` for which they are stored.
//! * While no member has joined, no `join` has returned, and it does not matter whose offsets remain.
//! * As soon as one has joined, the broker refuses offsets from everybody who is not a member. A late
//!   caller checks again, and finds the offsets that the first has stored.
//!
//! One case remains: a member joins, settles records and leaves between the check and the next request of
//! another one, some milliseconds. The group then continues from the stored offsets.
//!
//! A partition without a leader has no offset, because no broker can be asked for its offsets. Nothing is stored for
//! it, so it is read from its beginning, with an event: rather too many records than too few.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use millstream_core::telemetry::event;
use millstream_core::{Error, ErrorKind, Result, Start};

use crate::cluster::deadline::Deadline;
use crate::cluster::topics;
use crate::connection::Connection;
use crate::group::group_offsets::GroupOffsets;
use crate::group::note::Note;
use crate::group::start_offsets::start_offsets;
use crate::native::group_offsets::StoredOffset;

const JOIN: &str = "join";

/// Stores the offsets at which `group` begins in those of `streams` that are new to it.
///
/// Returns the offsets that only a member may store: the group already has members, and none of them has read
/// the stream before. The caller stores them as soon as it is a member, unless another one has.
///
/// `NotFound` and `Denied` name stream and group. A dropped call has stored them or not.
pub(crate) async fn resolve(
    connection: &Arc<Connection>,
    group: &str,
    streams: &[Arc<str>],
    start: Start,
) -> Result<Vec<StoredOffset>> {
    let deadline = Deadline::after(connection.config.request_timeout);
    for stream in streams {
        check_topic(connection, group, stream).await?;
    }
    let of_group = GroupOffsets::new(connection, JOIN, group);
    let there = of_group.read(deadline.left()).await?;
    let is_new = |stream: &&Arc<str>| there.iter().all(|there| there.topic != ***stream);
    let mut begin = Vec::new();
    for stream in streams.iter().filter(is_new) {
        let places = start_offsets(connection, JOIN, stream, start).await;
        let places = places.map_err(|e| e.with_group(group))?;
        for (partition, next) in (0..).zip(places) {
            match next {
                Some(next) => {
                    begin.push(StoredOffset::new(stream, partition, next, Note::default()));
                }
                None if start == Start::Earliest => {}
                None => event!(
                    warn, "millstream.kafka.group.begins_early", group, stream = &**stream,
                    partition, start = ?start,
                    "partition {partition} of stream {stream} has no leader that knows where {start:?} \
                     is: group {group} begins at its beginning",
                ),
            }
        }
    }
    let begin = &begin[..];
    let stored = deadline.until(|time| store(&of_group, begin, time));
    let stored = stored.await.map_err(|e| e.with_group(group))?;
    let left = stored.map(|stored| {
        for stream in &stored.new_streams {
            event!(
                info, "millstream.kafka.group.begins", group, stream = &**stream, start = ?start,
                "group {group} has no progress in stream {stream} and begins at {start:?}: it is new \
                 there, or its progress was deleted with an earlier stream of that name or has expired",
            );
        }
        stored.left
    });
    left.ok_or_else(|| {
        let message = "the group's coordinator does not know the topic yet: try again";
        let error = Error::new(ErrorKind::Unavailable, JOIN, message).with_group(group);
        match begin.first() {
            Some(first) => error.with_stream(&*first.topic),
            None => error,
        }
    })
}

/// Fails if there is no such topic, or if this client is not permitted to know.
async fn check_topic(connection: &Connection, group: &str, stream: &Arc<str>) -> Result<()> {
    let (topic, timeout) = (stream.clone(), connection.config.request_timeout);
    let found = connection
        .request_client
        .ask(JOIN, move |client| topics::look_up(client, &topic, timeout));
    let found = found.await.and_then(|found| {
        let unknown = || Error::new(ErrorKind::NotFound, JOIN, "no such topic");
        found.ok_or_else(unknown)
    });
    let named = |error: Error| error.with_stream(stream.clone()).with_group(group);
    found.map(drop).map_err(named)
}

/// The result of storing the offsets at which a group begins.
struct Stored {
    /// The streams that are new to the group.
    new_streams: BTreeSet<String>,
    /// The offsets that only a member may store.
    left: Vec<StoredOffset>,
}

impl Stored {
    fn new(missing: &[StoredOffset], left: Vec<StoredOffset>) -> Self {
        let new_streams = missing.iter().map(|place| place.topic.clone()).collect();
        Self { new_streams, left }
    }
}

/// Stores the missing offsets. Returns `None` if the call must be repeated.
async fn store(
    of_group: &GroupOffsets,
    begin: &[StoredOffset],
    time: Duration,
) -> Result<Option<Stored>> {
    let there = of_group.read(time).await?;
    let missing = missing(begin, &there);
    if missing.is_empty() {
        return Ok(Some(Stored::new(&[], missing)));
    }
    match of_group.store(missing.clone(), time).await {
        Ok(()) => Ok(Some(Stored::new(&missing, Vec::new()))),
        // The group has members that were faster, or that read other streams.
        Err(error) if error.kind() == ErrorKind::Fenced => {
            let there = of_group.read(time).await?;
            let left = self::missing(begin, &there);
            Ok(Some(Stored::new(&left.clone(), left)))
        }
        // Each broker learns of a topic at its own time. The broker that was asked for it has.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the offsets of streams that have no stored offset.
fn missing(begin: &[StoredOffset], there: &[StoredOffset]) -> Vec<StoredOffset> {
    let known: HashSet<&str> = there.iter().map(|there| &*there.topic).collect();
    let missing = begin.iter().filter(|place| !known.contains(&*place.topic));
    missing.cloned().collect()
}
