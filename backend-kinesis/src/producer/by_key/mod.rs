//! Each record is an entry of its own: of each key, one record is in flight at a time.
//!
//! A key is *bound* while a record of it is in a request, waits for a retry, or is next in a queue. Later records are
//! held by the key, in order. A new record of a bound key is added to them when a queue reaches it. So the record that
//! is sent for a key is always the oldest remaining one.

mod shard_queue;

use std::collections::{BTreeMap, HashMap, VecDeque};

use foldhash::fast::FixedState;
use millstream_core::{Error, ErrorKind, RecordMetadata};
use tokio::time::Instant;

use self::shard_queue::ShardQueue;
use super::accumulator::{RecordAccumulator, RequestLimits};
use super::calls::{Calls, Ticket};
use super::request::{MOST_ENTRIES, PutRequest, RequestBuilder};
use super::retry_delay::retry_delay;
use super::settings::ProducerSettings;
use super::shard_map::{Prediction, ShardMap};
use super::transport::ShardPosition;
use crate::aggregate::{Address, Entry};
use crate::stream::HashKey;

pub(super) struct ByKey {
    settings: ProducerSettings,
    map: ShardMap,
    /// One queue for each shard of the map.
    queues: Vec<ShardQueue>,
    /// The bound keys, and the records that they hold.
    keys: HashMap<HashKey, VecDeque<Ticket>, FixedState>,
    /// Failed records, by the time of their retry; the number distinguishes equal times.
    waiting: BTreeMap<(Instant, u64), Vec<Ticket>>,
    waits: u64,
    /// The queue that is served first.
    turn: usize,
}

impl ByKey {
    pub(super) fn new(settings: ProducerSettings, map: ShardMap, now: Instant) -> Self {
        let limiter = settings.limiter(now);
        let queues = map
            .open_shards()
            .iter()
            .map(|_| ShardQueue::new(limiter.clone()));
        Self {
            queues: queues.collect(),
            map,
            settings,
            keys: HashMap::default(),
            waiting: BTreeMap::new(),
            waits: 0,
            turn: 0,
        }
    }

    /// Releases a record as the next of its key.
    fn enqueue_next(&mut self, mut ticket: Ticket, due: Instant) {
        if ticket.is_unkeyed() {
            ticket.hash = self.map.next_keyless_hash();
        }
        let queue = &mut self.queues[self.map.index_of(ticket.hash)];
        queue.account_for(ticket.bytes, due);
        queue.next.push_back(ticket);
    }

    /// Frees the key of a record that has its result, for the next record.
    fn release(&mut self, ticket: &Ticket, calls: &mut Calls, now: Instant) {
        let Some(key) = ticket.key else {
            return;
        };
        let Some(held) = self.keys.get_mut(&key) else {
            return;
        };
        while let Some(next) = held.pop_front() {
            if calls.record_to_send(&next).is_some() {
                let sent = calls.sent(&next).unwrap_or(now);
                return self.enqueue_next(next, sent + self.settings.config.linger);
            }
        }
        self.keys.remove(&key);
    }

    fn release_due(&mut self, now: Instant) {
        while let Some(first) = self.waiting.first_entry() {
            if first.key().0 > now {
                return;
            }
            for ticket in first.remove() {
                self.enqueue_next(ticket, now);
            }
        }
    }

    /// Returns whether a record that may be sent has lingered long enough, or the records fill a request.
    fn is_due(&self, most_bytes: usize, now: Instant) -> bool {
        let (mut records, mut bytes) = (0, 0);
        let ready = self.queues.iter().filter(|queue| queue.ready_at() <= now);
        for queue in ready.filter(|queue| !queue.is_empty()) {
            records += queue.next.len() + queue.fresh.len();
            bytes += queue.bytes;
            if queue.due <= now || records >= MOST_ENTRIES || bytes >= most_bytes {
                return true;
            }
        }
        false
    }

    fn fill(
        &mut self,
        index: usize,
        request: &mut RequestBuilder<Ticket>,
        calls: &mut Calls,
        now: Instant,
    ) {
        while self.queues[index].ready_at() <= now {
            let Some(ticket) = self.queues[index].pop(&mut self.keys) else {
                return;
            };
            let Some(record) = calls.record_to_send(&ticket) else {
                self.release(&ticket, calls, now);
                continue;
            };
            let keyless = || self.map.keyless(index);
            let address = Address {
                partition_key: record.key.as_ref().unwrap_or_else(keyless),
                explicit_hash_key: ticket.explicit_hash_key(),
            };
            let entry = Entry::of(address, record);
            let queue = &mut self.queues[index];
            if entry.size() > request.room() {
                return queue.put_back(ticket);
            }
            queue.limiter.spend(entry.size(), now);
            request.add(ticket, entry);
        }
    }
}

