//! The records that wait for one shard.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::FixedState;
use tokio::time::Instant;

use crate::producer::calls::Ticket;
use crate::producer::rate_limiter::RateLimiter;
use crate::stream::HashKey;

pub(super) struct ShardQueue {
    pub(super) limiter: RateLimiter,
    /// Records of bound keys, or without a key: they may be sent.
    pub(super) next: VecDeque<Ticket>,
    /// New records, in their order.
    pub(super) fresh: VecDeque<Ticket>,
    pub(super) bytes: usize,
    /// The end of the linger time of the oldest record.
    pub(super) due: Instant,
}

impl ShardQueue {
    pub(super) fn new(limiter: RateLimiter) -> Self {
        Self {
            due: limiter.ready_at(),
            limiter,
            next: VecDeque::new(),
            fresh: VecDeque::new(),
            bytes: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.next.is_empty() && self.fresh.is_empty()
    }

    pub(super) fn ready_at(&self) -> Instant {
        self.limiter.ready_at()
    }

    /// Accounts for a record that is about to be added.
    pub(super) fn account_for(&mut self, bytes: usize, due: Instant) {
        self.due = if self.is_empty() {
            due
        } else {
            self.due.min(due)
        };
        self.bytes += bytes;
    }

    /// Returns the next record that may be sent, and binds its key. Records that must wait are held by their key.
    pub(super) fn pop(
        &mut self,
        keys: &mut HashMap<HashKey, VecDeque<Ticket>, FixedState>,
    ) -> Option<Ticket> {
        if let Some(ticket) = self.next.pop_front() {
            self.bytes -= ticket.bytes;
            return Some(ticket);
        }
        while let Some(ticket) = self.fresh.pop_front() {
            self.bytes -= ticket.bytes;
            let Some(key) = ticket.key else {
                return Some(ticket);
            };
            match keys.get_mut(&key) {
                Some(held) => held.push_back(ticket),
                None => {
                    keys.insert(key, VecDeque::new());
                    return Some(ticket);
                }
            }
        }
        None
    }

    /// Undoes [`pop`](Self::pop).
    pub(super) fn put_back(&mut self, ticket: Ticket) {
        self.bytes += ticket.bytes;
        self.next.push_front(ticket);
    }
}
