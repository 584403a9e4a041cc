//! Decides which records may be sent to the broker now: the order of keys under
//! [`Pipelining::ByKey`](crate::driver::Pipelining::ByKey).
//!
//! It is pure bookkeeping: it starts nothing, knows no clock, and is driven by events.
//!
//! # Why the order of a key is preserved
//!
//! A key is *bound* while a call has records of it, or while its first record waits for a retry. A
//! record is added to a call only if its key is not bound by anything but this call, and if no
//! earlier record of its key is left behind. The earlier records of a key are, from old to new:
//!
//! 1. in the call in flight, or returned by it ([`done`](KeyOrderedQueue::done) puts those before
//!    the held ones),
//! 2. held by the key,
//! 3. in `ready`, in the order of `push`.
//!
//! [`take`](KeyOrderedQueue::take) walks `ready` from the front and moves records that must not be sent to the *end*
//! of the held ones of their key, so 2 stays older than 3. It takes a record of a known key from `ready` only
//! if this very call has all that the key held. So the records of a key in a call are always the oldest
//! ones of that key, and within a call the driver keeps the order.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::mem;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use foldhash::fast::FixedState;
use tokio::time::Instant;

/// The delay before a failed record is retried. It is doubled with each failure of the record, and prolonged by up
/// to the same time at random.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// Returns the hash that represents a key. Two keys with one hash are kept in one order, which only costs some
/// speed. The hash is the same in every process, so that a simulation replays.
pub(super) fn hash(key: &[u8]) -> u64 {
    FixedState::default().hash_one(key)
}

/// A waiting record. The queue does not know its `load`.
pub(super) struct Item<T> {
    /// The hash of its key, if it has one.
    pub(super) key: Option<u64>,
    pub(super) bytes: usize,
    pub(super) deadline: Instant,
    /// How often it was the first of its key to fail.
    pub(super) attempts: u32,
    /// Whether an attempt ended in `Timeout`: it may be stored already.
    pub(super) unclear: bool,
    pub(super) load: T,
}

/// Records for one call, and the keys that the call binds. The keys must be passed to [`KeyOrderedQueue::done`].
pub(super) struct ItemBatch<T> {
    pub(super) items: Vec<Item<T>>,
    pub(super) keys: Vec<u64>,
    bytes: usize,
}

/// The limits of one call.
#[derive(Clone, Copy)]
pub(super) struct BatchLimits {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

pub(super) struct KeyOrderedQueue<T> {
    ready: VecDeque<Item<T>>,
    /// The keys that are bound, and those that are free again and still have held records.
    keys: HashMap<u64, Key<T>, FixedState>,
    /// Keys that are free and have held records.
    free: VecDeque<u64>,
    /// Retries by due time. The number distinguishes those that are due at the same time.
    due: BTreeMap<(Instant, u64), Retry<T>>,
    /// Counts calls and waits. It identifies calls, and seeds the jitter.
    turn: u64,
}

struct Key<T> {
    /// The call that has records of this key, or the last one that had.
    call: u64,
    held: VecDeque<Item<T>>,
    /// The records that the ending call returns.
    returned: VecDeque<Item<T>>,
    /// Whether a record in that call has failed permanently.
    released: bool,
}

enum Retry<T> {
    Key(u64),
    /// A record without a key: it holds back no record and is held back by none.
    Keyless(Item<T>),
}

impl<T> KeyOrderedQueue<T> {
    pub(super) fn new() -> Self {
        Self {
            ready: VecDeque::new(),
            keys: HashMap::default(),
            free: VecDeque::new(),
            due: BTreeMap::new(),
            turn: 0,
        }
    }

    /// Returns whether nothing waits here and no key is bound.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.keys.is_empty() && self.due.is_empty()
    }

    /// Returns when the next failed record must be retried.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Adds a new record.
    pub(super) fn push(&mut self, item: Item<T>) {
        self.ready.push_back(item);
    }

    /// Takes the records that may be sent in one more call, and binds their keys to that call.
    pub(super) fn take(&mut self, now: Instant, most: BatchLimits) -> Option<ItemBatch<T>> {
        self.release_due(now);
        let call = self.next_turn();
        let mut batch = ItemBatch::new();
        while let Some(&hash) = self.free.front() {
            let key = self
                .keys
                .get_mut(&hash)
                .expect("a free key has held records");
            if !key.held.front().is_some_and(|item| batch.fits(item, most)) {
                return batch.non_empty();
            }
            self.free.pop_front();
            key.call = call;
            batch.keys.push(hash);
            while key.held.front().is_some_and(|item| batch.fits(item, most)) {
                batch.add(key.held.pop_front().expect("it has a front"));
            }
        }
        while self
            .ready
            .front()
            .is_some_and(|item| batch.fits(item, most))
        {
            let item = self.ready.pop_front().expect("it has a front");
            if let Some(hash) = item.key {
                match self.keys.entry(hash) {
                    Entry::Vacant(vacant) => {
                        vacant.insert(Key::bound(call));
                        batch.keys.push(hash);
                    }
                    Entry::Occupied(key) if key.get().call == call && key.get().held.is_empty() => {
                    }
                    Entry::Occupied(mut key) => {
                        key.get_mut().held.push_back(item);
                        continue;
                    }
                }
            }
            batch.add(item);
        }
        batch.non_empty()
    }

