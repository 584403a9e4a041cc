//! One lease that this member holds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use millstream_core::{Epoch, Error, ErrorKind, Result};
use tokio::time::Instant;

use crate::lease::change;
use crate::lease::command::{Reply, respond};
use crate::lease::key::LeaseKey;
use crate::lease::row::{Progress, Row, Tip, millis};
use crate::lease::store::Update;

/// The stage of a held lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// A parent of its shard may not be at shard end.
    BlockedOnParents,
    /// The application has it.
    Active,
    /// The application was asked at this time to release it.
    Draining(Instant),
    /// It is released, but the release is not stored yet.
    Releasing,
    /// The lease is at shard end. It is held until it can be deleted.
    ShardEnd,
}

/// A change that increments the counter. Each lease has at most one in flight.
#[derive(Debug)]
pub(super) enum Write {
    Renew,
    Checkpoint { progress: Progress, reply: Reply },
    Release { reply: Option<Reply> },
}

impl Write {
    /// Resolves the call that the write is for, if there is one.
    pub(super) fn respond(self, result: Result<()>) {
        let reply = match self {
            Self::Renew => None,
            Self::Checkpoint { reply, .. } => Some(reply),
            Self::Release { reply } => reply,
        };
        if let Some(reply) = reply {
            respond(reply, result);
        }
    }
}

/// A lease of this member.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) lease: LeaseKey,
    /// The row after the last change whose result is known.
    pub(super) row: Row,
    pub(super) epoch: Epoch,
    pub(super) stage: Stage,
    /// The time just before the request of that change, so that the lease does not expire later here than
    /// elsewhere.
    pub(super) renewed_at: Instant,
    /// Whether that change was only a renewal.
    pub(super) is_quiet: bool,
    /// The time just before the first later request whose result is unknown.
    unresolved_since: Option<Instant>,
    is_writing: bool,
    queue: VecDeque<Write>,
    /// The tip that its reader has reported last.
    pub(super) tip: Option<Tip>,
    /// The earliest time of the next attempt after a failed change.
    retry_at: Option<Instant>,
    delays: Option<ExponentialBackoff>,
}

/// A held lease whose shard may have parents that are not at shard end.
#[derive(Debug)]
pub(in crate::lease) struct Blocked<'a> {
    pub(in crate::lease) key: &'a Arc<str>,
    pub(in crate::lease) lease: &'a LeaseKey,
    pub(in crate::lease) epoch: Epoch,
    /// Shard IDs.
    pub(in crate::lease) parents: &'a [Arc<str>],
}

impl Held {
    /// Returns a lease that was taken by a request that began at `taken_at`.
    pub(super) fn new(lease: LeaseKey, row: Row, taken_at: Instant) -> Self {
        Self {
            lease,
            epoch: Epoch(row.counter),
            stage: match row.is_ended() {
                true => Stage::ShardEnd,
                false => Stage::BlockedOnParents,
            },
            row,
            renewed_at: taken_at,
            is_quiet: true,
            unresolved_since: None,
            is_writing: false,
            queue: VecDeque::new(),
            tip: None,
            retry_at: None,
            delays: None,
        }
    }

    /// Returns whether the application may work on it.
    pub(super) fn is_in_use(&self) -> bool {
        matches!(self.stage, Stage::Active | Stage::Draining(_))
    }

    /// Returns what must be checked before it may be started, if it waits for that.
    pub(super) fn as_blocked<'a>(&'a self, key: &'a Arc<str>) -> Option<Blocked<'a>> {
        (self.stage == Stage::BlockedOnParents).then_some(Blocked {
            key,
            lease: &self.lease,
            epoch: self.epoch,
            parents: &self.row.parents,
        })
    }

    /// Returns whether others may already have it.
    pub(super) fn is_expired(&self, failover: Duration, now: Instant) -> bool {
        self.renewed_at + failover <= now
    }

