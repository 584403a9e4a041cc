//! The records that wait for one shard, and those in flight.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::aggregate_size::AggregateSize;
use crate::producer::calls::{Calls, Ticket};
use crate::producer::rate_limiter::RateLimiter;
use crate::stream::HashRange;

pub(super) struct Lane {
    pub(super) limiter: RateLimiter,
    pub(super) size: AggregateSize,
    pub(super) queue: VecDeque<Ticket>,
    pub(super) bytes: usize,
    /// The number of waiting records with an explicit hash key.
    pub(super) explicit: usize,
    /// The end of the linger time of the oldest record.
    pub(super) due: Instant,
    /// The number of aggregates in flight whose records could have keys of this lane.
    pub(super) busy: usize,
    /// Until when the failure of an aggregate blocks the lane.
    pub(super) waits_until: Instant,
    /// The maximum number of records of the next aggregate, while the search for a rejected record runs.
    pub(super) most: usize,
}

/// The records of an aggregate.
pub(in crate::producer) struct Carried {
    pub(super) tickets: Vec<Ticket>,
    /// The size of the aggregate.
    pub(super) bytes: usize,
    pub(super) sent: Instant,
    /// The cover of the lane that it was filled from.
    pub(super) cover: HashRange,
}

impl Carried {
    /// Counts a failure of the records that are still to be sent. Returns the largest number of attempts
    /// of any of them.
    pub(super) fn fail(&mut self, calls: &Calls) -> u32 {
        let tickets = self.tickets.iter_mut();
        let open = tickets.filter(|ticket| calls.deadline(ticket).is_some());
        let attempts = open.map(|ticket| {
            ticket.attempts += 1;
            ticket.attempts
        });
        attempts.max().unwrap_or(0)
    }
}

impl Lane {
    pub(super) fn new(limiter: RateLimiter, size: AggregateSize, now: Instant) -> Self {
        Self {
            limiter,
            size,
            queue: VecDeque::new(),
            bytes: 0,
            explicit: 0,
            due: now,
            busy: 0,
            waits_until: now,
            most: usize::MAX,
        }
    }

    /// Accounts for a record that is about to be added.
    pub(super) fn expect(&mut self, ticket: &Ticket, due: Instant) {
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

    pub(super) fn is_free(&self) -> bool {
        self.busy == 0 && !self.queue.is_empty()
    }

    /// Returns the bytes of its waiting records that fit the next aggregate.
    pub(super) fn wants(&self, most_bytes: usize, now: Instant) -> usize {
        self.bytes.min(self.target(most_bytes, now))
    }

    /// Returns when it may send, if it is free: as soon as it has enough for an aggregate, or its linger time is
    /// over.
    pub(super) fn goes(&self) -> Instant {
        let least = self.waits_until.max(self.limiter.ready_at());
        if self.bytes >= self.size.least() {
            least
        } else {
            least.max(self.due)
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.is_free() && self.goes() <= now
    }
}
