//! What a backend implements: five small traits, batch-shaped and dyn-safe.
//!
//! Everything that is hard and the same everywhere (key order, retry, contiguous checkpoints,
//! draining, fencing, dead letters, in-flight bounds) is done once, above these traits. A driver
//! moves batches and tells about ownership. There are no default methods: a default that hides a
//! loss cannot be noticed by the author of a driver.
//!
//! # Rules for every driver
//!
//! * Heartbeats, renewals and other signs of life run on their own. They depend on no call of the
//!   runtime and on no handler.
//! * Errors carry one of [`ErrorKind`](crate::ErrorKind), from one table per driver. Where a method
//!   says nothing else, the driver retries what is cheap to retry (a lost connection) for a few
//!   seconds and then answers a retryable kind.
//! * A future of these traits may be dropped at any await. What that leaves behind is said on each
//!   method.
//! * Methods take `&self` and may be called concurrently unless the method says otherwise.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Checkpoint, Epoch, Error, Guarantees, Headers, Lag, Partition, Position, Record,
    RecordMetadata, Result, Start, StreamDescription, StreamSpec,
};

/// One connected backend; a [`Client`](crate::Client) holds it and opens everything else from it.
#[async_trait]
pub trait Backend: Debug + Send + Sync + 'static {
    /// The backend's name in errors and logs: `"memory"`, `"kafka"`, `"kinesis"`.
    fn name(&self) -> &'static str;

    /// What it promises beyond the common promises.
    fn guarantees(&self) -> Guarantees;

    /// Opens a producer to an existing stream.
    ///
    /// Answers `NotFound` for an unknown stream and `Denied` where writing is not allowed, as far
    /// as the broker tells before the first record. A dropped call leaves nothing behind.
    async fn open_producer(&self, stream: &str) -> Result<Arc<dyn Producer>>;

    /// Names a group. Asks nothing of the broker; the name was checked by the caller (1-255 of `A-Z
    /// a-z 0-9 . _ -`).
    fn consumer_group(&self, group: &str) -> Arc<dyn ConsumerGroup>;

    /// The stored progress of a group. Asks nothing of the broker.
    fn checkpoints(&self, group: &str) -> Arc<dyn Checkpoints>;

    /// The administration of streams.
    fn streams(&self) -> Arc<dyn Streams>;
}

/// How calls of [`Producer::send`] may overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipelining {
    /// Calls may overlap freely. The driver stores records of one key in the order of the calls and
    /// retries on its own; its errors are final. The order of the calls is that of their first
    /// polls: a driver takes its place in it before its first await.
    Ordered,
    /// The runtime has at most `calls` calls under way, and never two with a common key. It retries
    /// retryable errors itself, holding back the later records of the failed keys only.
    ByKey {
        /// At least 1.
        calls: usize,
    },
}

/// What one stream takes. The runtime refuses other records before they reach the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Largest [`Record::size`] in bytes; over it is `TooLarge`.
    pub record_bytes: usize,
    /// Largest key in bytes; over it is `Invalid`.
    pub key_bytes: usize,
    /// Whether a key may be empty; if not, an empty one is `Invalid`.
    pub empty_key: bool,
    /// Whether a key must be UTF-8; if so, another one is `Invalid`.
    pub text_key: bool,
    /// Most records that one call of [`Producer::send`] takes.
    pub batch_records: usize,
    /// Most bytes ([`Record::size`]) that one call of [`Producer::send`] takes, unless a single
    /// record is larger.
    pub batch_bytes: usize,
}

/// A record that was not stored, handed back with the reason, so that it can be sent again.
#[derive(Debug)]
pub struct Rejected {
    /// The record as it was given.
    pub record: Record,
    /// Why it was not stored; `Timeout` where that is not known.
    pub error: Error,
}

