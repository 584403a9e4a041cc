//! One member as the broker sees it: what it holds, what it is to be told, and whether it is there.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::FixedState;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ids::{Slot, StreamId};

/// A partition in a member's hands.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) epoch: u64,
    /// The offset of the record that it gets next.
    pub(crate) next: u64,
    /// Whether it was told of the assignment. Before that, the partition can be taken back without
    /// a word.
    pub(crate) told: bool,
    /// Set while it drains: when it is fenced.
    pub(crate) drain_until: Option<Instant>,
    pub(crate) paused: bool,
    /// Whether it stands in the member's `ready` queue.
    pub(crate) queued: bool,
    /// Whether the end of the closed partition was told.
    pub(crate) ended: bool,
}

/// What a member is to be told, in order.
#[derive(Debug)]
pub(crate) enum Mail {
    Assigned(Slot, u64),
    Revoking(Vec<(Slot, u64)>, Instant),
    Lost(Vec<(Slot, u64)>),
}

/// Whether a member gives signs of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Here,
    /// Paused by a fault: its calls hang until then.
    Paused {
        until: Instant,
    },
    /// Crashed by a fault, or its handle was dropped.
    Gone,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: Option<Arc<str>>,
    /// Its place in the order of all joins of the broker, from 1.
    pub(crate) ordinal: u64,
    pub(crate) streams: BTreeSet<StreamId>,
    pub(crate) batch_records: usize,
    pub(crate) drain: std::time::Duration,
    /// Looked up for each batch that is read. Whoever walks it sorts, so that a run is the same each
    /// time.
    pub(crate) held: HashMap<Slot, Held, FixedState>,
    pub(crate) mail: VecDeque<Mail>,
    /// Partitions that may have something to read, each at most once: what makes reading fair, and
    /// as cheap for thousands of quiet partitions as for one.
    pub(crate) ready: VecDeque<Slot>,
    pub(crate) wake: Arc<Notify>,
    pub(crate) presence: Presence,
    /// Grows with each change of `presence`, so that a timer knows whether it is still meant.
    pub(crate) absence: u64,
    /// Whether the session ran out: it owns nothing and gets nothing until it is back.
    pub(crate) expired: bool,
    /// Whether a handle is left that could call.
    pub(crate) attached: bool,
    /// A stream that it read and that was deleted: its membership ends with that.
    pub(crate) deleted: Option<Arc<str>>,
}

impl Member {
    pub(crate) fn give(&mut self, slot: Slot, epoch: u64, next: u64) {
        let held = Held {
            epoch,
            next,
            told: false,
            drain_until: None,
            paused: false,
            queued: false,
            ended: false,
        };
        self.held.insert(slot, held);
        self.mail.push_back(Mail::Assigned(slot, epoch));
        self.wake.notify_one();
    }

    /// Takes a partition away at once; the member hears of it if it knew that it had it.
    pub(crate) fn take(&mut self, slot: Slot) {
        let Some(held) = self.held.remove(&slot) else {
            return;
        };
        if !held.told {
            return;
        }
        match self.mail.back_mut() {
            Some(Mail::Lost(lost)) => lost.push((slot, held.epoch)),
            _ => self.mail.push_back(Mail::Lost(vec![(slot, held.epoch)])),
        }
        self.wake.notify_one();
    }

    /// Puts a partition at the end of the queue, if it can be read from.
    pub(crate) fn queue(&mut self, slot: Slot) {
        let Some(held) = self.held.get_mut(&slot) else {
            return;
        };
        if held.told && !held.queued && !held.paused && held.drain_until.is_none() {
            held.queued = true;
            // Nobody waits while the queue holds something, so one wake-up is enough for many.
            if self.ready.is_empty() {
                self.wake.notify_one();
            }
            self.ready.push_back(slot);
        }
    }
}