    /// Ends a call: frees the `keys` that it bound, and takes back, in their order, the records
    /// to retry (`again`). `failed` are the keys of records that have failed permanently.
    ///
    /// A call that was not made by [`take`](Self::take) has bound no key, and no other call was in flight with it: the
    /// keys of its failed records are bound here.
    pub(super) fn done(
        &mut self,
        mut keys: Vec<u64>,
        failed: Vec<u64>,
        again: Vec<Item<T>>,
        now: Instant,
    ) {
        for hash in failed {
            self.bound(hash, &mut keys).released = true;
        }
        for item in again {
            let hash = item.key.filter(|_| !failpoint!(ProducerOvertakes));
            match hash {
                Some(hash) => self.bound(hash, &mut keys).returned.push_back(item),
                None => self.retry_keyless(item, now),
            }
        }
        for hash in keys {
            self.end_call_of(hash, now);
        }
    }

    fn bound<'a>(&'a mut self, hash: u64, keys: &mut Vec<u64>) -> &'a mut Key<T> {
        let turn = self.turn;
        self.keys.entry(hash).or_insert_with(|| {
            keys.push(hash);
            Key::bound(turn)
        })
    }

    /// Decides what comes next for one key: nothing, its held records, or a wait.
    ///
    /// Only the first record of a key that fails in a call has failed itself. The later ones are returned because
    /// of it. So if a record has failed permanently, it was the first, and the returned records are sent again at
    /// once. Otherwise the first returned record has failed, and waits.
    fn end_call_of(&mut self, hash: u64, now: Instant) {
        let turn = self.next_turn();
        let key = self.keys.get_mut(&hash).expect("a bound key is known");
        let released = mem::take(&mut key.released);
        let due = key
            .returned
            .front_mut()
            .filter(|_| !released)
            .map(|first| first.fail(now, turn));
        if !key.returned.is_empty() {
            key.returned.append(&mut key.held);
            mem::swap(&mut key.returned, &mut key.held);
        }
        match due {
            Some(at) => _ = self.due.insert((at, turn), Retry::Key(hash)),
            None if key.held.is_empty() => _ = self.keys.remove(&hash),
            None => self.free.push_back(hash),
        }
    }

    fn retry_keyless(&mut self, mut item: Item<T>, now: Instant) {
        let turn = self.next_turn();
        let at = item.fail(now, turn);
        self.due.insert((at, turn), Retry::Keyless(item));
    }

    fn release_due(&mut self, now: Instant) {
        while let Some(first) = self.due.first_entry() {
            if first.key().0 > now {
                return;
            }
            match first.remove() {
                Retry::Key(hash) => self.free.push_back(hash),
                Retry::Keyless(item) => self.ready.push_front(item),
            }
        }
    }

    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }
}

impl<T> Key<T> {
    fn bound(call: u64) -> Self {
        Self {
            call,
            held: VecDeque::new(),
            returned: VecDeque::new(),
            released: false,
        }
    }
}

impl<T> Item<T> {
    /// Counts a failure and returns when to retry: at the deadline at the latest, for a last
    /// time.
    fn fail(&mut self, now: Instant, turn: u64) -> Instant {
        self.attempts += 1;
        // With more doublings the delay is the longest one anyway.
        let doublings = self.attempts.min(16) as usize - 1;
        let delay = ExponentialBuilder::new()
            .with_min_delay(FIRST_DELAY)
            .with_max_delay(LONGEST_DELAY)
            .without_max_times()
            .with_jitter()
            // The key spreads processes that fail at the same time, and the turn spreads the waits of
            // one process.
            .with_jitter_seed(self.key.unwrap_or(0) ^ turn)
            .build()
            .nth(doublings)
            .unwrap_or(LONGEST_DELAY);
        (now + delay).min(self.deadline.max(now))
    }
}

impl<T> ItemBatch<T> {
    fn new() -> Self {
        Self {
            items: Vec::new(),
            keys: Vec::new(),
            bytes: 0,
        }
    }

    fn fits(&self, item: &Item<T>, most: BatchLimits) -> bool {
        self.items.is_empty()
            || self.items.len() < most.records
                && self.bytes.saturating_add(item.bytes) <= most.bytes
    }

    fn add(&mut self, item: Item<T>) {
        self.bytes = self.bytes.saturating_add(item.bytes);
        self.items.push(item);
    }

    fn non_empty(self) -> Option<Self> {
        (!self.items.is_empty()).then_some(self)
    }
}

#[cfg(test)]
mod tests;