/// The way of records into one stream.
#[async_trait]
pub trait Producer: Debug + Send + Sync + 'static {
    /// What the stream takes.
    fn limits(&self) -> StreamLimits;

    /// How calls of `send` may overlap.
    fn pipelining(&self) -> Pipelining;

    /// Returns why this stream never takes `record`, if so: what [`send`](Self::send) would refuse
    /// without asking the broker, beyond [`limits`](Self::limits).
    ///
    /// An exactly-once pipeline asks for each result while it is still the failure of one delivery,
    /// for a refusal of [`Membership::publish`] is about all results of a call. Asks nothing of the
    /// broker and does not block.
    fn validate(&self, record: &Record) -> Result<()>;

    /// Stores records and answers **one result per record, in the same order**, each when the
    /// broker has acknowledged it, as durably as the backend can.
    ///
    /// Within one call, records of one key are stored in the given order and **none after one of
    /// that key that failed**: the later ones are answered with a retryable error without being
    /// stored. A failure of one key is none of another key.
    ///
    /// Blocks until all are answered; a driver with own batching (linger) waits no longer for
    /// company than its setting says. Retries: see [`pipelining`](Self::pipelining). Dropping the
    /// future leaves each record stored or not stored.
    async fn send(&self, records: Vec<Record>) -> Vec<Result<RecordMetadata, Rejected>>;

    /// Gives up connections. No call of `send` is under way, and none follows. Called at most once.
    async fn close(&self) -> Result<()>;
}

/// What a member asks for when it joins.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// The streams to read, at least one, no name twice.
    pub streams: Vec<Arc<str>>,
    /// Where partitions begin for which the group has no progress yet.
    pub start: Start,
    /// The application's name for this member, for logs and read-outs. Need not be unique; the
    /// driver makes its own id.
    pub member: Option<String>,
    /// Most records in one [`Event::Records`], and about the most in one
    /// [`next`](Membership::next).
    pub batch_records: usize,
    /// How long the runtime may drain when partitions are revoked. The driver fences the member
    /// that takes longer.
    pub drain: Duration,
}

/// A group by name.
#[async_trait]
pub trait ConsumerGroup: Debug + Send + Sync + 'static {
    /// Joins as a new member. The first join of a group **creates it and pins `join.start`**: the
    /// positions that `Latest` and `At` stand for are stored before this returns, so that nothing
    /// that is sent afterwards is passed over.
    ///
    /// Answers `NotFound` for an unknown stream, `Denied` at once where reading is not allowed,
    /// naming stream and group. A dropped call leaves at most a member that the others replace
    /// after the session time-out.
    async fn join(&self, join: JoinOptions) -> Result<Arc<dyn Membership>>;
}

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its place.
    pub position: Position,
    /// The broker's timestamp, or the producer's where the broker keeps that.
    pub timestamp: SystemTime,
    /// The key, if it has one.
    pub key: Option<Bytes>,
    /// The payload; `None` for a tombstone, which is not the same as an empty payload. Payloads of
    /// one batch may share one buffer.
    pub payload: Option<Bytes>,
    /// The headers, in order.
    pub headers: Headers,
}

