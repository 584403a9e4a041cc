//! Attempts that are settled from outside: the deliveries of a pull consumer.
//!
//! They are plain data of their assignment. Their settlements are taken all at once, and consecutive settlements
//! of one partition are settled together.

use std::sync::Arc;
use std::task::Context;

use slab::Slab;

use super::Member;
use super::completion::COMPLETED_BURST;
use super::dispatch::BurstClock;
use crate::consumer::delivery::Ownership;
use crate::consumer::runtime::assignment::Outstanding;
use crate::consumer::runtime::handler::{AttemptId, Handler};
use crate::consumer::runtime::run::Run;

impl<W: Handler> Member<W> {
    /// Returns how many attempts are settled from outside.
    pub(super) fn outstanding(&self) -> usize {
        match W::SETTLED_OUTSIDE {
            true => self.attempts,
            false => 0,
        }
    }

    /// Keeps a run until its attempt is settled, takes too long, or its partition is lost.
    pub(super) fn wait_for_settlement(&mut self, attempt: AttemptId, run: Run) {
        let AttemptId {
            index,
            place,
            serial,
            ..
        } = attempt;
        let expires = self.options.handler_timeout.map(|limit| self.now + limit);
        if let Some(expires) = expires {
            self.expiries.insert(expires, index, place as u64);
        }
        let kept_at = self.assignments[index].outstanding.insert(Outstanding {
            serial,
            expires,
            run,
        });
        debug_assert_eq!(kept_at, place, "it was vacant when the attempt began");
    }

    pub(super) fn poll_settlements(&mut self, cx: &mut Context<'_>) -> bool {
        if !W::SETTLED_OUTSIDE {
            return false;
        }
        let mut clock = BurstClock::default();
        let mut left = COMPLETED_BURST;
        let mut happened = false;
        while left > 0 && !clock.is_over() {
            if self.settlements.is_empty()
                && self
                    .handler
                    .poll_settled(&mut self.settlements, cx)
                    .is_pending()
            {
                // Attempts that were settled in time are handled first.
                happened |= self.expire_outstanding();
                break;
            }
            happened = true;
            self.handle_settlements(&mut clock, &mut left);
        }
        self.burst_over |= clock.is_over();
        if happened {
            self.count_in_flight();
        }
        happened
    }

    /// Handles the next settlements of one assignment.
    fn handle_settlements(&mut self, clock: &mut BurstClock, left: &mut usize) {
        let Some(first) = self.settlements.front() else {
            return;
        };
        let index = first.attempt.index;
        let mut settled = 0;
        let mut is_owned = false;
        while *left > 0 && !clock.is_over() {
            let next = self.settlements.front();
            if next.is_none_or(|next| next.attempt.index != index) {
                break;
            }
            let Some(settlement) = self.settlements.pop_front() else {
                break;
            };
            *left -= 1;
            clock.count();
            let Some(mut run) = self.take_outstanding(settlement.attempt) else {
                continue;
            };
            is_owned = true;
            match settlement.result {
                Ok(()) => {
                    let assignment = &mut self.assignments[index];
                    for number in run.succeeded() {
                        assignment.settle(number);
                        settled += 1;
                    }
                    self.go_on(index, run);
                }
                Err(error) => self.on_attempt(index, run, Err(error)),
            }
        }
        if is_owned {
            self.settled(index, settled);
            self.mark_runnable(index);
        }
    }

    /// Ends an attempt. Returns its run, unless the attempt has already ended.
    fn take_outstanding(&mut self, attempt: AttemptId) -> Option<Run> {
        let AttemptId {
            index,
            place,
            serial,
            ..
        } = attempt;
        let outstanding = &mut self.assignments.get_mut(index)?.outstanding;
        if outstanding.get(place)?.serial != serial {
            return None;
        }
        let Outstanding { run, expires, .. } = outstanding.remove(place);
        if let Some(expires) = expires {
            self.expiries.remove(expires, index, place as u64);
        }
        self.attempts -= 1;
        Some(run)
    }

    /// Fails the attempts that exceed their time.
    fn expire_outstanding(&mut self) -> bool {
        let Some(limit) = self.options.handler_timeout else {
            return false;
        };
        let mut happened = false;
        while let Some((index, place)) = self.expiries.pop_due(self.now) {
            happened = true;
            let outstanding = &mut self.assignments[index].outstanding;
            let kept = &mut outstanding[place as usize];
            // An attempt begins when the application gets the delivery. A delivery that it never got
            // must not use up its attempts.
            let begun = self.handler.begun_at(kept.serial).unwrap_or(self.now);
            let expires = begun + limit;
            if expires > self.now {
                kept.expires = Some(expires);
                self.expiries.insert(expires, index, place);
                continue;
            }
            let Outstanding { run, .. } = outstanding.remove(place as usize);
            self.attempts -= 1;
            let error = run.time_out(limit);
            self.on_attempt(index, run, Err(error));
            self.mark_runnable(index);
        }
        happened
    }

    /// Abandons the attempts of an assignment whose deliveries are no longer waited for.
    pub(super) fn abandon_outstanding(&mut self, index: usize) {
        let assignment = &mut self.assignments[index];
        let ownership = assignment.ownership.clone();
        let outstanding = std::mem::take(&mut assignment.outstanding);
        self.forget_outstanding(index, &ownership, &outstanding);
        for (_, Outstanding { run, .. }) in outstanding {
            self.abandon(index, run.numbers());
        }
        self.count_in_flight();
    }

    /// Removes the attempts of a lost assignment from the count and from the queue of expiries.
    pub(super) fn forget_outstanding(
        &mut self,
        index: usize,
        ownership: &Arc<Ownership>,
        outstanding: &Slab<Outstanding>,
    ) {
        if outstanding.is_empty() {
            return;
        }
        // Deliveries that were not pulled would keep their batches in memory until they are pulled. A closing member
        // ends soon.
        if self.closing.is_none() {
            self.handler.reclaim(ownership);
        }
        self.attempts -= outstanding.len();
        for (place, Outstanding { expires, .. }) in outstanding {
            if let Some(expires) = expires {
                self.expiries.remove(*expires, index, place as u64);
            }
        }
    }
}
