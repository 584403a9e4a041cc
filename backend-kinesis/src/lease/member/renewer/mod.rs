//! The lease renewer: renewals, checkpoints, and releases of held leases.

use std::sync::Arc;

use millstream_core::telemetry::event;
use millstream_core::{Epoch, Error};
use tokio::time::Instant;

use super::Member;
use crate::lease::change;
use crate::lease::options::LeaseEvent;
use crate::lease::row::{Progress, Row};
use crate::lease::table::WriteOutcome;

pub(super) mod held;
mod shard_end;
pub(super) mod turns;

use held::{Held, Stage, Write};

impl Member {
    /// Drops the leases that were not renewed in time: others may already have them.
    pub(in crate::lease::member) fn expire(&mut self, now: Instant) {
        let failover = self.options.failover;
        let expired = |held: &Held| held.renewed + failover <= now;
        let keys: Vec<_> = self.keys(expired);
        for key in keys {
            if let Some(held) = self.held.get(&key) {
                event!(
                    warn, "millstream.kinesis.lease.expired",
                    group = %self.options.group, stream = %held.lease.stream,
                    partition = %held.lease.shard, epoch = %held.epoch,
                    "a lease could not be renewed in time"
                );
            }
            self.lose(&key);
            if let Some(leaving) = &mut self.leaving {
                leaving.expired = true;
            }
        }
        let overdue = self.options.drain + self.renewal();
        let keys = self.keys(|held| matches!(held.stage, Stage::Asked(at) if at + overdue <= now));
        for key in keys {
            self.cede(&key);
        }
    }

    fn keys(&self, which: impl Fn(&Held) -> bool) -> Vec<Arc<str>> {
        let held = self.held.iter().filter(|(_, held)| which(held));
        held.map(|(key, _)| key.clone()).collect()
    }

    /// Starts the due changes, at most one per lease.
    pub(in crate::lease::member) fn write(&mut self, now: Instant) {
        let of = self.held.len();
        let mut starting = Vec::new();
        for (rank, (key, held)) in self.held.iter_mut().enumerate() {
            let wait = self.turns.wait(held, rank, of);
            let Some(write) = held.next_write(now, wait) else {
                continue;
            };
            held.busy = true;
            let update = match &write {
                Write::Renew => match held.tip_to_note() {
                    Some(tip) => change::renew_at_tip(&held.row, tip),
                    None => change::renew(&held.row),
                },
                Write::Store { progress, .. } => change::store(&held.row, *progress),
                Write::Release { .. } => match held.row.heir() {
                    Some(heir) => change::assign(&held.row, heir),
                    None => change::evict(&held.row),
                },
            };
            starting.push((key.clone(), held.epoch, write, update));
        }
        for (key, epoch, write, update) in starting {
            let table = self.table.clone();
            self.fly(async move {
                let attempt = table.change(&key, &update).await;
                move |member: &mut Self| member.written(&key, epoch, write, attempt)
            });
        }
    }

    fn written(
        &mut self,
        key: &Arc<str>,
        epoch: Epoch,
        write: Write,
        attempt: Result<WriteOutcome, (Instant, Error)>,
    ) {
        let now = Instant::now();
        // Several attempts must fit between a due renewal and the expiry of the lease.
        let longest = self.renewal() / 4;
        let me = self.options.id.clone();
        let Some(held) = self.held.get_mut(key).filter(|held| held.epoch == epoch) else {
            // The lease was lost meanwhile, which an event has reported to the caller.
            if let Some(lease) = self.streams.parse(key) {
                write.answer(Err(Self::fenced("lease", &lease)));
            }
            if let Ok(WriteOutcome { row: Some(row), .. }) = attempt {
                self.saw(row);
            }
            return;
        };
        held.busy = false;
        let attempt = match attempt {
            Ok(attempt) => attempt,
            Err((before, error)) => {
                held.fail(before, now, longest);
                match write {
                    // No other member can do it.
                    Write::Release { .. } => held.waiting.push_front(write),
                    write => write.answer(Err(error.clone())),
                }
                return self.on_table_error(&error);
            }
        };
        let ours = |row: &Row| row.holder() == Some(&me) && row.own.epoch == Some(epoch);
        match attempt.row {
            Some(row) if ours(&row) => {
                let moved = row.counter > held.row.counter;
                let is_nudged = row.own.look.is_some() && row.own.look != held.row.own.look;
                let before = match attempt.applied {
                    true => attempt.before,
                    // An earlier request was applied, or this one.
                    false => held.unsure.unwrap_or(attempt.before),
                };
                match moved {
                    true => {
                        held.succeed(row.clone(), before);
                        held.is_quiet = matches!(write, Write::Renew);
                    }
                    false => held.fail(attempt.before, now, longest),
                }
                held.row.own.look = row.own.look;
                if is_nudged {
                    self.nudged(now);
                }
                self.saw(row);
                self.finish_write(key, write, attempt.error);
                self.consider_heir(key, now);
            }
            row => {
                let lease = held.lease.clone();
                let released = match (&write, &row) {
                    (Write::Release { .. }, Some(row)) => {
                        let heir = held.row.heir();
                        attempt.applied
                            || (row.counter == held.row.counter + 1 && row.owner.as_ref() == heir)
                    }
                    _ => false,
                };
                match row {
                    Some(row) => self.saw(row),
                    None => self.view.forget(key),
                }
                match released {
                    true => self.released(key),
                    false => self.lose(key),
                }
                write.answer(match released {
                    true => Ok(()),
                    false => Err(Self::fenced("lease", &lease)),
                });
            }
        }
    }

