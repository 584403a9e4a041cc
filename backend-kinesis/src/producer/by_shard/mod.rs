//! Each entry has many records: of each shard, one aggregate is in flight at a time.
//!
//! Each shard has one queue of waiting records, and an aggregate takes from its front. The records of an aggregate that was
//! not stored, or not where all its records belong, return to the front before the next aggregate is
//! filled. While records wait, its [size](AggregateSize) grows with the latency of the requests.
//!
//! # When the shards change
//!
//! The map may be outdated: an aggregate is filled for a shard that was split or merged meanwhile, and its
//! explicit hash key, which is that of its first record, routes it to the shard that now has that hash
//! key. If that is a merged shard, all records are in the right shard. If it is half of a split one, then
//! records whose hash belongs to the other half are in a shard where readers may not look for them: a
//! millstream reader skips just these, and the KCL skips **the whole aggregate**. So no record of such
//! an aggregate gets a result, and all of them are sent again; a millstream reader sees some of them twice.
//!
//! The order of a key holds for both readers. No record of a key is sent while an aggregate is in flight that could have
//! records of it: a lane is *busy* as long as there is such an aggregate whose cover overlaps its own, also when a new map
//! recreates the lanes. An aggregate that comes back is sent before all waiting records, so its records precede later ones
//! of their keys: the KCL sees them there first. A millstream reader has seen, in the misrouted aggregate, the same
//! records in the same order, and none of a key whose earlier ones it could not see, because all records of a key have
//! one hash. A key whose records have several explicit hash keys has an order for each of them.
//!
//! Whether an aggregate is where it belongs is unknown for a shard that the map does not contain. The aggregate
//! waits for the next map, and keeps its lanes busy. A shard that is also missing there counts as wrong, which costs
//! duplicates at most.

mod aggregate_size;
mod lane;

use millstream_core::telemetry::event;
use millstream_core::{Error, ErrorKind, RecordMetadata};
use tokio::time::Instant;

use self::aggregate_size::AggregateSize;
use self::lane::{Carried, Lane};
use super::calls::{Calls, Ticket};
use super::lanes::{Allowed, Batch, Filling, Lanes, Settings, delay};
use super::shard_map::ShardMap;
use super::transport::Landed;
use crate::aggregate::{Address, AggregateBuilder};
use crate::stream::HashRange;

/// Requests of up to this size are not divided: more requests would cost more than they gain.
const UNDIVIDED_BYTES: usize = 512 << 10;

pub(super) struct ByShard {
    settings: Settings,
    /// That of a lane which has sent nothing.
    size: AggregateSize,
    map: ShardMap,
    /// One lane for each shard of the map.
    lanes: Vec<Lane>,
    /// The covers of all aggregates that keep lanes busy.
    covers: Vec<HashRange>,
    /// Aggregates that were stored in shards that the map does not contain.
    unmapped: Vec<(Carried, Landed)>,
    /// The lane that is served first.
    turn: usize,
}

impl ByShard {
    pub(super) fn new(settings: Settings, map: ShardMap, now: Instant) -> Self {
        let limiter = settings.limiter(now);
        let size = AggregateSize::new(settings.config.aggregate_bytes, settings.record_bytes);
        let lanes = map.open_shards().iter();
        let lanes = lanes.map(|_| Lane::new(limiter.clone(), size.clone(), now));
        Self {
            lanes: lanes.collect(),
            size,
            map,
            covers: Vec::new(),
            unmapped: Vec::new(),
            turn: 0,
            settings,
        }
    }

    /// Returns the maximum size of the next request. A large request takes longer, and all its shards wait for it. So
    /// what may be sent now is divided among the requests that may be sent.
    fn request_bytes(&self, allowed: Allowed, now: Instant) -> usize {
        let due = self.lanes.iter().filter(|lane| lane.is_due(now));
        let due: usize = due.map(|lane| lane.wants(allowed.bytes, now)).sum();
        let part = due.div_ceil(allowed.requests);
        part.max(UNDIVIDED_BYTES).min(allowed.bytes)
    }

