//! The stored offsets of groups.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryFutureExt as _;
use millstream_core::{Error, ErrorKind, Result};

use crate::cluster::deadline::Deadline;
use crate::connection::{Connection, RequestClient};
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

    /// Returns the last reset that was applied; 0 if there was none.
    pub(crate) fn obeyed(&self) -> u64 {
        Note::from_metadata(&self.metadata).reset.unwrap_or(0)
    }
}

/// Reads and stores the offsets of one group without being a member.
#[derive(Debug, Clone)]
pub(crate) struct GroupOffsets {
    request_client: Arc<RequestClient>,
    operation: &'static str,
    group: Arc<str>,
}

impl GroupOffsets {
    /// `operation` is the operation in errors.
    pub(crate) fn new(connection: &Connection, operation: &'static str, group: &str) -> Self {
        Self {
            request_client: connection.group_request_client(operation, group),
            operation,
            group: group.into(),
        }
    }

    /// Reads all offsets that the group has stored. Returns none if there is no such group.
    ///
    /// Waits while the coordinator moves or is elected.
    pub(crate) async fn read(&self, timeout: Duration) -> Result<Vec<StoredOffset>> {
        let deadline = Deadline::after(timeout);
        let read = deadline.until(|left| {
            let group = self.group.clone();
            let read = self.request_client.ask(self.operation, move |client| {
                group_offsets::read(client, &group, left)
            });
            read.map_ok(Some)
        });
        let read = read.await.map_err(|e| e.with_group(self.group.clone()))?;
        read.ok_or_else(|| self.silent())
    }

    /// Stores offsets of the group, which must have no members: `Fenced` if it has.
    ///
    /// Waits while the coordinator moves or is elected.
    pub(crate) async fn store(&self, offsets: Vec<StoredOffset>, timeout: Duration) -> Result<()> {
        let (deadline, offsets) = (Deadline::after(timeout), Arc::new(offsets));
        let stored = deadline.until(|left| {
            let (group, offsets) = (self.group.clone(), offsets.clone());
            let stored = self.request_client.ask(self.operation, move |client| {
                group_offsets::store(client, &group, &offsets, left)
            });
            stored.map_ok(Some)
        });
        let stored = stored.await.map_err(|e| e.with_group(self.group.clone()))?;
        stored.ok_or_else(|| self.silent())
    }

    fn silent(&self) -> Error {
        let reason = self.request_client.recent_error();
        let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
        let message = format!("the group's coordinator does not answer{reason}");
        Error::new(ErrorKind::Timeout, self.operation, message).with_group(self.group.clone())
    }
}
