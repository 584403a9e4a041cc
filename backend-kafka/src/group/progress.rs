//! The stored offsets of groups.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryFutureExt as _;
use millstream_core::{Error, ErrorKind, Result};
use rdkafka::consumer::Consumer as _;

use crate::cluster::deadline::Deadline;
use crate::connection::RequestClient;
use crate::group::note::Note;
use crate::native::group_offsets::{self, StoredOffset};

impl StoredOffset {
    pub(crate) fn new(topic: &str, partition: i32, next: i64, note: Note) -> Self {
        Self {
            topic: topic.to_owned(),
            partition,
            next,
            metadata: note.to_metadata(),
        }
    }

    pub(crate) fn place(&self) -> (&str, i32) {
        (&self.topic, self.partition)
    }

    /// The last reset that it obeys; 0 if it never obeyed one.
    pub(crate) fn obeyed(&self) -> u64 {
        Note::from_metadata(&self.metadata).reset.unwrap_or(0)
    }
}

/// Reads all offsets that a group has stored; none if there is no such group. `request_client` is one of
/// [`Connection::group_request_client`](crate::connection::Connection::group_request_client).
///
/// A coordinator that moves, or is only being chosen, is waited for.
pub(crate) async fn read(
    request_client: &RequestClient,
    operation: &'static str,
    group: &str,
    timeout: Duration,
) -> Result<Vec<StoredOffset>> {
    let deadline = Deadline::after(timeout);
    let read = deadline.until(|left| {
        let name = group.to_owned();
        let read = request_client.ask(operation, move |client| {
            group_offsets::read(client.client(), &name, left)
        });
        read.map_ok(Some)
    });
    let read = read.await.map_err(|e| e.with_group(group))?;
    read.ok_or_else(|| silent(request_client, operation, group))
}

/// Stores offsets of a group that has no members. `Fenced` if it has.
///
/// A coordinator that moves, or is only being chosen, is waited for.
pub(crate) async fn store(
    request_client: &RequestClient,
    operation: &'static str,
    group: &str,
    offsets: Vec<StoredOffset>,
    timeout: Duration,
) -> Result<()> {
    let (deadline, offsets) = (Deadline::after(timeout), Arc::new(offsets));
    let stored = deadline.until(|left| {
        let (name, offsets) = (group.to_owned(), offsets.clone());
        let stored = request_client.ask(operation, move |client| {
            group_offsets::store(client.client(), &name, &offsets, left)
        });
        stored.map_ok(Some)
    });
    let stored = stored.await.map_err(|e| e.with_group(group))?;
    stored.ok_or_else(|| silent(request_client, operation, group))
}

fn silent(request_client: &RequestClient, operation: &'static str, group: &str) -> Error {
    let reason = request_client.recent_error();
    let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
    let message = format!("the group's coordinator does not answer{reason}");
    Error::new(ErrorKind::Timeout, operation, message).with_group(group)
}