    /// Adds the records that one lane may send to the request.
    fn fill(
        &mut self,
        index: usize,
        filling: &mut Filling<Carried>,
        most_bytes: usize,
        calls: &mut Calls,
        now: Instant,
    ) {
        let lane = &mut self.lanes[index];
        let room = filling.room();
        if !lane.is_due(now) || lane.wants(most_bytes, now) > room {
            return;
        }
        let mut largest = lane.target(most_bytes, now).min(room);
        // Some readers (Python, Node) give the first explicit hash key of an aggregate to its records without one. So
        // either all records of an aggregate have one, or none.
        let are_explicit = lane.explicit > 0;
        let mut aggregate = AggregateBuilder::new();
        let mut tickets = Vec::new();
        while let Some(&ticket) = lane.queue.front() {
            if let Some(record) = calls.wanted(&ticket) {
                let keyless = || self.map.keyless(index);
                let mut address = Address {
                    partition_key: record.key.as_ref().unwrap_or_else(keyless),
                    explicit_hash_key: are_explicit.then_some(ticket.hash),
                };
                let mut size = aggregate.size_with(address, record);
                let mut most = largest;
                if aggregate.is_empty() && size > largest {
                    // It is sent alone, by its own address: so it was checked against the limit of the stream.
                    address.explicit_hash_key = ticket.explicit_hash_key();
                    size = aggregate.size_with(address, record);
                    (most, largest) = (room, 0);
                }
                if size > most || tickets.len() >= lane.most {
                    break;
                }
                aggregate.push(address, record);
                tickets.push(ticket);
            }
            lane.pop();
        }
        let Some(entry) = aggregate.finish() else {
            return;
        };
        let bytes = entry.size();
        lane.limiter.spend(bytes, now);
        lane.busy += 1;
        let cover = self.map.open_shards()[index].cover;
        self.covers.push(cover);
        let carried = Carried {
            tickets,
            bytes,
            sent: now,
            cover,
        };
        filling.add(carried, entry);
    }

    /// Ends the busy state that the aggregate causes. Returns its lanes.
    fn release(&mut self, cover: HashRange) -> &mut [Lane] {
        let index = self.covers.iter().position(|known| *known == cover);
        self.covers.swap_remove(index.expect("it was on its way"));
        let lanes = &mut self.lanes[self.map.indexes_of(cover)];
        for lane in &mut *lanes {
            lane.busy -= 1;
        }
        lanes
    }

    /// Blocks the lanes of these records for a while.
    fn wait(&mut self, carried: &Carried, until: Instant, calls: &Calls) {
        // A record whose deadline expires meanwhile must not block the records behind it.
        let deadlines = carried.tickets.iter().filter_map(|t| calls.deadline(t));
        let until = deadlines.fold(until, Instant::min);
        for lane in &mut self.lanes[self.map.indexes_of(carried.cover)] {
            lane.waits_until = until;
        }
    }

    /// Puts records before all waiting ones.
    fn put_back(&mut self, tickets: Vec<Ticket>, calls: &mut Calls, now: Instant) {
        for mut ticket in tickets.into_iter().rev() {
            if calls.wanted(&ticket).is_some() {
                if ticket.is_free() {
                    ticket.hash = self.map.next_keyless_hash();
                }
                let lane = &mut self.lanes[self.map.index_of(ticket.hash)];
                lane.expect(&ticket, now);
                lane.queue.push_front(ticket);
            }
        }
    }

    /// Handles an aggregate that was stored in a shard of this range.
    fn place(
        &mut self,
        mut carried: Carried,
        landed: &Landed,
        range: Option<HashRange>,
        calls: &mut Calls,
        now: Instant,
    ) -> bool {
        for lane in self.release(carried.cover) {
            lane.most = usize::MAX;
        }
        let tickets = &carried.tickets;
        let (partition, expected) = self.map.locate(tickets[0].hash, &landed.shard);
        // The hash of a single record has routed the aggregate.
        let is_in_place = tickets.len() == 1
            || range.is_some_and(|range| tickets.iter().all(|t| range.contains(t.hash)));
        if !is_in_place {
            event!(
                debug,
                "millstream.kinesis.producer.strayed",
                stream = partition.stream(),
                partition = partition.id(),
                records = tickets.len(),
                "an aggregate was stored in a shard that not all its records belong to, and is \
                 sent again"
            );
            // The second time, the map was as wrong as the first time.
            let attempts = carried.fail(calls);
            if attempts > 1 {
                self.wait(&carried, now + delay(attempts), calls);
            }
            self.put_back(carried.tickets, calls, now);
            return true;
        }
        for (ticket, sub) in tickets.iter().zip(0..) {
            let position = landed.position.with_sub_sequence(sub);
            calls.answer(ticket, Ok(RecordMetadata::new(partition.clone(), position)));
        }
        !expected
    }
}

impl Lanes for ByShard {
    type Load = Carried;

