//! What decides which records may go now: lanes, of which there are two kinds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use millstream_core::Error;
use tokio::time::Instant;

use super::calls::{Calls, Ticket};
use super::map::Map;
use super::pace::Pace;
use super::transport::Landed;
use crate::aggregate::Entry;
use crate::config;

/// Waits before a failed record is tried again: doubled at each failure of it, prolonged by up to
/// itself at random.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_millis(500);

/// The [most][limits] of one request. Its bytes, keys included, may be 10 MiB by now, but they were 5
/// MiB before, and still are where it is not AWS that answers; a request gains nothing beyond.
///
/// [limits]: https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html
pub(super) const MOST_ENTRIES: usize = 500;
pub(super) const MOST_BYTES: usize = 5 << 20;

/// Pure bookkeeping: it starts nothing, and is told what happens and when.
///
/// What [`take`](Self::take) hands out comes back by exactly one of `landed`, `again` and `refused`.
pub(super) trait Lanes: Send + 'static {
    /// What is behind one entry of a request.
    type Load: Send;

    /// Takes a new record in. A ticket without a key gets its hash here.
    fn push(&mut self, ticket: Ticket, calls: &Calls, now: Instant);

    /// Fills a request with what may go now, if there is anything that has waited enough.
    fn take(&mut self, calls: &mut Calls, now: Instant) -> Batch<Self::Load>;

    /// When to [`take`](Self::take) again, if nothing happens before.
    fn wakes(&self) -> Option<Instant>;

    /// A load was stored. Answers whether the map is wrong.
    fn landed(&mut self, load: Self::Load, landed: Landed, calls: &mut Calls, now: Instant)
    -> bool;

    /// Loads of one request that are, perhaps, not stored: they wait, and are tried again.
    fn again(&mut self, failed: Vec<(Self::Load, Error)>, calls: &mut Calls, now: Instant);

    /// A load will never be stored.
    fn refused(&mut self, load: Self::Load, error: Error, calls: &mut Calls, now: Instant);

    /// The shards as they are now.
    fn remap(&mut self, map: Map, calls: &mut Calls, now: Instant);

    fn map(&self) -> &Map;
}

/// How a producer sends.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) config: config::Producer,
    /// The stream's largest record.
    pub(super) record_bytes: usize,
    /// When the ticks of all lanes began.
    pub(super) epoch: Instant,
}

impl Settings {
    /// The pace of a shard that was idle.
    pub(super) fn pace(&self, now: Instant) -> Pace {
        Pace::new(self.config.rate, self.epoch, now)
    }

    /// The paces for the places of a new map. Shards that stay keep theirs, which are `known` for the
    /// places of the old one.
    pub(super) fn paces(
        &self,
        old: &Map,
        known: impl Iterator<Item = Pace>,
        new: &Map,
        now: Instant,
    ) -> Vec<Pace> {
        let old = old.places().iter().map(|place| &place.partition);
        let mut known: HashMap<_, _> = old.zip(known).collect();
        let new = new.places().iter().map(|place| &place.partition);
        new.map(|partition| known.remove(partition).unwrap_or_else(|| self.pace(now)))
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
}

impl<L> Filling<L> {
    pub(super) fn new() -> Self {
        Self {
            loads: Vec::new(),
            entries: Vec::new(),
            bytes: 0,
        }
    }

    /// How large one entry more may be. The first one may be as large as it is.
    pub(super) fn room(&self) -> usize {
        match self.loads.len() {
            0 => usize::MAX,
            MOST_ENTRIES.. => 0,
            _ => MOST_BYTES.saturating_sub(self.bytes),
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
    /// Both halves, to find out which one holds what was refused.
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

/// How long to wait after so many failures.
pub(super) fn delay(attempts: u32) -> Duration {
    // Beyond this many doublings the delay is the longest one anyway.
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
