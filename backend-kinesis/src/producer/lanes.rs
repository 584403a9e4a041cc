//! The lanes decide which records may be sent now. There are two kinds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use millstream_core::Error;
use tokio::time::Instant;

use super::calls::{Calls, Ticket};
use super::rate_limiter::RateLimiter;
use super::shard_map::ShardMap;
use super::transport::Landed;
use crate::aggregate::Entry;
use crate::config;

/// The delay before a failed record is retried. Each failure of the record doubles it, and random jitter of up to
/// the same length is added.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_millis(500);

/// The [limits][limits] of one request. Its bytes, including keys, may be 10 MiB by now, but the limit was 5
/// MiB before, and still is for services other than AWS. Larger requests have no advantage.
///
/// [limits]: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html
pub(super) const MOST_ENTRIES: usize = 500;
pub(super) const MOST_BYTES: usize = 5 << 20;

/// Pure bookkeeping without I/O: it starts nothing, and is informed of events and their time.
///
/// Each load that [`take`](Self::take) returns is handed back by exactly one of `landed`, `again` and `refused`.
pub(super) trait Lanes: Send + 'static {
    /// The records of one entry of a request.
    type Load: Send;

    /// Adds a new record. A ticket without a key gets its hash here.
    fn push(&mut self, ticket: Ticket, calls: &Calls, now: Instant);

    /// Fills a request with records that may be sent now, if any has lingered long enough.
    fn take(&mut self, calls: &mut Calls, allowed: Allowed, now: Instant) -> Batch<Self::Load>;

    /// Returns when to call [`take`](Self::take) again, if nothing happens before.
    fn wakes(&self) -> Option<Instant>;

    /// Handles a stored load. Returns whether the map is wrong.
    fn landed(&mut self, load: Self::Load, landed: Landed, calls: &mut Calls, now: Instant)
    -> bool;

    /// Handles loads of one request that may not be stored: they wait, and are retried.
    fn again(&mut self, failed: Vec<(Self::Load, Error)>, calls: &mut Calls, now: Instant);

    /// Handles a load that will never be stored.
    fn refused(&mut self, load: Self::Load, error: Error, calls: &mut Calls, now: Instant);

    /// Handles a new map of the shards.
    fn remap(&mut self, map: ShardMap, calls: &mut Calls, now: Instant);

    fn map(&self) -> &ShardMap;
}

/// The requests that may be sent now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed {
    /// The maximum size of a request.
    pub(super) bytes: usize,
    /// The number of requests, at least 1.
    pub(super) requests: usize,
}

/// The settings of a producer's requests.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) config: config::Producer,
    /// The maximum record size of the stream.
    pub(super) record_bytes: usize,
    /// The common start of the ticks of all lanes.
    pub(super) epoch: Instant,
}

impl Settings {
    /// Returns the limiter of a shard that was idle.
    pub(super) fn limiter(&self, now: Instant) -> RateLimiter {
        RateLimiter::new(self.config.rate, self.epoch, now)
    }

    /// Returns the limiters for the shards of a new map. Shards that remain keep theirs; `known` are the limiters of
    /// the old map.
    pub(super) fn limiters(
        &self,
        old: &ShardMap,
        known: impl Iterator<Item = RateLimiter>,
        new: &ShardMap,
        now: Instant,
    ) -> Vec<RateLimiter> {
        let old = old.open_shards().iter().map(|shard| &shard.partition);
        let mut known: HashMap<_, _> = old.zip(known).collect();
        let new = new.open_shards().iter().map(|shard| &shard.partition);
        new.map(|partition| known.remove(partition).unwrap_or_else(|| self.limiter(now)))
            .collect()
    }
}

/// The entries of a request, and the load of each.
#[derive(Debug)]
pub(super) struct Batch<L> {
    pub(super) loads: Vec<L>,
    pub(super) entries: Arc<Vec<Entry>>,
}

/// A request that is being filled.
#[derive(Debug)]
pub(super) struct Filling<L> {
    loads: Vec<L>,
    entries: Vec<Entry>,
    bytes: usize,
    most_bytes: usize,
}

impl<L> Filling<L> {
    pub(super) fn new(most_bytes: usize) -> Self {
        Self {
            loads: Vec::new(),
            entries: Vec::new(),
            bytes: 0,
            most_bytes,
        }
    }

    /// Returns the maximum size of the next entry. The first entry is not limited.
    pub(super) fn room(&self) -> usize {
        match self.loads.len() {
            0 => usize::MAX,
            MOST_ENTRIES.. => 0,
            _ => self.most_bytes.saturating_sub(self.bytes),
        }
    }

    pub(super) fn add(&mut self, load: L, entry: Entry) {
        self.bytes += entry.size();
        self.loads.push(load);
        self.entries.push(entry);
    }

    pub(super) fn finish(self) -> Batch<L> {
        Batch {
            loads: self.loads,
            entries: Arc::new(self.entries),
        }
    }
}

impl<L> Batch<L> {
    /// Returns both halves, to find out which one contains the rejected entry.
    pub(super) fn split(self) -> [Self; 2] {
        let (mut first, middle) = (self.loads, self.entries.len() / 2);
        let second = first.split_off(middle);
        let (one, other) = self.entries.split_at(middle);
        [(first, one), (second, other)].map(|(loads, entries)| Self {
            loads,
            entries: Arc::new(entries.to_vec()),
        })
    }
}

/// Returns the delay after this number of failures.
pub(super) fn delay(attempts: u32) -> Duration {
    // With more doublings, the delay is the maximum anyway.
    let doublings = attempts.clamp(1, 16) as usize - 1;
    ExponentialBuilder::new()
        .with_min_delay(FIRST_DELAY)
        .with_max_delay(LONGEST_DELAY)
        .without_max_times()
        .with_jitter()
        .build()
        .nth(doublings)
        .unwrap_or(LONGEST_DELAY)
}
