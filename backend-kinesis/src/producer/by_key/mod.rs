//! Each record is an entry of its own: of each key, one record is in flight at a time.
//!
//! A key is *bound* while a record of it is in a request, waits for a retry, or is next in a lane. Later records are
//! held by the key, in order. A new record of a bound key is added to them when a lane reaches it. So the record that
//! is sent for a key is always the oldest remaining one.

mod lane;

use std::collections::{BTreeMap, HashMap, VecDeque};

use foldhash::fast::FixedState;
use millstream_core::{Error, ErrorKind, RecordMetadata};
use tokio::time::Instant;

use self::lane::Lane;
use super::calls::{Calls, Ticket};
use super::lanes::{Allowed, Batch, Filling, Lanes, MOST_ENTRIES, Settings, delay};
use super::shard_map::ShardMap;
use super::transport::Landed;
use crate::aggregate::{Address, Entry};
use crate::stream::HashKey;

pub(super) struct ByKey {
    settings: Settings,
    map: ShardMap,
    /// One lane for each shard of the map.
    lanes: Vec<Lane>,
    /// The bound keys, and the records that they hold.
    keys: HashMap<HashKey, VecDeque<Ticket>, FixedState>,
    /// Failed records, by the time of their retry; the number distinguishes equal times.
    waiting: BTreeMap<(Instant, u64), Vec<Ticket>>,
    waits: u64,
    /// The lane that is served first.
    turn: usize,
}

impl ByKey {
    pub(super) fn new(settings: Settings, map: ShardMap, now: Instant) -> Self {
        let limiter = settings.limiter(now);
        let lanes = map.open_shards().iter().map(|_| Lane::new(limiter.clone()));
        Self {
            lanes: lanes.collect(),
            map,
            settings,
            keys: HashMap::default(),
            waiting: BTreeMap::new(),
            waits: 0,
            turn: 0,
        }
    }

    /// Releases a record as the next of its key.
    fn license(&mut self, mut ticket: Ticket, due: Instant) {
        if ticket.is_free() {
            ticket.hash = self.map.next_keyless_hash();
        }
        let lane = &mut self.lanes[self.map.index_of(ticket.hash)];
        lane.expect(ticket.bytes, due);
        lane.next.push_back(ticket);
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
            if calls.wanted(&next).is_some() {
                let sent = calls.sent(&next).unwrap_or(now);
                return self.license(next, sent + self.settings.config.linger);
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
                self.license(ticket, now);
            }
        }
    }

    /// Returns whether a record that may be sent has lingered long enough, or the records fill a request.
    fn is_due(&self, most_bytes: usize, now: Instant) -> bool {
        let (mut records, mut bytes) = (0, 0);
        let open = self.lanes.iter().filter(|lane| lane.ready_at() <= now);
        for lane in open.filter(|lane| !lane.is_empty()) {
            records += lane.next.len() + lane.fresh.len();
            bytes += lane.bytes;
            if lane.due <= now || records >= MOST_ENTRIES || bytes >= most_bytes {
                return true;
            }
        }
        false
    }

    fn fill(
        &mut self,
        index: usize,
        filling: &mut Filling<Ticket>,
        calls: &mut Calls,
        now: Instant,
    ) {
        while self.lanes[index].ready_at() <= now {
            let Some(ticket) = self.lanes[index].pop(&mut self.keys) else {
                return;
            };
            let Some(record) = calls.wanted(&ticket) else {
                self.release(&ticket, calls, now);
                continue;
            };
            let keyless = || self.map.keyless(index);
            let address = Address {
                partition_key: record.key.as_ref().unwrap_or_else(keyless),
                explicit_hash_key: ticket.explicit_hash_key(),
            };
            let entry = Entry::of(address, record);
            let lane = &mut self.lanes[index];
            if entry.size() > filling.room() {
                return lane.put_back(ticket);
            }
            lane.limiter.spend(entry.size(), now);
            filling.add(ticket, entry);
        }
    }
}

impl Lanes for ByKey {
    type Load = Ticket;

