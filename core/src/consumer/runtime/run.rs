//! Deliveries that were handed to a handler and are not settled.
//!
//! A run is one delivery, or a batch of consecutive ones. It has no future and no timer, so it takes a
//! few hundred bytes while it waits for its next attempt.

use std::time::Duration;

use tokio::time::Instant;

use super::dead_letter_sink::DeadRecord;
use super::handler::HandlerError;
use crate::{BatchFailure, Delivery, Error, Failure};

/// The maximum number of dead letters that a run collects before it sends them.
const MAX_LETTERS: usize = 1_000;

#[derive(Debug)]
pub(crate) struct Run {
    /// When the first attempt began.
    pub(crate) begun: Instant,
    /// Deliveries that are neither settled nor given up.
    left: Deliveries,
    /// State that results from failed attempts. Unset if none failed, so that most runs are small.
    failed: Option<Box<Failed>>,
}

#[derive(Debug, Default)]
struct Failed {
    /// The lengths of the parts that are handed out one after the other, the next part last. Empty:
    /// all deliveries are one part.
    parts: Vec<usize>,
    /// When the next part is handed out. Unset: now.
    due: Option<Instant>,
    /// How often in a row a dependency was unavailable.
    outages: u32,
    /// Deliveries to be dead-lettered. All of them are before those that are left.
    letters: Vec<(u64, DeadRecord)>,
    /// Set when the policy is to stop.
    stop: Option<Error>,
}

/// Deliveries in order. A single one needs no list, so its run allocates nothing.
#[derive(Debug)]
enum Deliveries {
    One(Option<(u64, Delivery)>),
    Many(std::vec::IntoIter<(u64, Delivery)>),
}

impl Deliveries {
    fn new(mut deliveries: impl Iterator<Item = (u64, Delivery)>) -> Self {
        let Some(first) = deliveries.next() else {
            return Self::One(None);
        };
        match deliveries.next() {
            None => Self::One(Some(first)),
            Some(second) => {
                let all: Vec<_> = [first, second].into_iter().chain(deliveries).collect();
                Self::Many(all.into_iter())
            }
        }
    }

    fn as_slice(&self) -> &[(u64, Delivery)] {
        match self {
            Self::One(one) => one.as_slice(),
            Self::Many(many) => many.as_slice(),
        }
    }

    fn as_mut_slice(&mut self) -> &mut [(u64, Delivery)] {
        match self {
            Self::One(one) => one.as_mut_slice(),
            Self::Many(many) => many.as_mut_slice(),
        }
    }

    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn pop_first(&mut self) -> Option<(u64, Delivery)> {
        match self {
            Self::One(one) => one.take(),
            Self::Many(many) => many.next(),
        }
    }
}

/// The next step of a run.
#[derive(Debug)]
pub(crate) enum Next {
    /// Nothing: all deliveries are settled.
    Done,
    /// An attempt of the next part, at this time. Unset: now.
    Attempt(Option<Instant>),
    /// Dead letters to store.
    Letters(Vec<(u64, DeadRecord)>),
    /// A stop of the consumer. Unsettled deliveries are delivered again.
    Stop(Error),
}

/// The state of the first unsettled delivery of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunStatus {
    pub(crate) first: u64,
    pub(crate) attempt: u32,
    /// When the first attempt of the run began.
    pub(crate) begun: Instant,
    /// When the next attempt begins, if the run waits for one.
    pub(crate) due: Option<Instant>,
}

impl RunStatus {
    pub(crate) fn of(run: &Run) -> Self {
        let front = run.left.as_slice().first();
        Self {
            first: run.first().unwrap_or(0),
            attempt: front.map_or(1, |(_, delivery)| delivery.attempt()),
            begun: run.begun,
            due: run.due(),
        }
    }
}

impl Run {
    pub(crate) fn new(begun: Instant, deliveries: impl Iterator<Item = (u64, Delivery)>) -> Self {
        Self {
            begun,
            left: Deliveries::new(deliveries),
            failed: None,
        }
    }

    fn failed(&mut self) -> &mut Failed {
        self.failed.get_or_insert_default()
    }

    fn letters(&self) -> &[(u64, DeadRecord)] {
        self.failed.as_ref().map_or(&[], |failed| &failed.letters)
    }

    /// Returns the first number that is not settled. It does not change while the run waits.
    pub(crate) fn first(&self) -> Option<u64> {
        let letter = self.letters().first().map(|(number, _)| *number);
        letter.or_else(|| self.left.as_slice().first().map(|(number, _)| *number))
    }

