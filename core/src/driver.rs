//! The traits that a backend implements: six small, dyn-safe traits with batch-shaped methods.
//!
//! The hard part that is the same everywhere (key order, retries, contiguous checkpoints, draining,
//! fencing, dead letters, in-flight bounds) is implemented once, above these traits. A driver moves
//! batches and reports ownership. No trait has default methods: the author of a driver would not
//! notice a default that loses records.
//!
//! # Rules for every driver
//!
//! * Heartbeats and lease renewals run independently of the runtime and of handlers.
//! * Every error has an [`ErrorKind`](crate::ErrorKind), from one table per driver. Unless a method
//!   says otherwise, the driver retries what is cheap to retry (a lost connection) for a few seconds
//!   and then returns a retryable kind.
//! * A future of these traits may be dropped at any await. Each method documents what that leaves
//!   behind.
//! * Methods take `&self` and may be called concurrently, unless the method says otherwise.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Checkpoint, Epoch, Error, Guarantees, Headers, Lag, Partition, Position, Record,
    RecordMetadata, Result, Start, StreamDescription, StreamSpec,
};

/// A connected backend. A [`Client`](crate::Client) holds it and opens everything else from it.
#[async_trait]
pub trait Backend: Debug + Send + Sync + 'static {
    /// Returns the backend's name in errors and logs: `"memory"`, `"kafka"`, `"kinesis"`.
    fn name(&self) -> &'static str;

    /// Returns what the backend guarantees beyond the common promises.
    fn guarantees(&self) -> Guarantees;

    /// Opens a producer to an existing stream.
    ///
    /// Returns `NotFound` for an unknown stream and `Denied` where writing is not allowed, as far as
    /// the broker reports that before the first record. A dropped call leaves nothing behind.
    async fn open_producer(&self, stream: &str) -> Result<Arc<dyn Producer>>;

    /// Returns a handle to a group, without a request to the broker. The caller has checked the name
    /// (1-255 of `A-Z a-z 0-9 . _ -`).
    fn consumer_group(&self, group: &str) -> Arc<dyn ConsumerGroup>;

    /// Returns a handle to the stored progress of a group, without a request to the broker.
    fn checkpoints(&self, group: &str) -> Arc<dyn Checkpoints>;

    /// Returns the administration of streams.
    fn streams(&self) -> Arc<dyn Streams>;
}

/// How calls of [`Producer::send`] may overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipelining {
    /// Calls may overlap freely. The driver stores records of one key in the order of the calls and
    /// retries on its own; its errors are final. The calls are ordered by their first polls, so a driver
    /// must record its place before its first await.
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

/// A record that was not stored, with the reason. It is handed back so that it can be sent again.
#[derive(Debug)]
pub struct Rejected {
    /// The record as it was given.
    pub record: Record,
    /// Why it was not stored; `Timeout` if it may have been stored.
    pub error: Error,
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
    /// refusal by [`Membership::publish`] concerns all results of a call. Makes no request and does not
    /// block.
    fn validate(&self, record: &Record) -> Result<()>;

    /// Stores records and returns **one result per record, in the same order**, when the broker has
    /// acknowledged them as durably as the backend can.
    ///
    /// Within one call, records of one key are stored in the given order, and **none after a failed
    /// record of that key**: the later ones fail with a retryable error and are not stored. A failure
    /// of one key does not affect other keys.
    ///
    /// Returns when every record has a result. A driver that batches (linger) delays records no longer
    /// than its setting allows. [`pipelining`](Self::pipelining) defines who retries. If the future is
    /// dropped, each record is either stored or not.
    async fn send(&self, records: Vec<Record>) -> Vec<Result<RecordMetadata, Rejected>>;

    /// Closes the connections. Called at most once, when no call of `send` is in flight; no call follows.
    async fn close(&self) -> Result<()>;
}

