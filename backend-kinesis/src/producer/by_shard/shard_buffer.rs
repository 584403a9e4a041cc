//! The records that wait to be aggregated for one shard.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::aggregate_size::AggregateSize;
use crate::producer::calls::Ticket;
use crate::producer::rate_limiter::RateLimiter;

pub(super) struct ShardBuffer {
    pub(super) limiter: RateLimiter,
    pub(super) size: AggregateSize,
    pub(super) queue: VecDeque<Ticket>,
    pub(super) bytes: usize,
    /// The number of waiting records with an explicit hash key.
    pub(super) explicit: usize,
    /// The end of the linger time of the oldest record.
    pub(super) due: Instant,
    /// The number of aggregates in flight whose records could have keys of this buffer.
    pub(super) in_flight: usize,
    /// Until when the failure of an aggregate blocks the buffer.
    pub(super) blocked_until: Instant,
    /// The maximum number of records of the next aggregate, while the search for a rejected record runs.
    pub(super) max_records: usize,
}

impl ShardBuffer {
    pub(super) fn new(limiter: RateLimiter, size: AggregateSize, now: Instant) -> Self {
        Self {
            limiter,
            size,
            queue: VecDeque::new(),
            bytes: 0,
            explicit: 0,
            due: now,
            in_flight: 0,
            blocked_until: now,
            max_records: usize::MAX,
        }
    }

    /// Accounts for a record that is about to be added.
    pub(super) fn account_for(&mut self, ticket: &Ticket, due: Instant) {
        self.due = if self.queue.is_empty() {
            due
        } else {
            self.due.min(due)
        };
        self.bytes += ticket.bytes;
        self.explicit += usize::from(ticket.is_explicit);
    }

    /// Removes the first record.
    pub(super) fn pop(&mut self) {
        if let Some(ticket) = self.queue.pop_front() {
            self.bytes -= ticket.bytes;
            self.explicit -= usize::from(ticket.is_explicit);
        }
    }

    /// Returns the maximum size of the next aggregate, if requests may have `most_bytes`.
    pub(super) fn target(&self, most_bytes: usize, now: Instant) -> usize {
        let bytes_per_second = self.limiter.bytes_per_second(now);
        self.size.get(bytes_per_second).min(most_bytes)
    }

    /// Returns whether it has records, and none of their keys is in flight.
    pub(super) fn can_send(&self) -> bool {
        self.in_flight == 0 && !self.queue.is_empty()
    }

    /// Returns the bytes of its waiting records that fit the next aggregate.
    pub(super) fn ready_bytes(&self, most_bytes: usize, now: Instant) -> usize {
        self.bytes.min(self.target(most_bytes, now))
    }

    /// Returns when it may send, if [`can_send`](Self::can_send): as soon as it has enough for an aggregate, or its
    /// linger time is over.
    pub(super) fn flush_at(&self) -> Instant {
        let least = self.blocked_until.max(self.limiter.ready_at());
        if self.bytes >= self.size.least() {
            least
        } else {
            least.max(self.due)
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.can_send() && self.flush_at() <= now
    }
}