    /// Returns all numbers that are not settled.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let letters = self.letters().iter().map(|(number, _)| *number);
        let left = self.left.as_slice().iter().map(|(number, _)| *number);
        letters.chain(left).collect()
    }

    /// Returns when the next attempt is due, if the run waits for one.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.failed.as_ref()?.due
    }

    /// Returns the deliveries of the part that is handed out next.
    pub(crate) fn part(&self) -> impl Iterator<Item = &Delivery> {
        let parts = self.failed.as_ref().map(|failed| &failed.parts);
        let next = parts.and_then(|parts| parts.last().copied());
        self.front(next.unwrap_or(self.left.len()))
    }

    /// Settles the next part after an attempt that succeeded, as far as the numbers are taken from the
    /// iterator.
    pub(crate) fn succeeded(&mut self) -> impl Iterator<Item = u64> {
        if let Some(failed) = &mut self.failed {
            failed.outages = 0;
        }
        let part = self.take_part();
        self.settle(part)
    }

    /// Returns the next step. Must be called after each attempt, and when letters were stored.
    pub(crate) fn next(&mut self) -> Next {
        let is_settled = self.left.len() == 0;
        if let Some(failed) = &mut self.failed {
            if let Some(error) = failed.stop.take() {
                return Next::Stop(error);
            }
            let letters = &mut failed.letters;
            let sends_letters = !letters.is_empty()
                && (is_settled || failed.due.is_some() || letters.len() >= MAX_LETTERS);
            if sends_letters {
                return Next::Letters(std::mem::take(letters));
            }
        }
        match is_settled {
            true => Next::Done,
            false => Next::Attempt(self.due()),
        }
    }

    /// Ends the attempt of the next part, which takes longer than `limit`: its deliveries report that they
    /// are lost.
    pub(super) fn time_out(&self, limit: Duration) -> HandlerError {
        self.part().for_each(Delivery::expire);
        HandlerError::Failed(BatchFailure::whole(Failure::timeout(limit)))
    }

    /// Records that the attempt begins.
    pub(crate) fn begin(&mut self) {
        self.wait_until(None);
    }

    /// Takes the next part. [`put_back`](Self::put_back) returns the rest of it.
    pub(super) fn take_part(&mut self) -> usize {
        let next = self.failed.as_mut().and_then(|failed| failed.parts.pop());
        next.unwrap_or(self.left.len())
    }

    /// Puts back a part of which `length` deliveries are left.
    pub(super) fn put_back(&mut self, length: usize) {
        if length > 0 {
            self.failed().parts.push(length);
        }
    }

    /// Settles the first `count` deliveries, as far as the numbers are taken from the iterator.
    pub(super) fn settle(&mut self, count: usize) -> impl Iterator<Item = u64> {
        (0..count).map_while(|_| Some(self.left.pop_first()?.0))
    }

    /// Counts how often in a row a dependency was unavailable.
    pub(super) fn count_outage(&mut self, is_outage: bool) -> u32 {
        let outages = &mut self.failed().outages;
        *outages = match is_outage {
            true => outages.saturating_add(1),
            false => 0,
        };
        *outages
    }

    pub(super) fn outages(&self) -> u32 {
        self.failed.as_ref().map_or(0, |failed| failed.outages)
    }

    /// Sets when the next attempt is due.
    pub(super) fn wait_until(&mut self, due: Option<Instant>) {
        if due.is_some() || self.failed.is_some() {
            self.failed().due = due;
        }
    }

    pub(super) fn stop(&mut self, error: Error) {
        self.failed().stop = Some(error);
    }

    /// Returns the first `count` deliveries.
    pub(super) fn front(&self, count: usize) -> impl Iterator<Item = &Delivery> {
        let left = self.left.as_slice().iter();
        left.take(count).map(|(_, delivery)| delivery)
    }

    /// Counts an attempt of the first `count` deliveries.
    pub(super) fn raise_attempts(&mut self, count: usize) {
        for (_, delivery) in self.left.as_mut_slice().iter_mut().take(count) {
            *delivery = delivery.next_attempt();
        }
    }

    /// Moves the first delivery to the dead letters.
    pub(super) fn dead_letter(&mut self, letter: DeadRecord) {
        if let Some((number, _)) = self.left.pop_first() {
            self.failed().letters.push((number, letter));
        }
    }
}
