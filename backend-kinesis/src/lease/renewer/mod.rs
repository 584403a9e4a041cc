//! The lease renewer: the leases that this member holds, and every change that it makes to them.
//!
//! It decides nothing about other leases. The coordinator adds a lease that was taken ([`LeaseRenewer::add`]), says when
//! its shard may be read ([`LeaseRenewer::start`]), and shows what a scan has read ([`LeaseRenewer::observe`]). What
//! the renewer learns is a [`RenewerEvent`]. Neither has access to the other's state.
//!
//! These rules keep a lease and its checkpoint safe:
//!
//! * A lease has at most one change in flight that increments its counter. The change is conditional on the counter after
//!   the last change whose result is known, so it fails if another worker has changed the row.
//! * A lease counts as renewed since just before the request of the last applied change. After the failover time from then
//!   it is dropped, before any other worker may take it, and no call for it succeeds.
//! * Without a response, the row shows whether a change was applied. It may then be any request since the first one without a
//!   result, so the lease counts as renewed since that one.
//! * A checkpoint is confirmed only when the row shows it.
//! * A lease whose row shows another holder or another epoch is dropped, and all calls that wait for it fail with `Fenced`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use millstream_core::{Epoch, Error, ErrorKind, Position, Result, Start};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::lease::command::{Reply, respond};
use crate::lease::key::LeaseKey;
use crate::lease::options::{LeaseEvent, ResumePoint, WorkerOptions};
use crate::lease::row::{Progress, Row, Tip};
use crate::lease::source::ShardSource;
use crate::lease::streams::Streams;
use crate::lease::table::{Table, WriteOutcome};
use crate::stream::{HashRange, Shard};

mod event;
mod held;
mod reports;
mod shard_end;
mod turns;

pub(super) use event::{LossReason, RenewerEvent};
use held::{Blocked, Held, Stage, Write, fenced};
use reports::Reports;
use shard_end::{Children, ShardEnd};
use turns::RenewalTurns;

/// The held leases of one member.
pub(super) struct LeaseRenewer {
    /// The ID of this worker.
    id: Arc<str>,
    start: Start,
    failover: Duration,
    drain: Duration,
    streams: Arc<Streams>,
    source: Arc<dyn ShardSource>,
    table: Table,
    held: BTreeMap<Arc<str>, Held>,
    turns: RenewalTurns,
    in_flight: FuturesUnordered<BoxFuture<'static, Completed>>,
    is_leaving: bool,
    reports: Reports,
}

/// A completed request.
enum Completed {
    Write {
        key: Arc<str>,
        lease: LeaseKey,
        epoch: Epoch,
        write: Write,
        outcome: Box<Result<WriteOutcome, (Instant, Error)>>,
    },
    Children {
        key: Arc<str>,
        lease: LeaseKey,
        epoch: Epoch,
        children: Result<Children>,
        reply: Reply,
    },
}

impl LeaseRenewer {
    pub(super) fn new(
        options: &WorkerOptions,
        streams: Arc<Streams>,
        table: Table,
        leases: mpsc::UnboundedSender<LeaseEvent>,
    ) -> Self {
        Self {
            id: options.id.clone(),
            start: options.start,
            failover: options.failover,
            drain: options.drain,
            streams,
            source: options.source.clone(),
            table,
            held: BTreeMap::new(),
            turns: RenewalTurns::new(options.renewal_interval(), Instant::now()),
            in_flight: FuturesUnordered::new(),
            is_leaving: false,
            reports: Reports::new(options.group.clone(), leases),
        }
    }

    /// Adds a lease that was taken by a request that began at `taken_at`.
    pub(super) fn add(&mut self, lease: LeaseKey, row: Row, taken_at: Instant) {
        let key = row.key.clone();
        let mut held = Held::new(lease, row, taken_at);
        if self.is_leaving {
            held.release(None);
        }
        self.held.insert(key, held);
    }

    /// Passes a lease to the application: no parent blocks its shard. `listed` is the range of the shard in a list, for
    /// rows without one.
    pub(super) fn start(&mut self, key: &Arc<str>, epoch: Epoch, listed: Option<HashRange>) {
        let Some(held) = self.held.get_mut(key).filter(|held| held.epoch == epoch) else {
            return;
        };
        if held.stage != Stage::BlockedOnParents {
            return;
        }
        let Some(from) = ResumePoint::of(&held.row, self.start) else {
            held.stage = Stage::ShardEnd;
            return;
        };
        held.stage = Stage::Active;
        self.reports.started(held, from, held.row.range.or(listed));
        self.consider_handoff(key, Instant::now());
    }