/// Options of a member that joins.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// The streams to read: at least one, each once.
    pub streams: Vec<Arc<str>>,
    /// Where partitions begin for which the group has no progress yet.
    pub start: Start,
    /// The application's name for this member, for logs and tools. It need not be unique; the driver
    /// generates the id.
    pub member: Option<String>,
    /// The maximum number of records in one [`Event::Records`], and roughly the maximum returned by
    /// one [`next`](Membership::next).
    pub batch_records: usize,
    /// How long the runtime may drain revoked partitions. The driver fences a member that takes
    /// longer.
    pub drain: Duration,
}

/// A group by name.
#[async_trait]
pub trait ConsumerGroup: Debug + Send + Sync + 'static {
    /// Joins as a new member. The first join of a group **creates it and resolves `join.start`**: the
    /// positions for `Latest` and `At` are stored before this returns, so that no record that is sent
    /// afterwards is skipped.
    ///
    /// Returns `NotFound` for an unknown stream, and at once `Denied` where reading is not allowed, with
    /// stream and group. A dropped call leaves at most a member that the others replace after the
    /// session timeout.
    async fn join(&self, join: JoinOptions) -> Result<Arc<dyn Membership>>;
}

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// The position.
    pub position: Position,
    /// The broker's timestamp, or the producer's where the broker keeps it.
    pub timestamp: SystemTime,
    /// The key, if it has one.
    pub key: Option<Bytes>,
    /// The payload; `None` for a tombstone, which is not the same as an empty payload. Payloads of
    /// one batch may share one buffer.
    pub payload: Option<Bytes>,
    /// The headers, in order.
    pub headers: Headers,
}

/// An event of a member.
///
/// For one partition the order is: `Assigned`; then `Records`, `Lag` and `DataLoss`; then possibly
/// `Ended`; then `Revoking` or `Lost`. The runtime acknowledges `Revoking` by
/// [`release`](Membership::release) and `Ended` by [`complete`](Membership::complete). It ignores every
/// event whose epoch is not that of the last `Assigned`.
#[derive(Debug)]
pub enum Event {
    /// This member owns the partition now, fenced by `epoch`. Its records follow, from after
    /// `resume_after`.
    Assigned {
        /// The partition.
        partition: Partition,
        /// The new epoch, larger than every epoch that this partition had in this group.
        epoch: Epoch,
        /// The stored checkpoint, if there is one.
        resume_after: Option<Position>,
        /// The id of the stream, for [`Delivery::stream_id`](crate::Delivery::stream_id).
        ///
        /// It is the same for all partitions, members and groups as long as the stream exists, even
        /// after reconnects and restarts of the broker. No other stream ever has it, not even one
        /// that is created later under the same name.
        ///
        /// `None` if the broker has no such id, or did not report it. A driver must not guess: with
        /// the id of an older stream, a sink skips the records of this one. The id costs at most one
        /// request per join or assignment (a failed one may be repeated a few times), never one per
        /// record. A refusal or a missing response must not fail the assignment, nor delay it by more
        /// than a few seconds.
        stream_id: Option<Arc<str>>,
    },
    /// Records in stored order, without a gap to the previous ones, except for records that the stream
    /// itself no longer holds.
    Records {
        /// The partition.
        partition: Partition,
        /// The epoch of its assignment.
        epoch: Epoch,
        /// The records, at least one.
        records: Vec<StoredRecord>,
        /// The lag behind these records, as far as the driver knows without a request.
        lag: Lag,
    },
    /// The lag has changed without a record for the runtime: records were stored, or the rest is not
    /// visible to readers (transaction markers).
    Lag {
        /// The partition.
        partition: Partition,
        /// The epoch of its assignment.
        epoch: Epoch,
        /// The lag now, as far as the driver knows without a request.
        lag: Lag,
    },
    /// Retention has removed the next record; the partition now begins at `earliest`. If the runtime
    /// continues, the records from there follow.
    DataLoss {
        /// The partition.
        partition: Partition,
        /// The epoch of its assignment.
        epoch: Epoch,
        /// The last position before the gap, if there was one.
        after: Option<Position>,
        /// The oldest position that is left.
        earliest: Position,
    },
    /// These partitions are being moved to other members. No more records are delivered for them. The
    /// runtime must settle what is in flight, checkpoint, and call
    /// [`release`](Membership::release) for each within `within`; otherwise it is fenced.
    Revoking {
        /// The partitions, each with the epoch of its assignment.
        partitions: Vec<(Partition, Epoch)>,
        /// The time left, at most [`JoinOptions::drain`].
        within: Duration,
    },
    /// Other members may own these partitions already. The runtime stops at once and checkpoints
    /// nothing.
    Lost {
        /// The partitions, each with the epoch of its assignment.
        partitions: Vec<(Partition, Epoch)>,
    },
    /// A reshard has closed the partition, and its last record was delivered. When all records are
    /// settled, the runtime calls [`complete`](Membership::complete), and the children may begin.
    Ended {
        /// The partition.
        partition: Partition,
        /// The epoch of its assignment.
        epoch: Epoch,
    },
}

