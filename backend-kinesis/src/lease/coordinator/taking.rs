//! The lease taker: takes free leases, leases that the balance requires, and leases that others hand over.

use std::sync::Arc;

use millstream_core::telemetry::{Causes, event};
use millstream_core::{Epoch, Error};
use tokio::time::Instant;

use super::LeaseCoordinator;
use super::claims::RACE;
use crate::lease::change;
use crate::lease::row::{Progress, Row};
use crate::lease::table::WriteOutcome;
use crate::lease::taker::{self, Candidate, Situation};
use crate::lease::view::Seen;

/// After this many failover times without an owner, a lease is taken regardless of the balance.
pub(super) const VERY_OLD: u32 = 3;

impl LeaseCoordinator {
    /// Decides from the last known state which leases to take, and takes them.
    pub(super) fn decide(&mut self, now: Instant) {
        self.schedule.decide = None;
        let candidates = self.candidates(now);
        let situation = Situation {
            me: &self.options.id,
            most: self.options.max_leases.unwrap_or(usize::MAX),
            may_steal: self.schedule.steal <= now,
            claim: self.claims.claim(),
        };
        let decision = taker::decide(&situation, &candidates, &mut self.random);
        self.on_decided(&decision, now);
        if decision.spillover > 0 {
            event!(
                debug, "millstream.kinesis.lease.spillover", group = %self.options.group,
                leases = decision.spillover,
                "this member's share of the leases is larger than its bound"
            );
        }
        // A lease that another member has handed over already belongs to this one, and only needs to be accepted.
        let me = self.options.id.clone();
        let handed = self.view.iter().filter(|(key, seen)| {
            seen.row.holder() == Some(&me)
                && !self.renewer.holds(key)
                && !self.taking.contains(*key)
        });
        let handed: Vec<_> = handed.map(|(key, _)| key.clone()).collect();
        for key in handed.into_iter().chain(decision.take) {
            self.take(key, false);
        }
        for key in decision.request {
            self.request(key, now);
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
        let renewal = self.options.renewal_interval();
        let candidate = |(key, seen): (&Arc<str>, &Seen)| {
            let row = &seen.row;
            let mine = self.renewer.holds(key)
                || self.taking.contains(key)
                || row.holder() == Some(self.me());
            let owner = match mine {
                true => Some(self.me()),
                false => row.holder(),
            };
            let expired = !mine && seen.is_older(failover, now) && seen.is_silent(renewal);
            let can_be_requested = !mine && !expired && row.can_be_requested();
            let requester = match self.requests.has(key) {
                true => Some(self.me()),
                false => row.own.requester.as_ref().filter(|_| can_be_requested),
            };
            Candidate {
                key: key.clone(),
                owner: owner.cloned(),
                requester: requester.filter(|_| !mine && !expired).cloned(),
                expired,
                very_old: !mine && seen.is_older(failover * VERY_OLD, now),
                can_be_requested,
            }
        };
        self.view.iter().map(candidate).collect()
    }

    /// Returns when the next lease of another worker expires, unless it is renewed.
    fn next_expiry(&self, now: Instant) -> Option<Instant> {
        let others = self.view.iter().filter(|(key, _)| !self.renewer.holds(key));
        let failover = self.options.failover;
        let times =
            others.flat_map(|(_, seen)| [seen.since + failover, seen.since + failover * VERY_OLD]);
        times.filter(|time| *time > now).min()
    }

    /// Takes a lease, if it is unchanged. A `stolen` one has an owner that keeps incrementing the
    /// counter, so it is tried once more with the row that the first attempt has shown.
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
        self.run_concurrently(async move {
            let result = async {
                // The row's creator did not store which tip is meant. From now on it is the current one.
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
            move |coordinator: &mut Self| coordinator.on_taken(key, row, stolen, result)
        });
    }

    fn on_taken(
        &mut self,
        key: Arc<str>,
        before: Row,
        stolen: bool,
        attempt: Result<WriteOutcome, (Instant, Error)>,
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
                self.on_take_failed(now);
                return self.on_table_error(&error);
            }
        };
        let Some(row) = attempt.row else {
            self.view.forget(&key);
            return self.on_take_finished(now);
        };
        self.view.record(row.clone(), now);
        // A lost response does not matter: only this member's take results in this row.
        let is_taken = row.holder() == Some(self.me()) && row.own.epoch == Some(Epoch(row.counter));
        if !is_taken && row.counter != before.counter {
            if !stolen {
                self.claims.refused();
            }
            self.on_take_finished(now);
            // Another member was faster. What is left for this one depends on that member's row, and is decided
            // when the others of the same race have ended.
            return self.schedule.decide_at(now + RACE);
        }
        self.on_take_finished(now);
        if !is_taken || row.counter == before.counter {
            return self.schedule.decide_later(now);
        }
        self.schedule.decided_well();
        self.schedule.decide_at(now);
        self.requests.remove(&key);
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
        self.renewer.add(lease, row, attempt.before);
        self.check_parents(&key);
    }
}
