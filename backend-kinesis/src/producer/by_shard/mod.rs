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
//! records of it: a buffer is *busy* as long as there is such an aggregate whose cover overlaps its own, also when a new map
//! recreates the buffers. An aggregate that comes back is sent before all waiting records, so its records precede later ones
//! of their keys: the KCL sees them there first. A millstream reader has seen, in the misrouted aggregate, the same
//! records in the same order, and none of a key whose earlier ones it could not see, because all records of a key have
//! one hash. A key whose records have several explicit hash keys has an order for each of them.
//!
//! Whether an aggregate is where it belongs is unknown for a shard that the map does not contain. The aggregate
//! waits for the next map, and keeps its buffers busy. A shard that is also missing there counts as wrong, which costs
//! duplicates at most.

mod aggregate_size;
mod in_flight;
mod shard_buffer;

use millstream_core::telemetry::event;
use millstream_core::{Error, ErrorKind, RecordMetadata};
use tokio::time::Instant;

use self::aggregate_size::AggregateSize;
use self::in_flight::InFlightAggregate;
use self::shard_buffer::ShardBuffer;
use super::accumulator::{RecordAccumulator, RequestLimits};
use super::calls::{Calls, Ticket};
use super::request::{PutRequest, RequestBuilder};
use super::retry_delay::retry_delay;
use super::settings::ProducerSettings;
use super::shard_map::{Prediction, ShardMap};
use super::transport::ShardPosition;
use crate::aggregate::{Address, AggregateBuilder};
use crate::stream::HashRange;

/// Requests of up to this size are not divided: more requests would cost more than they gain.
const UNDIVIDED_BYTES: usize = 512 << 10;

pub(super) struct ByShard {
    settings: ProducerSettings,
    /// The size for a buffer that has sent nothing.
    size: AggregateSize,
    map: ShardMap,
    /// One buffer for each shard of the map.
    buffers: Vec<ShardBuffer>,
    /// The covers of all aggregates that keep buffers busy.
    covers: Vec<HashRange>,
    /// Aggregates that were stored in shards that the map does not contain.
    unmapped: Vec<(InFlightAggregate, ShardPosition)>,
    /// The buffer that is served first.
    turn: usize,
}