    /// Compares the held leases with their rows in a scan: who requests them, or who has taken them.
    pub(super) fn observe<'a>(&mut self, row: impl Fn(&str) -> Option<&'a Row>, now: Instant) {
        let mut taken = Vec::new();
        let mut ours = Vec::new();
        for (key, held) in &mut self.held {
            let Some(row) = row(key) else {
                continue;
            };
            if row.is_held_by(&self.id, held.epoch) {
                held.row.own.requester = row.own.requester.clone();
                if held.is_notified_by(row) {
                    held.row.own.rescan = row.own.rescan;
                    self.reports.push(RenewerEvent::NotifiedByScan);
                }
                ours.push(key.clone());
            } else if row.counter > held.row.counter && !held.is_writing() {
                taken.push(key.clone());
            }
        }
        for key in taken {
            self.lose(&key, LossReason::Taken);
        }
        for key in ours {
            self.consider_handoff(&key, now);
        }
    }

    /// Forgets a lease whose row was deleted after its shard end.
    pub(super) fn forget(&mut self, key: &str) {
        self.held.remove(key);
    }

    /// Releases all leases, and those that are added from now on.
    pub(super) fn release_all(&mut self) {
        self.is_leaving = true;
        let held = self.held.values_mut();
        for held in held.filter(|held| held.stage != Stage::Releasing) {
            held.release(None);
        }
    }

    pub(super) fn holds(&self, key: &str) -> bool {
        self.held.contains_key(key)
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Returns the leases that wait for [`start`](Self::start).
    pub(super) fn blocked(&self) -> impl Iterator<Item = Blocked<'_>> {
        let held = self.held.iter();
        held.filter_map(|(key, held)| held.as_blocked(key))
    }

    /// Returns this lease, if it waits for [`start`](Self::start).
    pub(super) fn blocked_lease(&self, key: &str) -> Option<Blocked<'_>> {
        let (key, held) = self.held.get_key_value(key)?;
        held.as_blocked(key)
    }

    /// Returns the held leases at shard end.
    pub(super) fn ended(&self) -> impl Iterator<Item = (&LeaseKey, &Row)> {
        let ended = self.held.values().filter(|held| held.row.is_ended());
        ended.map(|held| (&held.lease, &held.row))
    }

    /// Returns what was learned since the last call.
    pub(super) fn take_events(&mut self) -> Vec<RenewerEvent> {
        self.reports.take()
    }

    /// Stores a checkpoint. It may not be before the last one.
    pub(super) fn checkpoint(
        &mut self,
        lease: &LeaseKey,
        epoch: Epoch,
        position: Position,
        reply: Reply,
    ) {
        let key = self.in_use(lease, epoch);
        let Some(held) = key.and_then(|key| self.held.get_mut(&key)) else {
            return respond(reply, Err(fenced("checkpoint", lease)));
        };
        match held.row.progress {
            Progress::After(stored) if stored == position => respond(reply, Ok(())),
            Progress::After(stored) if stored > position => {
                let message = format!("the checkpoint {position} is before {stored}, the last one");
                let error = Error::new(ErrorKind::Invalid, "checkpoint", message);
                respond(reply, Err(error.with_partition(&lease.partition())));
            }
            _ => held.queue(Write::Checkpoint {
                progress: Progress::After(position),
                reply,
            }),
        }
    }

    /// Stores the shard end, after the leases of the children are created. Without `children` they are looked up.
    pub(super) fn complete(
        &mut self,
        lease: &LeaseKey,
        epoch: Epoch,
        children: Vec<Shard>,
        reply: Reply,
    ) {
        let key = self.streams.key(lease);
        let held = key.as_ref().and_then(|key| self.held.get(key));
        if held.is_some_and(|held| held.epoch == epoch && held.stage == Stage::ShardEnd) {
            return respond(reply, Ok(()));
        }
        let key = self.in_use(lease, epoch);
        let held = key.and_then(|key| Some((key.clone(), self.held.get(&key)?)));
        let stream = self.streams.get(&lease.stream).cloned();
        let (Some((key, held)), Some(stream)) = (held, stream) else {
            return respond(reply, Err(fenced("complete", lease)));
        };
        let shard_end = ShardEnd {
            table: self.table.clone(),
            source: self.source.clone(),
            stream,
            row: held.row.clone(),
            shard: lease.shard.clone(),
        };
        let lease = lease.clone();
        let completed = async move {
            Completed::Children {
                key,
                lease,
                epoch,
                children: shard_end.create_children(children).await,
                reply,
            }
        };
        self.in_flight.push(completed.boxed());
    }

    /// Releases a lease: to the member that requests it, or for any worker to take.
    pub(super) fn release(&mut self, lease: &LeaseKey, epoch: Epoch, reply: Reply) {
        let key = self.in_use(lease, epoch);
        match key.and_then(|key| self.held.get_mut(&key)) {
            Some(held) => held.release(Some(reply)),
            None => respond(reply, Err(fenced("release", lease))),
        }
    }

    /// Makes the next renewals note the tip.
    pub(super) fn note_tip(&mut self, lease: &LeaseKey, epoch: Epoch, tip: Tip) {
        let key = self.in_use(lease, epoch);
        if let Some(held) = key.and_then(|key| self.held.get_mut(&key)) {
            held.tip = Some(tip);
        }
    }

    /// Returns when [`tick`](Self::tick) must be called next.
    pub(super) fn due(&self) -> Option<Instant> {
        let of = self.held.len();
        let due = self.held.values().enumerate().flat_map(|(rank, held)| {
            let overdue = match held.stage {
                Stage::Draining(since) => Some(since + self.longest_drain()),
                _ => None,
            };
            let write = held.due(self.turns.wait(held, rank, of));
            [write, Some(held.renewed_at + self.failover), overdue]
        });
        due.flatten().min()
    }

    /// Drops the leases that have expired, takes back those that were not released in time, and starts the due changes.
    pub(super) fn tick(&mut self, now: Instant) {
        for key in self.keys(|held| held.is_expired(self.failover, now)) {
            self.lose(&key, LossReason::Expired);
        }
        let overdue = self.longest_drain();
        let is_overdue =
            |held: &Held| matches!(held.stage, Stage::Draining(since) if since + overdue <= now);
        for key in self.keys(is_overdue) {
            self.take_back(&key);
        }
        self.start_writes(now);
    }

    fn keys(&self, which: impl Fn(&Held) -> bool) -> Vec<Arc<str>> {
        let held = self.held.iter().filter(|(_, held)| which(held));
        held.map(|(key, _)| key.clone()).collect()
    }

    /// Starts the due changes, at most one per lease.
    fn start_writes(&mut self, now: Instant) {
        let of = self.held.len();
        for (rank, (key, held)) in self.held.iter_mut().enumerate() {
            let wait = self.turns.wait(held, rank, of);
            let Some((write, update)) = held.start_write(now, wait) else {
                continue;
            };
            let (table, key) = (self.table.clone(), key.clone());
            let (lease, epoch) = (held.lease.clone(), held.epoch);
            let completed = async move {
                Completed::Write {
                    outcome: Box::new(table.change(&key, &update).await),
                    key,
                    lease,
                    epoch,
                    write,
                }
            };
            self.in_flight.push(completed.boxed());
        }
    }

    /// Waits until a request has completed, and handles its result. Returns `None` if no request is in flight. Cancel safe: a
    /// dropped call handles nothing.
    pub(super) async fn next(&mut self) -> Option<()> {
        match self.in_flight.next().await? {
            Completed::Write {
                key,
                lease,
                epoch,
                write,
                outcome,
            } => self.on_written(&key, &lease, epoch, write, *outcome),
            Completed::Children {
                key,
                lease,
                epoch,
                children,
                reply,
            } => self.on_children(&key, lease, epoch, children, reply),
        }
        Some(())
    }

    fn on_written(
        &mut self,
        key: &Arc<str>,
        lease: &LeaseKey,
        epoch: Epoch,
        write: Write,
        outcome: Result<WriteOutcome, (Instant, Error)>,
    ) {
        let now = Instant::now();
        // Several attempts must fit between a due renewal and the expiry of the lease.
        let longest_delay = self.turns.interval() / 4;
        let Some(held) = self.held.get_mut(key).filter(|held| held.epoch == epoch) else {
            // The lease was lost meanwhile, which an event has reported to the application.
            write.respond(Err(fenced("lease", lease)));
            if let Ok(WriteOutcome { row: Some(row), .. }) = outcome {
                self.reports.push(RenewerEvent::Observed(Box::new(row)));
            }
            return;
        };
        held.finish_write();
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err((before, error)) => {
                held.fail(before, now, longest_delay);
                match write {
                    // No other member can do it.
                    Write::Release { .. } => held.requeue(write),
                    write => write.respond(Err(error.clone())),
                }
                return self.reports.push(RenewerEvent::TableError(error));
            }
        };
        match outcome.row {
            Some(row) if row.is_held_by(&self.id, epoch) => {
                if held.is_notified_by(&row) {
                    self.reports.push(RenewerEvent::Notified);
                }
                if row.counter > held.row.counter {
                    let before = match outcome.applied {
                        true => outcome.before,
                        // An earlier request was applied, or this one.
                        false => held.first_unresolved(outcome.before),
                    };
                    held.succeed(&write, row.clone(), before);
                } else {
                    held.fail(outcome.before, now, longest_delay);
                }
                held.row.own.rescan = row.own.rescan;
                self.reports.push(RenewerEvent::Observed(Box::new(row)));
                self.finish_write(key, write, outcome.error);
                self.consider_handoff(key, now);
            }
            row => {
                let is_released = match (&write, &row) {
                    (Write::Release { .. }, Some(row)) => {
                        let is_next = row.counter == held.row.counter + 1;
                        outcome.applied || (is_next && row.owner.as_ref() == held.row.next_owner())
                    }
                    _ => false,
                };
                self.reports.push(match row {
                    Some(row) => RenewerEvent::Observed(Box::new(row)),
                    None => RenewerEvent::RowDeleted(key.clone()),
                });
                match is_released {
                    true => {
                        self.finish_release(key);
                        write.respond(Ok(()));
                    }
                    false => {
                        self.lose(key, LossReason::Taken);
                        write.respond(Err(fenced("lease", lease)));
                    }
                }
            }
        }
    }

    /// Resolves a write after which the lease is still held.
    fn finish_write(&mut self, key: &str, write: Write, error: Option<Error>) {
        let Some(held) = self.held.get_mut(key) else {
            return;
        };
        match (write, error) {
            (Write::Renew, _) => {}
            (write @ Write::Checkpoint { progress, .. }, _) if held.row.progress == progress => {
                write.respond(Ok(()));
                if progress == Progress::End {
                    held.stage = Stage::ShardEnd;
                    self.reports.shard_ended(held);
                }
            }
            (write @ Write::Checkpoint { .. }, Some(error)) => write.respond(Err(error)),
            // An earlier request of this member was applied late and incremented the counter.
            (write, _) => held.requeue(write),
        }
    }

    /// Stores the shard end, now that the leases of the children exist.
    fn on_children(
        &mut self,
        key: &Arc<str>,
        lease: LeaseKey,
        epoch: Epoch,
        children: Result<Children>,
        reply: Reply,
    ) {
        let children = match children {
            Ok(children) => children,
            Err(error) => {
                respond(reply, Err(error.clone()));
                let stream = lease.stream;
                let event = RenewerEvent::ShardEndFailed { stream, error };
                return self.reports.push(event);
            }
        };
        let held = self.held.get_mut(key);
        match held.filter(|held| held.epoch == epoch && held.is_in_use()) {
            Some(held) => held.queue(Write::Checkpoint {
                progress: Progress::End,
                reply,
            }),
            None => respond(reply, Err(fenced("complete", &lease))),
        }
        self.reports.push(RenewerEvent::ChildrenCreated {
            stream: lease.stream,
            shards: children.shards,
            rows: children.rows,
        });
    }

    /// Takes a lease out of use that belongs to another member, or may do so.
    fn lose(&mut self, key: &str, reason: LossReason) {
        let Some(mut held) = self.held.remove(key) else {
            return;
        };
        held.reject_queued();
        self.reports.lost(&held, reason);
    }

    /// Records that the release is stored.
    fn finish_release(&mut self, key: &Arc<str>) {
        let Some(mut held) = self.held.remove(key) else {
            return;
        };
        held.reject_queued();
        self.reports.released(key, &held);
    }

    /// Tells the application that another member wants the lease, or releases it at once if the
    /// application does not have it.
    fn consider_handoff(&mut self, key: &str, now: Instant) {
        let within = self.drain;
        let held = self.held.get_mut(key);
        let Some(held) = held.filter(|held| held.row.next_owner().is_some()) else {
            return;
        };
        self.reports.push(RenewerEvent::HandoffRequested);
        match held.stage {
            Stage::Active => {
                held.stage = Stage::Draining(now);
                self.reports.handoff_requested(held, within);
            }
            Stage::BlockedOnParents => held.release(None),
            // The next holder starts its cleanup.
            Stage::ShardEnd if held.is_idle() => held.queue(Write::Release { reply: None }),
            Stage::ShardEnd | Stage::Draining(_) | Stage::Releasing => {}
        }
    }

    /// Takes a lease from an application that has not released it in time.
    fn take_back(&mut self, key: &str) {
        let Some(held) = self.held.get_mut(key) else {
            return;
        };
        held.reject_queued();
        held.release(None);
        self.reports.taken_back(held);
    }

    /// Returns how long an application may take to release a requested lease.
    fn longest_drain(&self) -> Duration {
        self.drain + self.turns.interval()
    }

    /// Returns the caller's lease, if it is this member's in that epoch, in use and not expired.
    fn in_use(&self, lease: &LeaseKey, epoch: Epoch) -> Option<Arc<str>> {
        let key = self.streams.key(lease)?;
        let held = self.held.get(&key)?;
        let is_expired = held.is_expired(self.failover, Instant::now());
        (held.epoch == epoch && held.is_in_use() && !is_expired).then_some(key)
    }
}
