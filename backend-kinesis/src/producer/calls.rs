//! The calls of `send` that have records without a result.
//!
//! Records stay with their call; each is represented by a [`Ticket`], which waits and is sent. A call that
//! has ended, because its deadline expired or its caller is gone, resolves all its records at once and is
//! removed. Its tickets are then invalid, and are dropped when they are met.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_core::{Error, ErrorKind, Record, RecordMetadata};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::stream::HashKey;

/// Results in the order of the records; `None` for those that were not submitted.
pub(super) type SendResults = Vec<Option<Result<RecordMetadata, Error>>>;

/// Records in transit from `send` to the task.
pub(super) struct Submission {
    pub(super) records: Arc<Vec<Record>>,
    /// The tickets of all records that must be sent, in order. Their call has no number yet.
    pub(super) tickets: Vec<Ticket>,
    pub(super) sent: Instant,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<SendResults>,
}

/// Represents one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) call: u64,
    pub(super) index: u32,
    /// The number of its failures.
    pub(super) attempts: u32,
    pub(super) bytes: usize,
    /// The hash of the record's key, in place of the key. Two keys with the same hash would share their
    /// order, which only makes them slower.
    pub(super) key: Option<HashKey>,
    /// The hash that decides the shard: the explicit hash key or otherwise that of the key. A record without either
    /// gets one from the shard that is chosen for it.
    pub(super) hash: HashKey,
    pub(super) is_explicit: bool,
}

impl Ticket {
    pub(super) fn explicit_hash_key(&self) -> Option<HashKey> {
        self.is_explicit.then_some(self.hash)
    }

    /// Returns whether any shard is acceptable.
    pub(super) fn is_unkeyed(&self) -> bool {
        self.key.is_none() && !self.is_explicit
    }
}

#[derive(Debug)]
struct Call {
    records: Arc<Vec<Record>>,
    sent: Instant,
    deadline: Instant,
    results: SendResults,
    left: usize,
    /// Keys with a failed record: no later record of them is stored.
    failed: Vec<HashKey>,
    reply: oneshot::Sender<SendResults>,
}

/// In the order in which they were submitted, which is that of their deadlines.
pub(super) struct Calls {
    stream: Arc<str>,
    open: BTreeMap<u64, Call>,
    next: u64,
}

impl Calls {
    pub(super) fn new(stream: Arc<str>) -> Self {
        Self {
            stream,
            open: BTreeMap::new(),
            next: 0,
        }
    }

    /// Opens a call and returns its tickets.
    pub(super) fn open(&mut self, submission: Submission) -> impl Iterator<Item = Ticket> + use<> {
        let Submission {
            records,
            tickets,
            sent,
            deadline,
            reply,
        } = submission;
        let number = self.next;
        self.next += 1;
        let mut results = Vec::new();
        results.resize_with(records.len(), || None);
        let call = Call {
            records,
            sent,
            deadline,
            results,
            left: tickets.len(),
            failed: Vec::new(),
            reply,
        };
        self.open.insert(number, call);
        tickets.into_iter().map(move |ticket| Ticket {
            call: number,
            ..ticket
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Returns the record, if it must still be sent. A record behind a failed one of its key and call must not, and
    /// is failed here.
    pub(super) fn record_to_send(&mut self, ticket: &Ticket) -> Option<&Record> {
        let call = self.open.get(&ticket.call)?;
        if call.reply.is_closed() {
            self.open.remove(&ticket.call);
            return None;
        }
        if ticket.key.is_some_and(|key| call.failed.contains(&key)) {
            let message = "not sent, since an earlier record of its key failed";
            let error = self.error(ErrorKind::Unavailable, message);
            self.resolve(ticket, Err(error));
            return None;
        }
        let call = &self.open[&ticket.call];
        Some(&call.records[ticket.index as usize])
    }

    /// Returns when the record was sent, if its call is still open.
    pub(super) fn sent(&self, ticket: &Ticket) -> Option<Instant> {
        self.open.get(&ticket.call).map(|call| call.sent)
    }

    /// Returns the deadline of the record, if it has no result yet.
    pub(super) fn deadline(&self, ticket: &Ticket) -> Option<Instant> {
        self.open.get(&ticket.call).map(|call| call.deadline)
    }

    /// Sets the final result of a record.
    pub(super) fn resolve(&mut self, ticket: &Ticket, result: Result<RecordMetadata, Error>) {
        let Some(call) = self.open.get_mut(&ticket.call) else {
            return;
        };
        if result.is_err() {
            call.failed.extend(ticket.key);
        }
        let slot = &mut call.results[ticket.index as usize];
        if slot.replace(result).is_none() {
            call.left -= 1;
        }
        if call.left == 0 {
            let call = self.open.remove(&ticket.call).expect("it was there");
            let _ = call.reply.send(call.results);
        }
    }

    /// Fails the records whose deadline has expired with `Timeout`.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(first) = self.open.first_entry() {
            if first.get().deadline > now {
                return;
            }
            let mut call = first.remove();
            let took = call.deadline - call.sent;
            let message = format!(
                "not stored within {took:?}, as far as is known: check the stream's limits, or \
                 raise producer.timeout"
            );
            let error = self.error(ErrorKind::Timeout, message);
            for result in &mut call.results {
                result.get_or_insert_with(|| Err(error.clone()));
            }
            let _ = call.reply.send(call.results);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let (_, call) = self.open.first_key_value()?;
        Some(call.deadline)
    }

    fn error(&self, kind: ErrorKind, message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::new(kind, "send", message).with_stream(self.stream.clone())
    }
}