    /// Resolves a change after which the lease is still held here.
    fn finish_write(&mut self, key: &Arc<str>, write: Write, error: Option<Error>) {
        let Some(held) = self.held.get_mut(key) else {
            return;
        };
        match (write, error) {
            (Write::Renew, _) => {}
            (write @ Write::Store { progress, .. }, _) if held.row.progress == progress => {
                write.answer(Ok(()));
                if progress == Progress::End {
                    held.stage = Stage::Ended;
                    self.ended(key);
                }
            }
            (write @ Write::Store { .. }, Some(error)) => write.answer(Err(error)),
            // An earlier request of this member was applied late and incremented the counter.
            (write, _) => held.waiting.push_front(write),
        }
    }

    /// Takes a lease out of use that belongs to another member, or may do so.
    pub(in crate::lease::member) fn lose(&mut self, key: &str) {
        let Some(mut held) = self.held.remove(key) else {
            return;
        };
        held.refuse_all(&Self::fenced("lease", &held.lease));
        self.schedule.decide_at(Instant::now());
        if held.is_in_use() {
            event!(
                info, "millstream.kinesis.lease.lost",
                group = %self.options.group, stream = %held.lease.stream,
                partition = %held.lease.shard, epoch = %held.epoch, "a lease was lost"
            );
            self.emit(LeaseEvent::Lost {
                lease: held.lease,
                epoch: held.epoch,
            });
        }
    }

    fn released(&mut self, key: &str) {
        let Some(mut held) = self.held.remove(key) else {
            return;
        };
        held.refuse_all(&Self::fenced("lease", &held.lease));
        if self.leaving.is_some() && held.row.heir().is_none() {
            self.news.insert(key.into());
        }
        self.schedule.decide_at(Instant::now());
        event!(
            debug, "millstream.kinesis.lease.released",
            group = %self.options.group, stream = %held.lease.stream,
            partition = %held.lease.shard, epoch = %held.epoch, "a lease was given up"
        );
    }

    /// Tells the application that another member wants the lease, or releases it at once if the
    /// application does not have it.
    pub(in crate::lease::member) fn consider_heir(&mut self, key: &str, now: Instant) {
        let within = self.options.drain;
        let Some(held) = self
            .held
            .get_mut(key)
            .filter(|held| held.row.heir().is_some())
        else {
            return;
        };
        // The requester has just joined, perhaps along with others.
        self.schedule.expect_changes(now);
        self.schedule.scan_soon(now);
        match held.stage {
            Stage::Told => {
                held.stage = Stage::Asked(now);
                let (lease, epoch) = (held.lease.clone(), held.epoch);
                event!(
                    debug, "millstream.kinesis.lease.asked",
                    group = %self.options.group, stream = %lease.stream,
                    partition = %lease.shard, %epoch, "another member asks for a lease"
                );
                self.emit(LeaseEvent::HandoffRequested {
                    lease,
                    epoch,
                    within,
                });
            }
            Stage::Waiting => {
                held.stage = Stage::Ceded;
                held.waiting.push_back(Write::Release { reply: None });
            }
            // The next holder starts its cleanup.
            Stage::Ended if held.waiting.is_empty() && !held.busy => {
                held.waiting.push_back(Write::Release { reply: None });
            }
            Stage::Ended | Stage::Asked(_) | Stage::Ceded => {}
        }
    }

    /// Takes a lease from an application that has not released it in time.
    fn cede(&mut self, key: &str) {
        let Some(held) = self.held.get_mut(key) else {
            return;
        };
        held.refuse_all(&Self::fenced("lease", &held.lease));
        held.stage = Stage::Ceded;
        held.waiting.push_back(Write::Release { reply: None });
        let (lease, epoch) = (held.lease.clone(), held.epoch);
        self.emit(LeaseEvent::Lost { lease, epoch });
    }

    /// Records one row as it is now.
    pub(in crate::lease::member) fn saw(&mut self, row: Row) {
        let now = Instant::now();
        if row.owner.as_ref() != Some(self.me()) {
            self.schedule.decide_at(now);
        }
        self.view.saw(row, now);
    }
}
