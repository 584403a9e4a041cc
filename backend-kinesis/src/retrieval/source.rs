//! The interface to the service that has the records.

use std::fmt::Debug;
use std::time::SystemTime;

use async_trait::async_trait;
use millstream_core::{Error, Position, Result};

use super::answer::Answer;
use crate::stream::Shard;

/// The position where a response must begin.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum StartingPosition {
    /// The record of this sequence number, or the next available one.
    At(Position),
    /// The records after this sequence number.
    After(Position),
    Time(SystemTime),
    Earliest,
}

/// One shard. Calls are not retried: their errors are those of one request.
#[async_trait]
pub(super) trait Source: Debug + Send + Sync {
    /// Returns an iterator for [`records`](Self::records), valid for 5 minutes.
    async fn iterator(&self, from: &StartingPosition) -> Result<String>;

    /// Returns the next records, `most` at most. `Invalid` if the iterator has expired.
    async fn records(&self, iterator: &str, most: usize) -> Result<Answer>;

    /// Subscribes to pushed records for 5 minutes.
    async fn subscribe(
        &self,
        consumer: &str,
        from: &StartingPosition,
    ) -> Result<Box<dyn Subscription>, SubscribeError>;

    /// Returns all shards of the stream. `NotFound` if there is no stream.
    async fn shards(&self) -> Result<Vec<Shard>>;
}

/// A stream of pushed records.
#[async_trait]
pub(super) trait Subscription: Debug + Send {
    /// Returns the next records; `None` when the time is over. Cancel safe.
    async fn next(&mut self) -> Result<Option<Answer>, SubscribeError>;
}

/// An error of a subscription.
#[derive(Debug)]
pub(super) struct SubscribeError {
    pub(super) error: Error,
    /// Whether another subscription for the consumer and the shard is active. The kind is `Unavailable` then.
    pub(super) is_in_use: bool,
}

impl From<Error> for SubscribeError {
    fn from(error: Error) -> Self {
        Self {
            error,
            is_in_use: false,
        }
    }
}
