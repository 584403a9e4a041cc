//! Reads the resets that were requested for the group.
//!
//! They are stored in a separate group, see [`reset`]. A client of that group reads them, one for all
//! members that this connection has in the group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_core::telemetry::{Causes, event};
use millstream_core::{Error, ErrorKind};
use rdkafka::error::KafkaError;

use super::offset_fetch::OffsetFetches;
use crate::connection::{Connection, RequestClient};
use crate::consumer::poll_waker::PollWaker;
use crate::consumer::state::{Progress, Reset};
use crate::consumer::types::TopicPartition;
use crate::error;
use crate::group::reset;
use crate::native::admin_queue::RequestId;

const READ: &str = "read resets";

/// The interval between two reads.
const EVERY: Duration = Duration::from_secs(1);

/// The interval after a read was denied.
const EVERY_IF_DENIED: Duration = Duration::from_secs(60);

/// The timeout of one read.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Reads the resets of one group, one read at a time.
pub(super) struct ResetReader {
    group: Arc<str>,
    side_group: String,
    request_client: Arc<RequestClient>,
    fetches: OffsetFetches,
    /// `None` while a read is in flight.
    due: Option<Instant>,
    /// Whether an event has reported that resets cannot be read.
    is_denied: bool,
}

impl ResetReader {
    pub(super) fn new(
        connection: &Connection,
        group: Arc<str>,
        waker: Arc<PollWaker>,
        now: Instant,
    ) -> Self {
        let side_group = reset::side_group(&group);
        Self {
            request_client: connection.group_request_client(READ, &side_group),
            group,
            side_group,
            fetches: OffsetFetches::new(waker),
            due: Some(now + EVERY),
            is_denied: false,
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due
    }

    /// Reads the resets of some partitions, if a read is due.
    pub(super) fn read_if_due(&mut self, partitions: &[TopicPartition], now: Instant) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        self.due = Some(now + EVERY);
        if partitions.is_empty() {
            return;
        }
        // `None` while a client is being created.
        let Some(client) = self.request_client.client_or_open() else {
            return;
        };
        let id = RequestId::default();
        self.fetches.begin(id, client, partitions.to_vec(), TIMEOUT);
        self.due = None;
    }

    /// Returns the resets of a read that has ended.
    pub(super) fn next(&mut self, now: Instant) -> Option<Vec<(TopicPartition, Reset)>> {
        let (_, read) = self.fetches.next()?;
        self.due = Some(now + EVERY);
        match read {
            Ok(stored) => Some(stored.into_iter().filter_map(reset_of).collect()),
            Err(failed) => {
                self.on_failed(failed, now);
                Some(Vec::new())
            }
        }
    }

    /// Reports once that no reset will reach this member, if a permission is missing. The member does not
    /// need it for its work, so it continues.
    fn on_failed(&mut self, failed: KafkaError, now: Instant) {
        // A request without the permission to find the coordinator just times out; the client knows the reason.
        let error = self.request_client.fatal_error();
        let error: Error = error.unwrap_or_else(|| error::from(READ, failed));
        tracing::debug!(target: "librdkafka", error = %Causes(&error), "resets were not read");
        if error.kind() != ErrorKind::Denied {
            return;
        }
        self.due = Some(now + EVERY_IF_DENIED);
        if std::mem::replace(&mut self.is_denied, true) {
            return;
        }
        let (group, beside) = (&*self.group, &*self.side_group);
        event!(
            warn, "millstream.consumer.resets_denied", group, beside, error = %Causes(&error),
            "resets of group {group} do not reach this member, as it may not read group {beside}: \
             grant Read on it",
        );
    }

    /// Closes the reader. Waits for the read in flight.
    pub(super) fn close(self) {
        self.fetches.close();
    }
}

fn reset_of(
    (name, progress): (TopicPartition, Option<Progress>),
) -> Option<(TopicPartition, Reset)> {
    let Progress { next, note, .. } = progress?;
    let (id, offset) = (note.reset?, next);
    Some((name, Reset { id, offset }))
}