impl ByShard {
    pub(super) fn new(settings: ProducerSettings, map: ShardMap, now: Instant) -> Self {
        let limiter = settings.limiter(now);
        let size = AggregateSize::new(settings.config.aggregate_bytes, settings.record_bytes);
        let buffers = map.open_shards().iter();
        let buffers = buffers.map(|_| ShardBuffer::new(limiter.clone(), size.clone(), now));
        Self {
            buffers: buffers.collect(),
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
    fn request_bytes(&self, limits: RequestLimits, now: Instant) -> usize {
        let due = self.buffers.iter().filter(|buffer| buffer.is_due(now));
        let due: usize = due
            .map(|buffer| buffer.ready_bytes(limits.bytes, now))
            .sum();
        let part = due.div_ceil(limits.requests);
        part.max(UNDIVIDED_BYTES).min(limits.bytes)
    }

    /// Adds the records that one buffer may send to the request.
    fn fill(
        &mut self,
        index: usize,
        request: &mut RequestBuilder<InFlightAggregate>,
        most_bytes: usize,
        calls: &mut Calls,
        now: Instant,
    ) {
        let buffer = &mut self.buffers[index];
        let room = request.room();
        if !buffer.is_due(now) || buffer.ready_bytes(most_bytes, now) > room {
            return;
        }
        let mut largest = buffer.target(most_bytes, now).min(room);
        // Some readers (Python, Node) give the first explicit hash key of an aggregate to its records without one. So
        // either all records of an aggregate have one, or none.
        let are_explicit = buffer.explicit > 0;
        let mut builder = AggregateBuilder::new();
        let mut tickets = Vec::new();
        while let Some(&ticket) = buffer.queue.front() {
            if let Some(record) = calls.record_to_send(&ticket) {
                let keyless = || self.map.keyless(index);
                let mut address = Address {
                    partition_key: record.key.as_ref().unwrap_or_else(keyless),
                    explicit_hash_key: are_explicit.then_some(ticket.hash),
                };
                let mut size = builder.size_with(address, record);
                let mut most = largest;
                if builder.is_empty() && size > largest {
                    // It is sent alone, by its own address: so it was checked against the limit of the stream.
                    address.explicit_hash_key = ticket.explicit_hash_key();
                    size = builder.size_with(address, record);
                    (most, largest) = (room, 0);
                }
                if size > most || tickets.len() >= buffer.max_records {
                    break;
                }
                builder.push(address, record);
                tickets.push(ticket);
            }
            buffer.pop();
        }
        let Some(entry) = builder.finish() else {
            return;
        };
        let bytes = entry.size();
        buffer.limiter.spend(bytes, now);
        buffer.in_flight += 1;
        let cover = self.map.open_shards()[index].cover;
        self.covers.push(cover);
        let aggregate = InFlightAggregate {
            tickets,
            bytes,
            sent: now,
            cover,
        };
        request.add(aggregate, entry);
    }

    /// Ends the busy state that the aggregate causes. Returns its buffers.
    fn release(&mut self, cover: HashRange) -> &mut [ShardBuffer] {
        let index = self.covers.iter().position(|known| *known == cover);
        self.covers.swap_remove(index.expect("it is in flight"));
        let buffers = &mut self.buffers[self.map.indexes_of(cover)];
        for buffer in &mut *buffers {
            buffer.in_flight -= 1;
        }
        buffers
    }

    /// Blocks the buffers of these records for a while.
    fn block_until(&mut self, aggregate: &InFlightAggregate, until: Instant, calls: &Calls) {
        // A record whose deadline expires meanwhile must not block the records behind it.
        let deadlines = aggregate.tickets.iter().filter_map(|t| calls.deadline(t));
        let until = deadlines.fold(until, Instant::min);
        for buffer in &mut self.buffers[self.map.indexes_of(aggregate.cover)] {
            buffer.blocked_until = until;
        }
    }

    /// Puts records before all waiting ones.
    fn put_back(&mut self, tickets: Vec<Ticket>, calls: &mut Calls, now: Instant) {
        for mut ticket in tickets.into_iter().rev() {
            if calls.record_to_send(&ticket).is_some() {
                if ticket.is_unkeyed() {
                    ticket.hash = self.map.next_keyless_hash();
                }
                let buffer = &mut self.buffers[self.map.index_of(ticket.hash)];
                buffer.account_for(&ticket, now);
                buffer.queue.push_front(ticket);
            }
        }
    }

    /// Handles an aggregate that was stored in a shard of this range.
    fn complete(
        &mut self,
        mut aggregate: InFlightAggregate,
        stored: &ShardPosition,
        range: Option<HashRange>,
        calls: &mut Calls,
        now: Instant,
    ) -> Prediction {
        for buffer in self.release(aggregate.cover) {
            buffer.max_records = usize::MAX;
        }
        let tickets = &aggregate.tickets;
        let (partition, prediction) = self.map.locate(tickets[0].hash, &stored.shard);
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
            let attempts = aggregate.count_failure(calls);
            if attempts > 1 {
                self.block_until(&aggregate, now + retry_delay(attempts), calls);
            }
            self.put_back(aggregate.tickets, calls, now);
            return Prediction::Wrong;
        }
        for (ticket, sub) in tickets.iter().zip(0..) {
            let position = stored.position.with_sub_sequence(sub);
            calls.resolve(ticket, Ok(RecordMetadata::new(partition.clone(), position)));
        }
        prediction
    }
}

impl RecordAccumulator for ByShard {
    type EntryTickets = InFlightAggregate;

    fn push(&mut self, mut ticket: Ticket, calls: &Calls, now: Instant) {
        if ticket.is_unkeyed() {
            ticket.hash = self.map.next_keyless_hash();
        }
        let sent = calls.sent(&ticket).unwrap_or(now);
        let buffer = &mut self.buffers[self.map.index_of(ticket.hash)];
        buffer.account_for(&ticket, sent + self.settings.config.linger);
        buffer.queue.push_back(ticket);
    }

