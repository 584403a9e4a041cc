//! The records that wait for one shard, and those in flight.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::producer::calls::{Calls, Ticket};
use crate::producer::pace::Pace;
use crate::stream::HashRange;

pub(super) struct Lane {
    pub(super) pace: Pace,
    pub(super) queue: VecDeque<Ticket>,
    pub(super) bytes: usize,
    /// The number of waiting records with an explicit hash key.
    pub(super) explicit: usize,
    /// The end of the linger time of the oldest record.
    pub(super) due: Instant,
    /// The number of carriers in flight whose records could have keys of this lane.
    pub(super) busy: usize,
    /// Until when the failure of a carrier blocks the lane.
    pub(super) waits_until: Instant,
    /// The maximum number of records of the next carrier, while the search for a rejected record runs.
    pub(super) most: usize,
}

/// The records of a carrier.
pub(in crate::producer) struct Carried {
    pub(super) tickets: Vec<Ticket>,
    /// The size of the carrier.
    pub(super) bytes: usize,
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
    pub(super) fn new(pace: Pace, now: Instant) -> Self {
        Self {
            pace,
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

    pub(super) fn is_free(&self) -> bool {
        self.busy == 0 && !self.queue.is_empty()
    }

    /// Returns when it may send, if it is free: as soon as it has a full carrier, or its linger time is over.
    pub(super) fn goes(&self, full: usize) -> Instant {
        let least = self.waits_until.max(self.pace.opens());
        if self.bytes >= full {
            least
        } else {
            least.max(self.due)
        }
    }

    pub(super) fn is_due(&self, full: usize, now: Instant) -> bool {
        self.is_free() && self.goes(full) <= now
    }
}