    fn push(&mut self, mut ticket: Ticket, calls: &Calls, now: Instant) {
        if ticket.is_free() {
            ticket.hash = self.map.next_keyless_hash();
        }
        let sent = calls.sent(&ticket).unwrap_or(now);
        let lane = &mut self.lanes[self.map.index_of(ticket.hash)];
        lane.expect(&ticket, sent + self.settings.config.linger);
        lane.queue.push_back(ticket);
    }

    fn take(&mut self, calls: &mut Calls, allowed: Allowed, now: Instant) -> Batch<Carried> {
        let mut filling = Filling::new(self.request_bytes(allowed, now));
        let lanes = self.lanes.len();
        self.turn = (self.turn + 1) % lanes;
        for index in 0..lanes {
            let index = (self.turn + index) % lanes;
            self.fill(index, &mut filling, allowed.bytes, calls, now);
        }
        filling.finish()
    }

    fn wakes(&self) -> Option<Instant> {
        let free = self.lanes.iter().filter(|lane| lane.is_free());
        free.map(Lane::goes).min()
    }

    fn landed(
        &mut self,
        carried: Carried,
        landed: Landed,
        calls: &mut Calls,
        now: Instant,
    ) -> bool {
        let took = now.saturating_duration_since(carried.sent);
        for lane in &mut self.lanes[self.map.indexes_of(carried.cover)] {
            lane.size.stored(took);
        }
        let range = self.map.range(&landed.shard);
        if range.is_none() && carried.tickets.len() > 1 {
            self.unmapped.push((carried, landed));
            return true;
        }
        self.place(carried, &landed, range, calls, now)
    }

    fn again(&mut self, failed: Vec<(Carried, Error)>, calls: &mut Calls, now: Instant) {
        for (mut carried, error) in failed {
            let attempts = carried.fail(calls);
            if error.kind() == ErrorKind::Throttled {
                let lane = self.map.index_of(carried.tickets[0].hash);
                let lane = &mut self.lanes[lane];
                lane.limiter.throttled(carried.bytes, now);
                if attempts > 1 {
                    lane.size.throttled_again(carried.bytes);
                }
            }
            self.release(carried.cover);
            self.wait(&carried, now + delay(attempts), calls);
            self.put_back(carried.tickets, calls, now);
        }
    }

    fn refused(&mut self, carried: Carried, error: Error, calls: &mut Calls, now: Instant) {
        let Carried { tickets, cover, .. } = carried;
        let is_of_one = matches!(error.kind(), ErrorKind::Invalid | ErrorKind::TooLarge);
        if is_of_one && tickets.len() > 1 {
            for lane in self.release(cover) {
                lane.most = tickets.len() / 2;
            }
            return self.put_back(tickets, calls, now);
        }
        for lane in self.release(cover) {
            lane.most = usize::MAX;
        }
        for ticket in &tickets {
            calls.answer(ticket, Err(error.clone()));
        }
    }

    fn remap(&mut self, map: ShardMap, calls: &mut Calls, now: Instant) {
        if self.map.has_same_open_shards(&map) {
            self.map.update_ranges(map);
        } else {
            self.rebuild(map, now);
        }
        for (carried, landed) in std::mem::take(&mut self.unmapped) {
            let range = self.map.range(&landed.shard);
            self.place(carried, &landed, range, calls, now);
        }
    }

    fn map(&self) -> &ShardMap {
        &self.map
    }
}

impl ByShard {
    /// Recreates the lanes. The order of each key is kept, because all its records were in one lane and are again.
    fn rebuild(&mut self, mut map: ShardMap, now: Instant) {
        let known = self.lanes.iter().map(|lane| lane.limiter.clone());
        let limiters = self.settings.limiters(&self.map, known, &map, now);
        // The responses in flight measure the latency for the new lanes.
        let lanes = limiters.into_iter();
        let lanes = lanes.map(|limiter| Lane::new(limiter, self.size.clone(), now));
        let mut lanes: Vec<_> = lanes.collect();
        for lane in self.lanes.drain(..) {
            for mut ticket in lane.queue {
                if ticket.is_free() {
                    ticket.hash = map.next_keyless_hash();
                }
                let new = &mut lanes[map.index_of(ticket.hash)];
                new.expect(&ticket, lane.due);
                new.queue.push_back(ticket);
            }
        }
        for &cover in &self.covers {
            for lane in &mut lanes[map.indexes_of(cover)] {
                lane.busy += 1;
            }
        }
        (self.lanes, self.map) = (lanes, map);
    }
}