    fn drain(
        &mut self,
        calls: &mut Calls,
        limits: RequestLimits,
        now: Instant,
    ) -> PutRequest<InFlightAggregate> {
        let mut request = RequestBuilder::new(self.request_bytes(limits, now));
        let buffers = self.buffers.len();
        self.turn = (self.turn + 1) % buffers;
        for index in 0..buffers {
            let index = (self.turn + index) % buffers;
            self.fill(index, &mut request, limits.bytes, calls, now);
        }
        request.finish()
    }

    fn next_wakeup(&self) -> Option<Instant> {
        let free = self.buffers.iter().filter(|buffer| buffer.can_send());
        free.map(ShardBuffer::flush_at).min()
    }

    fn stored(
        &mut self,
        aggregate: InFlightAggregate,
        stored: ShardPosition,
        calls: &mut Calls,
        now: Instant,
    ) -> Prediction {
        let took = now.saturating_duration_since(aggregate.sent);
        for buffer in &mut self.buffers[self.map.indexes_of(aggregate.cover)] {
            buffer.size.stored(took);
        }
        let range = self.map.range(&stored.shard);
        if range.is_none() && aggregate.tickets.len() > 1 {
            self.unmapped.push((aggregate, stored));
            return Prediction::Wrong;
        }
        self.complete(aggregate, &stored, range, calls, now)
    }

    fn retry(&mut self, failed: Vec<(InFlightAggregate, Error)>, calls: &mut Calls, now: Instant) {
        for (mut aggregate, error) in failed {
            let attempts = aggregate.count_failure(calls);
            if error.kind() == ErrorKind::Throttled {
                let buffer = self.map.index_of(aggregate.tickets[0].hash);
                let buffer = &mut self.buffers[buffer];
                buffer.limiter.throttled(aggregate.bytes, now);
                if attempts > 1 {
                    buffer.size.throttled_again(aggregate.bytes);
                }
            }
            self.release(aggregate.cover);
            self.block_until(&aggregate, now + retry_delay(attempts), calls);
            self.put_back(aggregate.tickets, calls, now);
        }
    }

    fn fail(
        &mut self,
        aggregate: InFlightAggregate,
        error: Error,
        calls: &mut Calls,
        now: Instant,
    ) {
        let InFlightAggregate { tickets, cover, .. } = aggregate;
        let is_of_one = matches!(error.kind(), ErrorKind::Invalid | ErrorKind::TooLarge);
        if is_of_one && tickets.len() > 1 {
            for buffer in self.release(cover) {
                buffer.max_records = tickets.len() / 2;
            }
            return self.put_back(tickets, calls, now);
        }
        for buffer in self.release(cover) {
            buffer.max_records = usize::MAX;
        }
        for ticket in &tickets {
            calls.resolve(ticket, Err(error.clone()));
        }
    }

    fn remap(&mut self, map: ShardMap, calls: &mut Calls, now: Instant) {
        if self.map.has_same_open_shards(&map) {
            self.map.update_ranges(map);
        } else {
            self.rebuild(map, now);
        }
        for (aggregate, stored) in std::mem::take(&mut self.unmapped) {
            let range = self.map.range(&stored.shard);
            self.complete(aggregate, &stored, range, calls, now);
        }
    }

    fn map(&self) -> &ShardMap {
        &self.map
    }
}

impl ByShard {
    /// Recreates the buffers. The order of each key is kept, because all its records were in one buffer and are again.
    fn rebuild(&mut self, mut map: ShardMap, now: Instant) {
        let known = self.buffers.iter().map(|buffer| buffer.limiter.clone());
        let limiters = self.settings.limiters(&self.map, known, &map, now);
        // The responses in flight measure the latency for the new buffers.
        let buffers = limiters.into_iter();
        let buffers = buffers.map(|limiter| ShardBuffer::new(limiter, self.size.clone(), now));
        let mut buffers: Vec<_> = buffers.collect();
        for buffer in self.buffers.drain(..) {
            for mut ticket in buffer.queue {
                if ticket.is_unkeyed() {
                    ticket.hash = map.next_keyless_hash();
                }
                let new = &mut buffers[map.index_of(ticket.hash)];
                new.account_for(&ticket, buffer.due);
                new.queue.push_back(ticket);
            }
        }
        for &cover in &self.covers {
            for buffer in &mut buffers[map.indexes_of(cover)] {
                buffer.in_flight += 1;
            }
        }
        (self.buffers, self.map) = (buffers, map);
    }
}
