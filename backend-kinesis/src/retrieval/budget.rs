//! The bytes of responses that the pollers of a member hold together. Without a bound, hundreds of shards with a backlog
//! would have a response of 10 MiB each.
//!
//! The runtime holds as much again, and one batch more for each partition. So the more partitions there are, the smaller
//! are the batches.
//!
//! A poller reserves room for its next response before it asks, and gives it back when all records are delivered. One
//! whose partition is paused for a while drops its records, if others wait for room, and asks again later. So no partition
//! keeps the room of others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit of the bookkeeping.
const UNIT: usize = 1_024;

/// The maximum of one response.
const MOST: usize = 10 << 20;

/// What is reserved for a response of a shard without a backlog.
const LEAST: usize = 1 << 20;

/// The budget of one member. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    bytes: usize,
    units: usize,
    free: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    /// The number of readers.
    readers: Arc<AtomicUsize>,
    /// The largest average size of the records of a response, or 0: what a reader expects that knows none of its shard.
    record: Arc<AtomicUsize>,
}

/// A poller that waits for room.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Reserved room. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Room {
    units: OwnedSemaphorePermit,
}

impl Room {
    /// Gives back what a response of this size does not need.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let unused = self
            .units
            .num_permits()
            .saturating_sub(bytes.div_ceil(UNIT));
        drop(self.units.split(unused));
    }
}

impl Budget {
    /// Creates a budget of this size, with room for at least one response.
    pub(crate) fn new(bytes: usize) -> Self {
        let units = bytes.max(MOST).div_ceil(UNIT).min(Semaphore::MAX_PERMITS);
        Self {
            bytes,
            units,
            free: Arc::new(Semaphore::new(units)),
            waiting: Arc::default(),
            readers: Arc::default(),
            record: Arc::default(),
        }
    }

    /// Waits for room. Cancel safe; those who wait longest are served first.
    async fn reserve(&self, bytes: usize) -> Room {
        let units = bytes.div_ceil(UNIT).min(self.units);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        self.waiting.fetch_add(1, Relaxed);
        let _waiting = Waiting(&self.waiting);
        let units = self.free.clone().acquire_many_owned(units).await;
        Room {
            units: units.expect("the semaphore is never closed"),
        }
    }
}

/// The room that one reader needs.
#[derive(Debug)]
pub(super) struct Demand {
    budget: Budget,
    /// The expected size of the next response.
    bytes: usize,
    /// The size of a record, if one is known.
    record: Option<usize>,
}

impl Demand {
    pub(super) fn new(budget: Budget) -> Self {
        budget.readers.fetch_add(1, Relaxed);
        let record = Some(budget.record.load(Relaxed)).filter(|record| *record > 0);
        Self {
            budget,
            // A request cannot ask for less without the size of a record.
            bytes: record.map_or(MOST, |_| LEAST),
            record,
        }
    }

    /// Waits for room for the next response: for its records and, until these are decoded, for its text.
    pub(super) async fn room(&self) -> Room {
        self.budget.reserve(self.bytes * 2).await
    }

    /// Returns the maximum bytes of a batch, at most `most`: half of the budget is shared by the batches of all readers.
    pub(super) fn batch(&self, most: usize) -> usize {
        let readers = self.budget.readers.load(Relaxed).max(1);
        most.min(self.budget.bytes / 2 / readers).max(1)
    }

    /// Returns whether others wait for room.
    pub(super) fn is_contended(&self) -> bool {
        self.budget.waiting.load(Relaxed) > 0
    }

    /// Records that a response was dropped: the next one must not be as large for nothing.
    pub(super) fn dropped(&mut self) {
        self.bytes = LEAST;
    }

    /// Returns the maximum number of records that the room is for. Without a known size, that is for the service to decide.
    pub(super) fn records(&self) -> usize {
        let record = self.record.filter(|_| self.bytes < MOST);
        record.map_or(usize::MAX, |record| (self.bytes / record).max(1))
    }

    /// Learns from a response.
    pub(super) fn received(&mut self, records: usize, bytes: usize) {
        if let Some(record) = bytes.checked_div(records) {
            self.record = Some(record.max(1));
            self.budget.record.fetch_max(record, Relaxed);
        }
        self.bytes = match bytes * 2 > self.bytes {
            true => self.bytes * 2,
            false => self.bytes / 2,
        }
        .clamp(LEAST, MOST);
    }
}

impl Drop for Demand {
    fn drop(&mut self) {
        self.budget.readers.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn pollers_share_the_budget() {
        let budget = Budget::new(45 << 20);
        let first = Demand::new(budget.clone());
        let mut rooms = [first.room(), first.room()].map(|room| room.now_or_never().unwrap());
        assert!(first.room().now_or_never().is_none(), "5 MiB are left");
        let mut quiet = Demand::new(budget);
        (0..9).for_each(|_| quiet.received(0, 0));
        assert!(quiet.room().now_or_never().is_some());
        rooms[0].shrink(99 << 20);
        assert!(first.room().now_or_never().is_none(), "it has all it had");
        rooms[0].shrink(5 << 20);
        assert!(first.room().now_or_never().is_some());
        drop(rooms);
        let both = [first.room(), first.room()].map(|room| room.now_or_never());
        assert!(both.iter().all(Option::is_some));
    }

    #[test]
    fn batches_share_half_of_the_budget() {
        let budget = Budget::new(16 << 20);
        let first = Demand::new(budget.clone());
        assert_eq!(first.batch(1 << 20), 1 << 20);
        let others: Vec<_> = (1..64).map(|_| Demand::new(budget.clone())).collect();
        assert_eq!(first.batch(1 << 20), (8 << 20) / 64);
        drop(others);
        assert_eq!(first.batch(1 << 20), 1 << 20);
    }

    #[test]
    fn later_readers_know_the_size_of_records() {
        let budget = Budget::new(16 << 20);
        let mut first = Demand::new(budget.clone());
        first.received(8, 8 << 10);
        first.received(8, 8 << 7);
        let second = Demand::new(budget);
        assert_eq!((second.bytes, second.records()), (LEAST, 1_024));
    }

    #[test]
    fn a_small_budget_has_room_for_one_response() {
        let demand = Demand::new(Budget::new(1));
        let room = demand.room().now_or_never();
        assert!(room.is_some() && demand.room().now_or_never().is_none());
    }

    #[test]
    fn a_request_asks_for_what_there_is_room_for() {
        let mut demand = Demand::new(Budget::new(64 << 20));
        assert_eq!(demand.records(), usize::MAX);
        (0..9).for_each(|_| demand.received(1, 1_024));
        assert_eq!((demand.bytes, demand.records()), (LEAST, 1_024));
        for expected in [2 << 20, 4 << 20, 8 << 20, MOST, MOST] {
            demand.received(1_024, demand.bytes);
            assert_eq!(demand.bytes, expected);
        }
        assert_eq!(demand.records(), usize::MAX);
    }
}