/// Progress to store: all records up to and including `position` are settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointUpdate {
    /// The partition.
    pub partition: Partition,
    /// The epoch of its assignment.
    pub epoch: Epoch,
    /// The last settled position; everything before it is settled too. The driver converts it into
    /// what its broker stores (Kafka: the *next* offset), in one place.
    pub position: Position,
}

/// A member that has joined a group.
///
/// Dropping it without [`leave`](Self::leave) is a crash: the other members take over after the
/// session timeout. `Drop` does not block.
#[async_trait]
pub trait Membership: Debug + Send + Sync + 'static {
    /// Returns the member's unique id, as the broker's own tools show it.
    fn id(&self) -> &str;

    /// Waits for events and returns all pending ones in order, at least one. One caller at a time.
    /// **Cancel safe**: a dropped call loses no event.
    ///
    /// One call may return records of many partitions, so that thousands of quiet ones share its
    /// cost. Together these are roughly [`JoinOptions::batch_records`] at most, so that a call is
    /// bounded.
    ///
    /// An error ends the membership (the stream was deleted, access was withdrawn): the runtime
    /// leaves and reports it. The driver recovers from everything else, either silently or by `Lost`
    /// and a new `Assigned`.
    async fn next(&self) -> Result<Vec<Event>>;

    /// Stores progress and returns one result per update, in the same order. `Fenced` for an update
    /// whose epoch is not the partition's last.
    ///
    /// The runtime has at most one call in flight. After a retryable error it calls again with the
    /// progress of that time. If the future is dropped, each update is either stored or not.
    async fn checkpoint(&self, updates: &[CheckpointUpdate]) -> Vec<Result<()>>;

    /// Stores `records` in `stream` and `updates` as the group's progress **in one step**: readers see
    /// either all of the records and the progress is stored, or none of them and it is not. Called
    /// only where [`Guarantees::exactly_once`] is true; other drivers return `Unsupported`.
    ///
    /// There is at least one update, at most one per partition, and each is beyond the stored
    /// progress of its epoch. The records are within the [`StreamLimits`] of the stream. There may be
    /// none, or more than one request of the broker can carry; these are split within the step.
    /// Records of one key are stored in the given order, after those of earlier calls.
    ///
    /// # Errors
    /// The result is certain:
    ///
    /// * `Ok`: everything is stored.
    /// * `Fenced`: nothing is stored, and the member has lost **all** partitions of the updates. The
    ///   runtime drops them and does not release them, so a driver returns this only where the broker
    ///   assigns them to others anyway. If only some are lost, it reports those by [`Event::Lost`] and
    ///   returns a retryable kind.
    /// * A retryable kind: nothing is stored, and nothing will be. The runtime publishes the records of
    ///   the partitions that it still owns again, together with others or in several calls.
    /// * `Invalid`, `TooLarge`: nothing is stored, because the broker permanently refuses one of the
    ///   records. The membership continues. The runtime calls again with a part of the records and with
    ///   progress up to these, until it has found the record, whose delivery has failed. A driver must
    ///   not return these kinds for anything else, such as a wrong setting: the failure policy would
    ///   skip good records.
    /// * Any other kind ends the membership, as an error of [`next`](Self::next) does.
    ///
    /// A driver that does not know how a step ended (the connection broke during the commit) must
    /// find out before it returns, or return a kind that ends the membership: the next owner then
    /// resumes from what is stored, with its records or without. It must not return `Timeout` for a
    /// step that may be stored: the runtime would store the records twice.
    ///
    /// A step of an epoch that is not the partition's last stores nothing. If a partition is
    /// released, revoked or lost while a step is in flight, the step is decided before that
    /// partition's next [`Event::Assigned`]: either its `resume_after` includes the step, or the step
    /// is refused. A member that was suspended and continues publishes nothing.
    ///
    /// # Concurrency
    /// At most one call of this or of [`checkpoint`](Self::checkpoint) is in flight, and a membership
    /// gets calls of only one of the two. All other methods may be called meanwhile.
    ///
    /// The call returns when the result is certain. Handlers and events continue, but drains wait,
    /// and at their deadline the partitions are released as they are. A driver must therefore abort a
    /// step that takes more than a few seconds, while it still can, and return a retryable kind.
    ///
    /// # Cancel safety
    /// If the future is dropped, the step is stored as a whole or not at all, and the next owners of
    /// the partitions find it so. [`leave`](Self::leave), or the drop of the membership, follows.
    async fn publish(
        &self,
        stream: &str,
        records: &[Record],
        updates: &[CheckpointUpdate],
    ) -> Result<()>;

    /// Acknowledges `Revoking` for one partition: it is drained and checkpointed, and other members may
    /// own it. `Fenced` if this member no longer owned it.
    async fn release(&self, partition: &Partition, epoch: Epoch) -> Result<()>;

    /// Acknowledges `Ended` for one partition: all records are settled and checkpointed. This is stored
    /// permanently, so that the children may begin.
    async fn complete(&self, partition: &Partition, epoch: Epoch) -> Result<()>;

    /// Stops reading a partition until [`resume`](Self::resume). Returns at once; records that were
    /// fetched may still be delivered.
    fn pause(&self, partition: &Partition, epoch: Epoch);

    /// Resumes reading a partition. Returns at once.
    fn resume(&self, partition: &Partition, epoch: Epoch);

    /// Leaves the group and releases all partitions, so that the other members take over at once. The
    /// runtime has drained and checkpointed before. No call follows. A dropped call is a crash.
    async fn leave(&self) -> Result<()>;
}