/// What happens to a member.
///
/// For one partition the order is: `Assigned`, then `Records`, `Lag`, `DataLoss` and at last perhaps
/// `Ended`, then `Revoking` or `Lost`. All but `Lost` end with the runtime's answer
/// ([`release`](Membership::release), [`complete`](Membership::complete)). Whatever carries an
/// epoch that is not the one of the last `Assigned` is ignored by the runtime.
#[derive(Debug)]
pub enum Event {
    /// The partition is now this member's, fenced by `epoch`. Records follow from after
    /// `resume_after`.
    Assigned {
        /// Which.
        partition: Partition,
        /// Larger than every epoch that this partition had in this group.
        epoch: Epoch,
        /// The stored checkpoint, if there is one.
        resume_after: Option<Position>,
    },
    /// Records in stored order, without a gap to the ones before (but for what the stream itself
    /// does not hold).
    Records {
        /// Which.
        partition: Partition,
        /// The epoch of its assignment.
        epoch: Epoch,
        /// At least one.
        records: Vec<StoredRecord>,
        /// What is left behind these records, as far as the driver knows without asking.
        lag: Lag,
    },
    /// What is left behind the last records has changed without a record for the runtime: others were
    /// stored, or what was left is nothing that readers see (the marks of transactions).
    Lag {
        /// Which.
        partition: Partition,
        /// The epoch of its assignment.
        epoch: Epoch,
        /// What is left now, as far as the driver knows without asking.
        lag: Lag,
    },
    /// The next wanted record is gone by retention; the stream begins at `earliest` now. If the
    /// runtime goes on, the records from there follow.
    DataLoss {
        /// Which.
        partition: Partition,
        /// The epoch of its assignment.
        epoch: Epoch,
        /// The last position before the gap, if there was one.
        after: Option<Position>,
        /// The oldest position that is left.
        earliest: Position,
    },
    /// Others shall have these partitions. No further records of them come; the runtime settles
    /// what it has begun, checkpoints, and releases each within `within`, or it is fenced.
    Revoking {
        /// Which, each with the epoch of its assignment.
        partitions: Vec<(Partition, Epoch)>,
        /// The time left, at most [`JoinOptions::drain`].
        within: Duration,
    },
    /// Others may have these partitions already: stop now, checkpoint nothing.
    Lost {
        /// Which, each with the epoch of its assignment.
        partitions: Vec<(Partition, Epoch)>,
    },
    /// The partition was closed by a reshard and its last record was handed on. When all is settled
    /// the runtime says [`complete`](Membership::complete), and its children may begin.
    Ended {
        /// Which.
        partition: Partition,
        /// The epoch of its assignment.
        epoch: Epoch,
    },
}

/// Progress to store: everything up to and including `position` is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointUpdate {
    /// Which.
    pub partition: Partition,
    /// The epoch of its assignment.
    pub epoch: Epoch,
    /// The last settled position; everything before it is settled too. The driver turns it into
    /// what its broker stores (Kafka: the *next* offset), in one place.
    pub position: Position,
}

