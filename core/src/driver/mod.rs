//! The traits that a backend implements: six small, dyn-safe traits with batch-shaped methods.
//!
//! [`Backend`] opens the other five. A [`Producer`] writes records to a stream. A [`ConsumerGroup`]
//! lets a member join, and a [`Membership`] is that member. [`Checkpoints`] reads and moves the stored
//! progress of a group, and [`Streams`] administers streams.
//!
//! The hard part that is the same everywhere (key order, retries, contiguous checkpoints, draining,
//! fencing, dead letters, in-flight bounds) is implemented once, above these traits. A driver moves
//! batches and reports ownership. No trait has default methods: the author of a driver would not
//! notice a default that loses records.
//!
//! # Rules for every driver
//!
//! ## Errors and retries
//!
//! * Every error has an [`ErrorKind`](crate::ErrorKind), from one table per driver.
//! * Unless a method says otherwise, the driver retries what is cheap to retry (a lost connection) for
//!   a few seconds and then returns a retryable kind.
//! * **A drain leaves less time.** The runtime reserves the last tenth of [`Event::Revoking`]'s
//!   `within`, at most 1 s: half for the last checkpoint and half for the release. For a partition that
//!   is being revoked, [`checkpoint`](Membership::checkpoint) and [`release`](Membership::release)
//!   therefore retry for a twentieth of `within`, at most 500 ms. A checkpoint that takes longer is not
//!   waited for: the partition is released as it is, and the next owner repeats what is not stored. A
//!   release that takes longer ends in a loss, with the same effect.
//! * **What is not idempotent is not repeated.** [`create`](Streams::create),
//!   [`split`](Streams::split), [`merge`](Streams::merge) and
//!   [`add_partitions`](Streams::add_partitions) must not be sent again after a lost response, unless
//!   the driver recognizes its own first attempt (by an id in the request, for example). Otherwise the
//!   caller gets `AlreadyExists` for its own stream, or a second split. The driver returns `Timeout`
//!   instead.
//! * [`delete`](Streams::delete), [`release`](Membership::release) and
//!   [`complete`](Membership::complete) may be repeated. If the repetition finds that the first attempt
//!   has succeeded, the result is `Ok`.
//! * An argument that the driver does not know, such as a [`Start`](crate::Start) of a later version,
//!   is `Unsupported`. A driver must not guess.
//!
//! ## What programs require
//!
//! * The runtime refuses a [`Guarantee`](crate::Guarantee) that [`Backend::guarantees`] does not promise. A driver
//!   that promises one keeps it on every stream, **or refuses the exceptions** where the guarantee is required:
//!   [`open_producer`](Backend::open_producer) and [`join`](ConsumerGroup::join) get what is required, and return
//!   `Unsupported` with the stream, the reason and what to change, before they store anything or take partitions.
//! * If a driver notices that a stream has stopped keeping a required guarantee, [`Membership::next`] returns the
//!   same error. What is not required only gets a warning.
//! * A driver that cannot tell the exceptions from the other streams does not promise the guarantee. So a field of
//!   [`Guarantees`](crate::Guarantees) that a driver leaves at its default is refused, never assumed.
//!
//! ## Liveness
//!
//! * Heartbeats and lease renewals run independently of the runtime and of handlers. This includes
//!   handlers that block their thread, and so all threads of the application's executor. A task on that
//!   executor is therefore not enough: heartbeats need a thread of their own (or the client library's),
//!   and connections that do not wait for those of producers and readers.
//! * A member that cannot reach its group does not wait until it can. By its own clock, and without a
//!   response, it reports [`Event::Lost`] for everything it owns when one session timeout has passed
//!   since it sent the last heartbeat that succeeded. Others may own the partitions from then on. When
//!   the group can be reached again, the member joins again without the runtime's help.
//! * Only a driver whose client library keeps the session, and does not say when a heartbeat succeeded,
//!   may report the loss later: when it reaches the group again (librdkafka with KIP-848). It documents
//!   that its handlers may work beside those of the next owner for as long. Its checkpoints are
//!   `Fenced` like those of any other member.
//!
//! ## Cancel safety and concurrency
//!
//! * A future of these traits may be dropped at any await. Each method documents what that leaves
//!   behind.
//! * Methods take `&self` and may be called concurrently, unless the method says otherwise.
//!
//! ## Where a group starts
//!
//! * The start of a group is resolved once for each (group, stream): by the first
//!   [`join`](ConsumerGroup::join) with the stream, or by a [`reset`](Checkpoints::reset). It is
//!   stored before that call returns. A later join that adds a stream resolves the start of this one
//!   only. Later values of [`JoinOptions::start`] have no effect.
//! * [`Start::Earliest`](crate::Start::Earliest) is the oldest record at that time. If retention
//!   removes records between then and the first read, that is [`Event::DataLoss`], as it is later. A
//!   broker that cannot name its oldest record stores the time instead, and reports the loss if the
//!   first read comes so late that records of that time may be gone.
//! * [`Start::Latest`](crate::Start::Latest) is the end at that time.
//! * [`Start::At`](crate::Start::At) is the first record in stored order whose
//!   [`timestamp`](StoredRecord::timestamp) is not before the time. These are the timestamps that
//!   readers see: the producer's where it set one, else the broker's. Records after the first one are
//!   delivered whatever their timestamp is. A driver whose broker can only search by the time of
//!   storage starts there and passes over records until the first one. Brokers that keep whole
//!   milliseconds compare whole milliseconds. If there is no such record yet, and so for every time in
//!   the future, the start is the end, as for `Latest`: later records are delivered whatever their
//!   timestamp is.
//! * Partitions that are added later, and children of a reshard, are read from their beginning,
//!   whatever the start was.
//!
//! ## Deleted streams
//!
//! * The progress of all groups in a stream is deleted with it. A new stream of the same name is read
//!   from [`JoinOptions::start`], and never past its first records. A driver that cannot delete the
//!   progress must notice that it is of another stream, and refuse to join with `Invalid` and a message
//!   that says what to delete.
//! * Epochs do not start again: for one group, the epochs of a partition (by the names of stream and
//!   partition) grow even if the stream was deleted in between. A sink that compares epochs would
//!   refuse all records of the new stream otherwise. Only a broker that forgets the whole group
//!   (Kafka, some time after it has neither members nor progress) may forget its epochs too. The
//!   [`stream_id`](Event::Assigned::stream_id) then shows a sink that its stored epochs are of another
//!   stream.
//!
//! ## Types of this crate
//!
//! Some types cannot be built by their fields, so that fields can be added:
//!
//! * [`RecordMetadata::new`](crate::RecordMetadata::new) for the results of [`Producer::send`].
//! * [`Error::new`](crate::Error::new), and its methods `with_stream`, `with_partition`, `with_group`
//!   and `with_source`.
//! * [`Partition::new`](crate::Partition::new). [`Position`](crate::Position) is made from an offset
//!   (`From<u64>`), or parsed from a decimal number, with
//!   [`with_sub_sequence`](crate::Position::with_sub_sequence) for a record in an aggregate.
//! * [`Headers`](crate::Headers) by `new`, `push` and `push_null`, or by `extend`.
//!
//! A driver must store every field of a [`Record`](crate::Record). When a later version adds one, it
//! also adds a field to [`StreamLimits`], by which a driver says whether it stores the new one. So a
//! driver that does not know the field does not compile, instead of dropping it silently.
//!
//! # Parts for drivers
//!
//! A driver whose broker has no group coordinator of its own keeps leases in a table. The parts that every such
//! driver needs are here:
//!
//! | part | does |
//! |---|---|
//! | [`Assignments`] | makes the events of a member from the table's assignments and the records that are read |
//! | [`HeartbeatThread`] | keeps the session of a member, and reports its loss in time |
//! | [`spawn_thread`] | a thread with a runtime, for work that must continue while handlers block |
//! | [`plan_sticky`] | plans which member owns which partition |
//! | [`encode_record`], [`decode_record`] | a record as bytes |
//! | [`key_hash`] | selects the partition of a key |
//! | [`to_millis`], [`from_millis`] | timestamps as brokers store them |
//! | [`check_stream_name`], [`check_group_name`] | the rules for names of streams and groups, where the broker has none |
//! | [`Rejected::all`] | one error for all records of a call |
//!
//! The conformance suite has a driver that is built from them, over a table in memory:
//! `tests/tests/lease_driver`.

mod assignments;
mod backend;
mod checkpoints;
mod consumer_group;
mod dedicated_thread;
mod event;
mod filtered_counter;
mod heartbeat;
mod key_hash;
mod membership;
mod millis;
mod producer;
mod record_codec;
mod sticky_assignor;
mod streams;

pub use assignments::{AssignedPartition, Assignments, PartitionEvent};
pub use backend::Backend;
pub use checkpoints::Checkpoints;
pub use consumer_group::{ConsumerGroup, JoinOptions};
pub use dedicated_thread::spawn_thread;
pub use event::{Event, StoredRecord};
pub use filtered_counter::FilteredCounter;
pub use heartbeat::{HeartbeatMember, HeartbeatResponse, HeartbeatThread, SessionOptions};
pub use key_hash::key_hash;
pub use membership::{CheckpointUpdate, Membership};
pub use millis::{from_millis, to_millis};
pub use producer::{Pipelining, Producer, Rejected, StreamLimits};
pub use record_codec::{decode_record, encode_record};
pub use sticky_assignor::{Subscription, plan_sticky};
pub use streams::Streams;

pub use crate::naming::{check_group_name, check_stream_name};