/// The stored progress of one group.
#[async_trait]
pub trait Checkpoints: Debug + Send + Sync + 'static {
    /// Reads the progress of every partition of every stream that the group has progress on, in the
    /// order of partitions. `NotFound` for an unknown group.
    async fn read(&self) -> Result<Vec<Checkpoint>>;

    /// Moves the group in `stream` to `to`, also while members run: they drain, checkpoint, and
    /// continue from the new position in a new epoch. Returns when the new position is stored.
    /// `NotFound` for an unknown group or stream.
    async fn reset(&self, stream: &str, to: Start) -> Result<()>;
}

/// The administration of streams.
#[async_trait]
pub trait Streams: Debug + Send + Sync + 'static {
    /// Creates a stream and waits until it can be used. `AlreadyExists` if there is one of that
    /// name.
    async fn create(&self, spec: &StreamSpec) -> Result<()>;

    /// Returns the names of all streams, sorted.
    async fn list(&self) -> Result<Vec<String>>;

    /// Describes a stream. `NotFound` if there is none.
    async fn describe(&self, stream: &str) -> Result<StreamDescription>;

    /// Deletes a stream with its records. Members that read it get `NotFound`.
    async fn delete(&self, stream: &str) -> Result<()>;

    /// Closes one open partition and opens two that share its keys. `Unsupported` where the backend
    /// cannot.
    async fn split(&self, partition: &Partition) -> Result<()>;

    /// Closes two open partitions and opens one with the keys of both. `Unsupported` where the
    /// backend cannot.
    async fn merge(&self, one: &Partition, other: &Partition) -> Result<()>;

    /// Grows the stream to `partitions` in all. `Unsupported` where the backend cannot, `Invalid`
    /// if it has as many already.
    async fn add_partitions(&self, stream: &str, partitions: usize) -> Result<()>;
}
