//! Which records may go to the broker now: the order of keys under
//! [`Pipelining::ByKey`](crate::driver::Pipelining::ByKey).
//!
//! Pure bookkeeping: it starts nothing, knows no clock, and is driven by events.
//!
//! # Why the order of a key holds
//!
//! A key is *bound* while a call has records of it, or while its first record waits for a retry. A
//! record goes into a call only if its key is not bound by anything but this call, and if no
//! earlier record of its key is left behind. The earlier records of a key are, from old to new:
//!
//! 1. in the call under way, or handed back by it ([`done`](KeyOrderedQueue::done) puts those in front of
//!    the held ones),
//! 2. held by the key,
//! 3. in `ready`, in the order of `push`.
//!
//! [`take`](KeyOrderedQueue::take) walks `ready` from the front and moves what must not go to the *end* of
//! its key's held ones, so 2 stays older than 3. It takes from `ready` a record of a known key only
//! if this very call has all that the key held. So what a call has of a key is always the oldest
//! there is of it, and within a call the driver keeps the order.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::mem;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use foldhash::fast::FixedState;
use tokio::time::Instant;

/// Waits before a failed record is tried again: doubled at each failure of it, prolonged by up to
/// itself at random.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// Stands for a key. Two keys with one hash are kept in one order, which costs them some speed and
/// nothing else. The hash is the same in every process, so that a simulation replays.
pub(super) fn hash(key: &[u8]) -> u64 {
    FixedState::default().hash_one(key)
}

/// A record that waits, without what is done with it.
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

/// Records for one call, and the keys that the call binds: [`KeyOrderedQueue::done`] wants them back.
pub(super) struct ItemBatch<T> {
    pub(super) items: Vec<Item<T>>,
    pub(super) keys: Vec<u64>,
    bytes: usize,
}

/// How much goes into one call.
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
    /// What waits for its time; the number keeps apart what is due at the same time.
    due: BTreeMap<(Instant, u64), Retry<T>>,
    /// Counts calls and waits: names the calls, and seeds the jitter.
    turn: u64,
}

struct Key<T> {
    /// The call that has records of this key, or the last one that had.
    call: u64,
    held: VecDeque<Item<T>>,
    /// What the call that ends now hands back.
    returned: VecDeque<Item<T>>,
    /// Whether a record in that call has failed for good.
    released: bool,
}

enum Retry<T> {
    Key(u64),
    /// Has no key: it holds nothing back and is held back by nothing.
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

    /// Returns when the next failed record is to be tried again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Adds a new record.
    pub(super) fn push(&mut self, item: Item<T>) {
        self.ready.push_back(item);
    }

    /// Takes what may go in one more call, and binds its keys to that call.
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
    /// that are to be tried `again`. `failed` are the keys of records that have failed for good.
    ///
    /// A call that was not made by [`take`](Self::take) has bound nothing, and has had no other
    /// call beside it: the keys of what has failed are bound here.
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

    /// Decides for one key what comes next: nothing, its held records, or a wait.
    ///
    /// Only the first record of a key that fails in a call has failed itself; the later ones are
    /// handed back for its sake. So if one has failed for good, it was the first, and what comes
    /// back goes on at once. Otherwise what comes back first has failed, and waits.
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
    /// Counts a failure and returns when to retry: at its deadline at the latest, for a last
    /// time.
    fn fail(&mut self, now: Instant, turn: u64) -> Instant {
        self.attempts += 1;
        // Beyond this many doublings the delay is the longest one anyway.
        let doublings = self.attempts.min(16) as usize - 1;
        let delay = ExponentialBuilder::new()
            .with_min_delay(FIRST_DELAY)
            .with_max_delay(LONGEST_DELAY)
            .without_max_times()
            .with_jitter()
            // The key keeps processes apart that fail at the same time, the turn keeps apart the
            // waits of one process.
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
