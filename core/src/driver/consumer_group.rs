use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{FilteredCounter, Membership};
use crate::{Guarantee, Result, Start};

/// Options of a member that joins.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// The streams to read: at least one, each once.
    pub streams: Vec<Arc<str>>,
    /// Where the group starts in those of the streams that it has never read; see
    /// [the rules](super#where-a-group-starts).
    pub start: Start,
    /// The application's name for this member, for logs and tools. It need not be unique; the driver
    /// generates the id.
    pub member: Option<String>,
    /// The maximum number of records in one [`Event::Records`](super::Event::Records), and roughly
    /// the maximum returned by one [`next`](Membership::next).
    pub batch_records: usize,
    /// The maximum number of bytes ([`StoredRecord::size`](super::StoredRecord::size)) returned by one
    /// [`next`](Membership::next), or one record more. At least 1.
    pub batch_bytes: usize,
    /// How many bytes of records the application lets the member hold
    /// ([`buffer_bytes`](crate::ConsumerGroup::buffer_bytes)), for the bounds of what a driver fetches ahead. The runtime
    /// holds as much itself.
    pub buffer_bytes: usize,
    /// How long the runtime may drain revoked partitions. The driver fences a member that takes
    /// longer.
    pub drain: Duration,
    /// The guarantees that each of the streams must keep; see [the rules](super#what-programs-require).
    pub required: Vec<Guarantee>,
    /// Counts the records that the driver leaves out, so that none is left out silently. Most drivers leave out none.
    pub filtered: FilteredCounter,
}

/// A group by name.
#[async_trait]
pub trait ConsumerGroup: Debug + Send + Sync + 'static {
    /// Joins as a new member. The first join of a group creates it.
    ///
    /// For each stream that the group has never read, the join **resolves `join.start` and stores the
    /// positions before it returns**, so that no record that is sent afterwards is skipped, and a crash
    /// before the first checkpoint changes nothing. See [the rules](super#where-a-group-starts).
    ///
    /// Members that read the same streams get about equal numbers of partitions. A join or a leave moves
    /// no more partitions than that needs: the others keep their owner and their epoch.
    ///
    /// # Errors
    /// * `NotFound` for an unknown stream, with its name.
    /// * `Denied`, at once, where reading is not allowed, with stream and group.
    /// * `Unsupported` for a [`Start`] that the driver does not know, and for a stream that does not keep a
    ///   [required](JoinOptions::required) guarantee.
    ///
    /// # Cancel safety
    /// A dropped call leaves at most a member that the others replace after the session timeout. The
    /// start may be stored.
    async fn join(&self, join: JoinOptions) -> Result<Arc<dyn Membership>>;
}
