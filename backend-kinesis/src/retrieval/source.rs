//! Who is asked for records: what Kinesis answers, in few words.

use std::fmt::Debug;
use std::time::SystemTime;

use async_trait::async_trait;
use millstream_core::{Position, Result};

use super::answer::Answer;
use crate::stream::Shard;

/// From where on Kinesis shall answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Spot {
    /// The record of this number, or the next one that is left.
    At(Position),
    /// What follows this number.
    After(Position),
    Time(SystemTime),
    Earliest,
    Latest,
}

/// One shard. Calls are not tried again: their errors are those of one request.
#[async_trait]
pub(super) trait Source: Debug + Send + Sync {
    /// An iterator for [`records`](Self::records), good for 5 minutes.
    async fn iterator(&self, from: &Spot) -> Result<String>;

    /// The next records. `Invalid` if the iterator is too old.
    async fn records(&self, iterator: &str) -> Result<Answer>;

    /// Has records pushed, for 5 minutes. `Unavailable` while another subscription is under way.
    async fn subscribe(&self, consumer: &str, from: &Spot) -> Result<Box<dyn Subscription>>;

    /// All shards of the stream. `NotFound` if there is no stream.
    async fn shards(&self) -> Result<Vec<Shard>>;
}

/// Records that are pushed.
#[async_trait]
pub(super) trait Subscription: Debug + Send {
    /// The next ones; None when the time is over. Cancel safe.
    async fn next(&mut self) -> Result<Option<Answer>>;
}
