//! Taking leases: what is free, what is due by the balance, and what others hand over.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::telemetry::{Causes, event};
use millstream_core::{Epoch, Error};
use tokio::time::Instant;

use super::Member;
use super::attempt::Attempt;
use super::held::{Held, Stage, Write};
use crate::lease::change;
use crate::lease::row::{Progress, Row};
use crate::lease::taker::{self, Candidate, Situation};
use crate::lease::view::Seen;

/// How many time-outs a lease has nobody before it is taken without regard to the balance.
pub(super) const FORSAKEN: u32 = 3;

/// How long to wait for the ends of a race for leases.
const RACE: Duration = Duration::from_millis(50);

impl Member {
    /// Decides from what was seen which leases to take, and does so.
    pub(super) fn decide(&mut self, now: Instant) {
        self.schedule.decide = None;
        let candidates = self.candidates(now);
        let situation = Situation {
            me: &self.options.id,
            most: self.options.max_leases.unwrap_or(usize::MAX),
            may_steal: self.schedule.steal <= now,
        };
        let decision = taker::decide(&situation, &candidates, &mut self.random);
        if decision.spillover > 0 {
            event!(
                debug, "millstream.kinesis.lease.spillover", group = %self.options.group,
                leases = decision.spillover,
                "this member's share of the leases is larger than its bound"
            );
        }
        // What another member has handed over is owned by this one, and only has to be accepted.
        let me = self.options.id.clone();
        let handed = self.view.iter().filter(|(key, seen)| {
            seen.row.holder() == Some(&me)
                && !self.held.contains_key(*key)
                && !self.taking.contains(*key)
        });
        let handed: Vec<_> = handed.map(|(key, _)| key.clone()).collect();
        for key in handed.into_iter().chain(decision.take) {
            self.take(key, false);
        }
        for key in decision.ask {
            self.ask(key, now);
        }
        for key in decision.steal {
            self.schedule.steal_later(now);
            self.take(key, true);
        }
        if let Some(next) = self.next_expiry(now) {
            self.schedule.decide_at(next);
        }
    }

    fn candidates(&self, now: Instant) -> Vec<Candidate> {
        let failover = self.options.failover;
        let renewal = self.renewal();
        let candidate = |(key, seen): (&Arc<str>, &Seen)| {
            let row = &seen.row;
            let mine = self.held.contains_key(key)
                || self.taking.contains(key)
                || row.holder() == Some(self.me());
            let owner = match mine {
                true => Some(self.me()),
                false => row.holder(),
            };
            let expired = !mine && seen.is_older(failover, now) && seen.is_silent(renewal);
            let can_be_asked = !mine && !expired && row.can_be_asked();
            let asker = match self.asks.has(key) {
                true => Some(self.me()),
                false => row.own.asker.as_ref().filter(|_| can_be_asked),
            };
            Candidate {
                key: key.clone(),
                owner: owner.cloned(),
                asker: asker.filter(|_| !mine && !expired).cloned(),
                expired,
                forsaken: !mine && seen.is_older(failover * FORSAKEN, now),
                can_be_asked,
            }
        };
        self.view.iter().map(candidate).collect()
    }

    /// When the next lease of another worker expires, unless that shows a sign of life.
    fn next_expiry(&self, now: Instant) -> Option<Instant> {
        let others = self
            .view
            .iter()
            .filter(|(key, _)| !self.held.contains_key(*key));
        let failover = self.options.failover;
        let times =
            others.flat_map(|(_, seen)| [seen.since + failover, seen.since + failover * FORSAKEN]);
        times.filter(|time| *time > now).min()
    }

    /// Takes a lease, if it still is as it was seen. One that is `stolen` has an owner that moves the
    /// counter all the time, so it is tried once more with what the first try has shown.
    pub(super) fn take(&mut self, key: Arc<str>, stolen: bool) {
        let Some(seen) = self.view.get(&key) else {
            return;
        };
        let row = seen.row.clone();
        let Some(lease) = self.streams.parse(&key) else {
            return;
        };
        let Some(stream) = self.streams.get(&lease.stream).cloned() else {
            return;
        };
        if !self.taking.insert(key.clone()) {
            return;
        }
        let (table, source) = (self.table.clone(), self.options.source.clone());
        let me = self.options.id.clone();
        self.fly(async move {
            let result = async {
                // Who made the row did not say which tip was meant. From now on it is this one.
                let unpinned = row.progress == Progress::Latest && row.own.start.is_none();
                let pin = match unpinned {
                    true => match source.latest(&lease.stream, &lease.shard).await {
                        Ok(pin) => Some(pin),
                        Err(error) => return Err((Instant::now(), error)),
                    },
                    false => None,
                };
                let update = change::take(&row, &me, &stream, pin.as_ref());
                let attempt = table.change(&key, &update).await?;
                match &attempt.row {
                    Some(fresh) if stolen && !attempt.applied && fresh.owner == row.owner => {
                        let update = change::take(fresh, &me, &stream, pin.as_ref());
                        table.change(&key, &update).await
                    }
                    _ => Ok(attempt),
                }
            };
            let result = result.await;
            move |member: &mut Self| member.took(key, row, stolen, result)
        });
    }

    fn took(
        &mut self,
        key: Arc<str>,
        before: Row,
        stolen: bool,
        attempt: Result<Attempt, (Instant, Error)>,
    ) {
        self.taking.remove(&key);
        let now = Instant::now();
        let attempt = match attempt {
            Ok(attempt) => attempt,
            Err((_, error)) => {
                event!(
                    debug, "millstream.kinesis.lease.not_taken", group = %self.options.group,
                    lease = &*key, error = %Causes(&error), "a lease was not taken"
                );
                self.schedule.decide_later(now);
                return self.suffer(&error);
            }
        };
        let Some(row) = attempt.row else {
            self.view.forget(&key);
            return;
        };
        self.view.saw(row.clone(), now);
        // An answer that got lost does not matter: only our own take looks like this.
        let is_taken = row.holder() == Some(self.me()) && row.own.epoch == Some(Epoch(row.counter));
        if !is_taken && row.counter != before.counter {
            // Another member was quicker. What is left for this one is decided by what it has shown,
            // when the others of the same race are over.
            return self.schedule.decide_at(now + RACE);
        }
        if !is_taken || row.counter == before.counter {
            return self.schedule.decide_later(now);
        }
        self.schedule.decided_well();
        self.schedule.decide_at(now);
        self.asks.remove(&key);
        let Some(lease) = self.streams.parse(&key) else {
            return;
        };
        let (from, epoch) = (before.owner.as_deref(), row.counter);
        match stolen {
            true => event!(
                info, "millstream.kinesis.lease.stolen",
                group = %self.options.group, stream = %lease.stream, partition = %lease.shard,
                epoch, from, "a lease was stolen for the balance"
            ),
            false => event!(
                debug, "millstream.kinesis.lease.taken",
                group = %self.options.group, stream = %lease.stream, partition = %lease.shard,
                epoch, from, "a lease was taken"
            ),
        }
        let mut held = Held::new(lease, row, attempt.before);
        if self.leaving.is_some() {
            held.stage = Stage::Ceded;
            held.waiting.push_back(Write::Release { reply: None });
        }
        self.held.insert(key.clone(), held);
        self.check_parents(&key);
    }
}