impl RecordAccumulator for ByKey {
    type EntryTickets = Ticket;

    fn push(&mut self, mut ticket: Ticket, calls: &Calls, now: Instant) {
        if ticket.is_unkeyed() {
            ticket.hash = self.map.next_keyless_hash();
        }
        let sent = calls.sent(&ticket).unwrap_or(now);
        let queue = &mut self.queues[self.map.index_of(ticket.hash)];
        queue.account_for(ticket.bytes, sent + self.settings.config.linger);
        queue.fresh.push_back(ticket);
    }

    fn drain(
        &mut self,
        calls: &mut Calls,
        limits: RequestLimits,
        now: Instant,
    ) -> PutRequest<Ticket> {
        self.release_due(now);
        let mut request = RequestBuilder::new(limits.bytes);
        if self.is_due(limits.bytes, now) {
            let queues = self.queues.len();
            self.turn = (self.turn + 1) % queues;
            for index in 0..queues {
                self.fill((self.turn + index) % queues, &mut request, calls, now);
            }
        }
        request.finish()
    }

    fn next_wakeup(&self) -> Option<Instant> {
        let full = self.queues.iter().filter(|queue| !queue.is_empty());
        let next = full.map(|queue| queue.due.max(queue.ready_at())).min();
        let retry = self.waiting.first_key_value().map(|((at, _), _)| *at);
        next.into_iter().chain(retry).min()
    }

    fn stored(
        &mut self,
        ticket: Ticket,
        stored: ShardPosition,
        calls: &mut Calls,
        now: Instant,
    ) -> Prediction {
        let (partition, prediction) = self.map.locate(ticket.hash, &stored.shard);
        calls.resolve(&ticket, Ok(RecordMetadata::new(partition, stored.position)));
        self.release(&ticket, calls, now);
        prediction
    }

    fn retry(&mut self, failed: Vec<(Ticket, Error)>, calls: &mut Calls, now: Instant) {
        // Records that failed equally often wait together, so they share a request again.
        let mut groups = BTreeMap::<u32, Vec<Ticket>>::new();
        for (mut ticket, error) in failed {
            if error.kind() == ErrorKind::Throttled {
                let queue = self.map.index_of(ticket.hash);
                self.queues[queue].limiter.throttled(ticket.bytes, now);
            }
            if calls.record_to_send(&ticket).is_none() {
                self.release(&ticket, calls, now);
                continue;
            }
            ticket.attempts += 1;
            groups.entry(ticket.attempts).or_default().push(ticket);
        }
        for (attempts, tickets) in groups {
            // A record whose deadline expires meanwhile must not block the later ones of its key.
            let deadlines = tickets.iter().filter_map(|ticket| calls.deadline(ticket));
            let at = deadlines.fold(now + retry_delay(attempts), Instant::min);
            self.waits += 1;
            self.waiting.insert((at, self.waits), tickets);
        }
    }

    fn fail(&mut self, ticket: Ticket, error: Error, calls: &mut Calls, now: Instant) {
        calls.resolve(&ticket, Err(error));
        self.release(&ticket, calls, now);
    }

    fn remap(&mut self, mut map: ShardMap, _calls: &mut Calls, now: Instant) {
        if self.map.has_same_open_shards(&map) {
            return self.map.update_ranges(map);
        }
        let known = self.queues.iter().map(|queue| queue.limiter.clone());
        let limiters = self.settings.limiters(&self.map, known, &map, now);
        let mut queues: Vec<_> = limiters.into_iter().map(ShardQueue::new).collect();
        for queue in self.queues.drain(..) {
            let mut route = |mut ticket: Ticket| {
                if ticket.is_unkeyed() {
                    ticket.hash = map.next_keyless_hash();
                }
                (map.index_of(ticket.hash), ticket)
            };
            for ticket in queue.next {
                let (index, ticket) = route(ticket);
                queues[index].account_for(ticket.bytes, queue.due);
                queues[index].next.push_back(ticket);
            }
            for ticket in queue.fresh {
                let (index, ticket) = route(ticket);
                queues[index].account_for(ticket.bytes, queue.due);
                queues[index].fresh.push_back(ticket);
            }
        }
        self.queues = queues;
        self.map = map;
    }

    fn map(&self) -> &ShardMap {
        &self.map
    }
}
