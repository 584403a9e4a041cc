use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Membership;
use crate::{Result, Start};

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
    /// The maximum number of records in one [`Event::Records`](super::Event::Records), and roughly
    /// the maximum returned by one [`next`](Membership::next).
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