/// One member of a group, joined.
///
/// Dropping it without [`leave`](Self::leave) is a crash: others take over after the session
/// time-out. `Drop` does not block.
#[async_trait]
pub trait Membership: Debug + Send + Sync + 'static {
    /// The member's unique id, as the broker's own tools show it.
    fn id(&self) -> &str;

    /// Waits until something happens and answers all that is there, in order, at least one event.
    /// One caller at a time. **Cancel safe**: a dropped call loses no event.
    ///
    /// One call may bring records of many partitions: with thousands of quiet ones, what a call
    /// costs is shared by all. Together they have about [`JoinOptions::batch_records`] records at most, so
    /// that what a call brings is bounded.
    ///
    /// An error ends the membership (the stream was deleted, access was withdrawn): the runtime
    /// leaves and reports it. What the driver can mend, it mends without a word or with `Lost` and a
    /// new `Assigned`.
    async fn next(&self) -> Result<Vec<Event>>;

    /// Stores progress; one result per mark, in the same order. `Fenced` for a mark whose epoch is
    /// not the partition's last.
    ///
    /// The runtime has one call under way at most. Retryable errors are retried by the runtime at
    /// the next occasion with the progress of then. Dropping the future leaves each mark stored or
    /// not.
    async fn checkpoint(&self, marks: &[CheckpointUpdate]) -> Vec<Result<()>>;

    /// Stores `records` in `stream` and `marks` as the group's progress **in one step**: either
    /// readers see all of the records and the progress stands, or they see none of them and it does
    /// not. Called only where [`Guarantees::exactly_once`] is true; other drivers answer
    /// `Unsupported`.
    ///
    /// There is at least one mark, no partition has two, and each goes further than the stored
    /// progress of its epoch. The records are within the [`StreamLimits`] of the stream. They may be none,
    /// or more than one request of the broker takes, and are then split within the step. Records of
    /// one key are stored in the given order, after those of earlier calls.
    ///
    /// # The answer is certain
    /// * `Ok`: all of it is stored.
    /// * `Fenced`: nothing is stored, and the member has lost **all** partitions of the marks. The
    ///   runtime drops them and says nothing more about them, so a driver answers this only where
    ///   the broker gives them to others anyway. Where some are lost and others are not, it tells
    ///   the lost ones by [`Event::Lost`] and answers a retryable kind.
    /// * A retryable kind: nothing is stored, nor will be. The runtime calls again, with the same
    ///   records for those partitions that it still owns, and perhaps with more.
    /// * Any other kind ends the membership, as an error of [`next`](Self::next) does.
    ///
    /// A driver that does not know how a step ended (the connection broke in the commit) finds out
    /// before it answers, or answers a kind that ends the membership: what stands then is what the
    /// next owner resumes from, with its records or without. It never answers `Timeout` for a step
    /// that may stand: the runtime would store the records twice.
    ///
    /// # Fencing
    /// A step of an epoch that is not the partition's last stores nothing. One that is under way
    /// while a partition is released, revoked or lost is decided before that partition's next
    /// [`Event::Assigned`]: its `resume_after` has the step, or the step is refused. A member that
    /// was away for long and goes on publishes nothing.
    ///
    /// # Calls
    /// One call of this or of [`checkpoint`](Self::checkpoint) is under way at most, and one
    /// membership gets only calls of one of the two. All other methods may be called beside it.
    ///
    /// It blocks until the answer is certain. Handlers and events go on, but drains wait, and when
    /// their time is over the partitions are released as they are. So a driver takes a step back
    /// that is not through after a few seconds, while it still can, and answers a retryable kind.
    ///
    /// Dropping the future leaves the step stored as a whole or not at all, as the next owners of
    /// the partitions find it; [`leave`](Self::leave), or the drop of the membership, follows.
    async fn publish(
        &self,
        stream: &str,
        records: &[Record],
        marks: &[CheckpointUpdate],
    ) -> Result<()>;

    /// Answers `Revoking` for one partition: it is drained and checkpointed, others may have it.
    /// `Fenced` if it was not this member's any more.
    async fn release(&self, partition: &Partition, epoch: Epoch) -> Result<()>;

    /// Answers `Ended` for one partition: all is settled and checkpointed. StoredRecord for ever, so that
    /// its children may begin.
    async fn complete(&self, partition: &Partition, epoch: Epoch) -> Result<()>;

    /// Asks for no more records of a partition until [`resume`](Self::resume). Returns at once;
    /// what is on the way still comes.
    fn pause(&self, partition: &Partition, epoch: Epoch);

    /// Ends a pause. Returns at once.
    fn resume(&self, partition: &Partition, epoch: Epoch);

    /// Leaves the group and gives back all partitions, so that the others take over at once. The
    /// runtime has drained and checkpointed before. No call follows. A dropped call is a crash.
    async fn leave(&self) -> Result<()>;
}

/// The stored progress of one group.
#[async_trait]
pub trait Checkpoints: Debug + Send + Sync + 'static {
    /// Reads the progress of every partition of every stream that the group has progress on, in the
    /// order of partitions. `NotFound` for an unknown group.
    async fn read(&self) -> Result<Vec<Checkpoint>>;

    /// Moves the group in `stream` to `to`, also while members run: these drain, checkpoint, and go
    /// on from the new place in a new epoch. Returns when the new place is stored. `NotFound` for
    /// an unknown group or stream.
    async fn reset(&self, stream: &str, to: Start) -> Result<()>;
}

/// The administration of streams.
#[async_trait]
pub trait Streams: Debug + Send + Sync + 'static {
    /// Creates a stream and waits until it can be used. `AlreadyExists` if there is one of that
    /// name.
    async fn create(&self, spec: &StreamSpec) -> Result<()>;

    /// Lists names, sorted.
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
