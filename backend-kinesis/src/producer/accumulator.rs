//! Accumulates the records of a producer, and decides which of them may be sent now.

use millstream_core::Error;
use tokio::time::Instant;

use super::calls::{Calls, Ticket};
use super::request::PutRequest;
use super::shard_map::{Prediction, ShardMap};
use super::transport::ShardPosition;

/// The records that wait to be sent. There are two kinds: [`ByKey`] and [`ByShard`].
///
/// Pure bookkeeping without I/O: it starts nothing, and is informed of events and their time.
///
/// The tickets of each entry that [`drain`](Self::drain) returns come back by exactly one of `stored`, `retry` and `fail`.
///
/// [`ByKey`]: super::by_key::ByKey
/// [`ByShard`]: super::by_shard::ByShard
pub(super) trait RecordAccumulator: Send + 'static {
    /// The tickets of the records in one entry of a request.
    type EntryTickets: Send;

    /// Adds a new record. A ticket without a key gets its hash here.
    fn push(&mut self, ticket: Ticket, calls: &Calls, now: Instant);

    /// Returns a request of records that may be sent now, if any has lingered long enough.
    fn drain(
        &mut self,
        calls: &mut Calls,
        limits: RequestLimits,
        now: Instant,
    ) -> PutRequest<Self::EntryTickets>;

    /// Returns when to call [`drain`](Self::drain) again, if nothing happens before.
    fn next_wakeup(&self) -> Option<Instant>;

    /// Handles an entry that was stored.
    fn stored(
        &mut self,
        tickets: Self::EntryTickets,
        stored: ShardPosition,
        calls: &mut Calls,
        now: Instant,
    ) -> Prediction;

    /// Handles entries of one request that may not be stored: their records wait, and are retried.
    fn retry(&mut self, failed: Vec<(Self::EntryTickets, Error)>, calls: &mut Calls, now: Instant);

    /// Handles an entry that will never be stored.
    fn fail(&mut self, tickets: Self::EntryTickets, error: Error, calls: &mut Calls, now: Instant);

    /// Handles a new map of the shards.
    fn remap(&mut self, map: ShardMap, calls: &mut Calls, now: Instant);

    fn map(&self) -> &ShardMap;
}

/// The limits of the requests that may be sent now.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestLimits {
    /// The maximum size of a request.
    pub(super) bytes: usize,
    /// The number of requests, at least 1.
    pub(super) requests: usize,
}