    /// Returns whether no change is in flight or queued.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && !self.is_writing
    }

    pub(super) fn is_writing(&self) -> bool {
        self.is_writing
    }

    /// Returns the error of a call for it that can no longer be served.
    pub(super) fn fenced(&self) -> Error {
        fenced("lease", &self.lease)
    }

    /// Adds a change after those that are queued.
    pub(super) fn queue(&mut self, write: Write) {
        self.queue.push_back(write);
    }

    /// Puts a change back that must be tried again before all others.
    pub(super) fn requeue(&mut self, write: Write) {
        self.queue.push_front(write);
    }

    /// Takes it out of use, and releases it after the changes that are queued.
    pub(super) fn release(&mut self, reply: Option<Reply>) {
        self.stage = Stage::Releasing;
        self.queue(Write::Release { reply });
    }

    /// Rejects the queued changes.
    pub(super) fn reject_queued(&mut self) {
        let error = self.fenced();
        for write in self.queue.drain(..) {
            write.respond(Err(error.clone()));
        }
    }

    /// Starts the due change, if there is one.
    pub(super) fn start_write(
        &mut self,
        now: Instant,
        interval: Duration,
    ) -> Option<(Write, Update)> {
        if self.is_writing || self.retry_at.is_some_and(|time| time > now) {
            return None;
        }
        let renewal = || (self.renewed_at + interval <= now).then_some(Write::Renew);
        let write = self.queue.pop_front().or_else(renewal)?;
        self.is_writing = true;
        let update = self.update_of(&write);
        Some((write, update))
    }

    fn update_of(&self, write: &Write) -> Update {
        match write {
            Write::Renew => match self.tip_to_note() {
                Some(tip) => change::renew_at_tip(&self.row, tip),
                None => change::renew(&self.row),
            },
            Write::Checkpoint { progress, .. } => change::store(&self.row, *progress),
            Write::Release { .. } => match self.row.next_owner() {
                Some(next_owner) => change::assign(&self.row, next_owner),
                None => change::evict(&self.row),
            },
        }
    }

    /// Returns the tip that the next renewal must note, if the progress has reached it.
    fn tip_to_note(&self) -> Option<Tip> {
        let tip = self.tip.filter(|tip| self.row.is_settled_to(tip.after))?;
        let noted = self.row.own.tip.map(|noted| millis(noted.at));
        (noted < Some(millis(tip.at))).then_some(tip)
    }

    /// Records that the change in flight has a result, or has failed.
    pub(super) fn finish_write(&mut self) {
        self.is_writing = false;
    }

    /// Returns the time just before the first request that may be the one that was applied, if `before` is that of the last
    /// one and has no response.
    pub(super) fn first_unresolved(&self, before: Instant) -> Instant {
        self.unresolved_since.unwrap_or(before)
    }

    /// Records that a change was applied, by a request that began at `before` or later.
    pub(super) fn succeed(&mut self, write: &Write, row: Row, before: Instant) {
        self.row = row;
        self.renewed_at = before;
        self.is_quiet = matches!(write, Write::Renew);
        self.unresolved_since = None;
        self.retry_at = None;
        self.delays = None;
    }

    /// Records that a change was not applied, or may not have been. The next attempt begins after a delay of `longest` at
    /// most.
    pub(super) fn fail(&mut self, before: Instant, now: Instant, longest: Duration) {
        self.unresolved_since.get_or_insert(before);
        let delays = self.delays.get_or_insert_with(|| {
            ExponentialBuilder::new()
                .with_min_delay(Duration::from_millis(50))
                .with_max_delay(longest)
                .without_max_times()
                .with_jitter()
                .build()
        });
        self.retry_at = Some(now + delays.next().unwrap_or(longest));
    }

    /// Returns whether the row has a notification that was not seen before.
    pub(super) fn is_notified_by(&self, row: &Row) -> bool {
        row.own.rescan.is_some() && row.own.rescan != self.row.own.rescan
    }

    /// Returns when its next change is due.
    pub(super) fn due(&self, interval: Duration) -> Option<Instant> {
        if self.is_writing {
            return None;
        }
        let write = match self.queue.is_empty() {
            true => self.renewed_at + interval,
            false => self.renewed_at,
        };
        Some(self.retry_at.map_or(write, |time| time.max(write)))
    }
}

/// Returns the error of a call for a lease that is not this member's in the caller's epoch.
pub(super) fn fenced(operation: &'static str, lease: &LeaseKey) -> Error {
    let message = "the lease is another member's now, or was not renewed in time";
    let error = Error::new(ErrorKind::Fenced, operation, message);
    error.with_partition(&lease.partition())
}
