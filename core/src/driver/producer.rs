use std::fmt::Debug;

use async_trait::async_trait;

use crate::{Error, Record, RecordMetadata, Result};

/// How calls of [`Producer::send`] may overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipelining {
    /// Calls may overlap freely. The driver stores records of one key in the order of the calls and
    /// retries on its own; its errors are final. The calls are ordered by their first polls, so a
    /// driver must record its place before its first await.
    Ordered,
    /// The runtime has at most `calls` calls in flight, and never two with a common key. It retries
    /// retryable errors itself, and holds back only the later records of the failed keys.
    ByKey {
        /// The maximum number of calls, at least 1.
        calls: usize,
    },
}

/// The limits of one stream. The runtime refuses other records before they reach the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Largest [`Record::size`] in bytes; a larger record is `TooLarge`.
    pub record_bytes: usize,
    /// Largest key in bytes; a larger one is `Invalid`.
    pub key_bytes: usize,
    /// Largest text key in UTF-16 code units, which are the characters of most languages, if the broker counts these; a
    /// longer one is `Invalid`.
    pub key_chars: Option<usize>,
    /// Whether a key may be empty; if not, an empty one is `Invalid`.
    pub empty_key: bool,
    /// Whether a key must be UTF-8; if so, any other is `Invalid`.
    pub text_key: bool,
    /// Maximum number of records in one call of [`Producer::send`].
    pub batch_records: usize,
    /// Maximum number of bytes ([`Record::size`]) in one call of [`Producer::send`], unless a single
    /// record is larger.
    pub batch_bytes: usize,
}

/// A record for which there is no acknowledgement, with the reason. It is handed back so that it can
/// be sent again.
#[derive(Debug)]
pub struct Rejected {
    /// The record as it was given. Boxed, so that the result of a stored record stays small.
    pub record: Box<Record>,
    /// Why it was not stored. `Timeout` if it may have been stored, or may still be: see
    /// [`Producer::send`]. With any other kind it is not stored, and will not be.
    pub error: Error,
}

impl Rejected {
    /// Creates the rejection of a record.
    pub fn new(record: Record, error: Error) -> Self {
        Self {
            record: Box::new(record),
            error,
        }
    }

    /// Rejects all records of a call of [`Producer::send`] for one reason.
    pub fn all(records: Vec<Record>, error: &Error) -> Vec<Result<RecordMetadata, Self>> {
        let reject = |record| Err(Self::new(record, error.clone()));
        records.into_iter().map(reject).collect()
    }
}

/// Writes records to one stream.
#[async_trait]
pub trait Producer: Debug + Send + Sync + 'static {
    /// Returns the limits of the stream.
    fn limits(&self) -> StreamLimits;

    /// Returns how calls of `send` may overlap.
    fn pipelining(&self) -> Pipelining;

    /// Returns the error that [`send`](Self::send) would return for `record` without asking the broker,
    /// beyond [`limits`](Self::limits), if there is one.
    ///
    /// An exactly-once pipeline checks each result with it, so that a refusal fails one delivery: a
    /// refusal by [`Membership::publish`](super::Membership::publish) concerns all results of a call.
    /// A member with dead letters checks at its join that their stream takes headers. The message then
    /// is part of that of the join, and must say which setting to change. Makes no request and does not
    /// block.
    fn validate(&self, record: &Record) -> Result<()>;

    /// Returns the route of a record: what may hold it up while others proceed, such as its partition. `None` if it
    /// is not known beforehand, or if no part of a call is held up alone. Records of one key have one route.
    ///
    /// Used with [`Pipelining::Ordered`] while a call is held up: the records of other routes then go in calls of
    /// their own, so that their results do not wait for those of the route that is held up. Makes no request and does
    /// not block.
    fn route(&self, record: &Record) -> Option<u64>;

    /// Stores records and returns **one result per record, in the same order**, when the broker has
    /// acknowledged them as durably as the backend can.
    ///
    /// Within one call, records of one key are stored in the given order, and **none after a failed
    /// record of that key**: the later ones fail with a retryable error and are not stored. A failure
    /// of one key does not affect other keys. Records without a key are spread over the open partitions
    /// and have no order.
    ///
    /// All fields of a [`Record`] are stored. A record without a timestamp gets the time at which it is
    /// stored.
    ///
    /// Returns when every record has a result. A driver that batches (linger) delays records no longer
    /// than its setting allows. [`pipelining`](Self::pipelining) defines who retries.
    ///
    /// # Late requests
    /// A request whose response is lost may take effect later: after `send` has returned `Timeout`,
    /// after its retry, and after later records of the key. Readers then find the record a second
    /// time, or in the wrong place if no retry has stored it. Sending is at least once, so a driver
    /// may leave it at that, but must keep the time short: each request has a timeout, and the
    /// connection of a request that was given up is closed. A driver whose broker can recognize a
    /// repetition (a producer id with sequence numbers, an id per call) uses that, so that a late
    /// request stores nothing.
    ///
    /// An `Ok` is final, and so is any error but `Timeout`.
    ///
    /// # Cancel safety
    /// If the future is dropped, each record is stored or not, possibly later, as after `Timeout`. The
    /// records of one key that are stored are the first ones of that key.
    async fn send(&self, records: Vec<Record>) -> Vec<Result<RecordMetadata, Rejected>>;

    /// Closes the connections. Called at most once, when no call of `send` is in flight; no call
    /// follows.
    async fn close(&self) -> Result<()>;
}
