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

mod backend;
mod checkpoints;
mod consumer_group;
mod event;
mod membership;
mod producer;
mod streams;

pub use backend::Backend;
pub use checkpoints::Checkpoints;
pub use consumer_group::{ConsumerGroup, JoinOptions};
pub use event::{Event, StoredRecord};
pub use membership::{CheckpointUpdate, Membership};
pub use producer::{Pipelining, Producer, Rejected, StreamLimits};
pub use streams::Streams;