    fn push(&mut self, mut ticket: Ticket, calls: &Calls, now: Instant) {
        if ticket.is_free() {
            ticket.hash = self.map.next_keyless_hash();
        }
        let sent = calls.sent(&ticket).unwrap_or(now);
        let lane = &mut self.lanes[self.map.index_of(ticket.hash)];
        lane.expect(ticket.bytes, sent + self.settings.config.linger);
        lane.fresh.push_back(ticket);
    }

    fn take(&mut self, calls: &mut Calls, allowed: Allowed, now: Instant) -> Batch<Ticket> {
        self.release_due(now);
        let mut filling = Filling::new(allowed.bytes);
        if self.is_due(allowed.bytes, now) {
            let lanes = self.lanes.len();
            self.turn = (self.turn + 1) % lanes;
            for index in 0..lanes {
                self.fill((self.turn + index) % lanes, &mut filling, calls, now);
            }
        }
        filling.finish()
    }

    fn wakes(&self) -> Option<Instant> {
        let full = self.lanes.iter().filter(|lane| !lane.is_empty());
        let next = full.map(|lane| lane.due.max(lane.ready_at())).min();
        let retry = self.waiting.first_key_value().map(|((at, _), _)| *at);
        next.into_iter().chain(retry).min()
    }

    fn landed(&mut self, ticket: Ticket, landed: Landed, calls: &mut Calls, now: Instant) -> bool {
        let (partition, expected) = self.map.locate(ticket.hash, &landed.shard);
        calls.answer(&ticket, Ok(RecordMetadata::new(partition, landed.position)));
        self.release(&ticket, calls, now);
        !expected
    }

    fn again(&mut self, failed: Vec<(Ticket, Error)>, calls: &mut Calls, now: Instant) {
        // Records that failed equally often wait together, so they share a request again.
        let mut groups = BTreeMap::<u32, Vec<Ticket>>::new();
        for (mut ticket, error) in failed {
            if error.kind() == ErrorKind::Throttled {
                let lane = self.map.index_of(ticket.hash);
                self.lanes[lane].limiter.throttled(ticket.bytes, now);
            }
            if calls.wanted(&ticket).is_none() {
                self.release(&ticket, calls, now);
                continue;
            }
            ticket.attempts += 1;
            groups.entry(ticket.attempts).or_default().push(ticket);
        }
        for (attempts, tickets) in groups {
            // A record whose deadline expires meanwhile must not block the later ones of its key.
            let deadlines = tickets.iter().filter_map(|ticket| calls.deadline(ticket));
            let at = deadlines.fold(now + delay(attempts), Instant::min);
            self.waits += 1;
            self.waiting.insert((at, self.waits), tickets);
        }
    }

    fn refused(&mut self, ticket: Ticket, error: Error, calls: &mut Calls, now: Instant) {
        calls.answer(&ticket, Err(error));
        self.release(&ticket, calls, now);
    }

    fn remap(&mut self, mut map: ShardMap, _calls: &mut Calls, now: Instant) {
        if self.map.has_same_open_shards(&map) {
            return self.map.update_ranges(map);
        }
        let known = self.lanes.iter().map(|lane| lane.limiter.clone());
        let limiters = self.settings.limiters(&self.map, known, &map, now);
        let mut lanes: Vec<_> = limiters.into_iter().map(Lane::new).collect();
        for lane in self.lanes.drain(..) {
            let mut place = |mut ticket: Ticket| {
                if ticket.is_free() {
                    ticket.hash = map.next_keyless_hash();
                }
                (map.index_of(ticket.hash), ticket)
            };
            for ticket in lane.next {
                let (index, ticket) = place(ticket);
                lanes[index].expect(ticket.bytes, lane.due);
                lanes[index].next.push_back(ticket);
            }
            for ticket in lane.fresh {
                let (index, ticket) = place(ticket);
                lanes[index].expect(ticket.bytes, lane.due);
                lanes[index].fresh.push_back(ticket);
            }
        }
        self.lanes = lanes;
        self.map = map;
    }

    fn map(&self) -> &ShardMap {
        &self.map
    }
}
