//! Deliveries that were handed to a handler and are not settled.
//!
//! A run is one delivery, or a batch of consecutive ones. It has no future and no timer, so it takes a
//! few hundred bytes while it waits for its next attempt.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::dead_letter_sink::DeadRecord;
use crate::{Delivery, Error};

/// The most dead letters that a run gathers before it sends them.
const MAX_LETTERS: usize = 1_000;

#[derive(Debug)]
pub(crate) struct Run {
    /// When its first attempt began.
    pub(crate) begun: Instant,
    /// Deliveries that are neither settled nor given up, in order.
    left: VecDeque<(u64, Delivery)>,
    /// The lengths of the parts that are handed out one after the other, the next part last. Empty:
    /// all deliveries are one part.
    parts: Vec<usize>,
    /// When the next part is handed out; unset: now.
    due: Option<Instant>,
    /// How often in a row a dependency was unavailable.
    pub(super) outages: u32,
    /// Deliveries to be dead-lettered. All of them lie before those in `left`.
    letters: Vec<(u64, DeadRecord)>,
    /// Set when the policy is to stop.
    stop: Option<Error>,
}

/// The next step of a run.
#[derive(Debug)]
pub(crate) enum Next {
    /// Nothing: all of it is settled.
    Done,
    /// An attempt of its next part, at this time. Unset: now.
    Attempt(Option<Instant>),
    /// To store its dead letters.
    Letters(Vec<(u64, DeadRecord)>),
    /// To stop the consumer. Unsettled deliveries come again.
    Stop(Error),
}

/// The state of the first unsettled delivery of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunStatus {
    pub(crate) first: u64,
    pub(crate) attempt: u32,
    /// When the first attempt of the run began.
    pub(crate) begun: Instant,
    /// When its next attempt begins, if it waits for one.
    pub(crate) due: Option<Instant>,
}

impl RunStatus {
    pub(crate) fn of(run: &Run) -> Self {
        let front = run.left.front();
        Self {
            first: run.first().unwrap_or(0),
            attempt: front.map_or(1, |(_, delivery)| delivery.attempt()),
            begun: run.begun,
            due: run.due,
        }
    }
}

impl Run {
    pub(crate) fn new(begun: Instant, deliveries: impl Iterator<Item = (u64, Delivery)>) -> Self {
        Self {
            begun,
            left: deliveries.collect(),
            parts: Vec::new(),
            due: None,
            outages: 0,
            letters: Vec::new(),
            stop: None,
        }
    }

    /// Returns the first number that is not settled. It does not change while the run waits.
    pub(crate) fn first(&self) -> Option<u64> {
        let letter = self.letters.first().map(|(number, _)| *number);
        letter.or_else(|| self.left.front().map(|(number, _)| *number))
    }

    /// Returns all numbers that are not settled.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let letters = self.letters.iter().map(|(number, _)| *number);
        let left = self.left.iter().map(|(number, _)| *number);
        letters.chain(left).collect()
    }

    /// Returns when its next attempt is due, if it waits for one.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Returns the part that is handed out next.
    pub(crate) fn part(&self) -> impl Iterator<Item = &Delivery> {
        let length = self.parts.last().copied().unwrap_or(self.left.len());
        self.left.iter().take(length).map(|(_, delivery)| delivery)
    }

    /// Settles the next part after an attempt that succeeded. Returns its numbers.
    pub(crate) fn succeeded(&mut self) -> impl Iterator<Item = u64> {
        self.outages = 0;
        let part = self.take_part();
        self.settle(part)
    }

    /// Returns the next step. Called after each attempt, and when letters were stored.
    pub(crate) fn next(&mut self) -> Next {
        if let Some(error) = self.stop.take() {
            return Next::Stop(error);
        }
        let sends_letters = !self.letters.is_empty()
            && (self.left.is_empty() || self.due.is_some() || self.letters.len() >= MAX_LETTERS);
        if sends_letters {
            return Next::Letters(std::mem::take(&mut self.letters));
        }
        match self.left.is_empty() {
            true => Next::Done,
            false => Next::Attempt(self.due),
        }
    }

    /// Marks that its attempt begins.
    pub(crate) fn begin(&mut self) {
        self.due = None;
    }

    /// Takes the next part. [`put_back`](Self::put_back) returns what is left of it.
    pub(super) fn take_part(&mut self) -> usize {
        self.parts.pop().unwrap_or(self.left.len())
    }

    /// Puts back a part of which `length` deliveries are left.
    pub(super) fn put_back(&mut self, length: usize) {
        if length > 0 {
            self.parts.push(length);
        }
    }

    pub(super) fn settle(&mut self, count: usize) -> impl Iterator<Item = u64> {
        self.left.drain(..count).map(|(number, _)| number)
    }

    /// Sets when the next attempt is due.
    pub(super) fn wait_until(&mut self, due: Option<Instant>) {
        self.due = due;
    }

    pub(super) fn stop(&mut self, error: Error) {
        self.stop = Some(error);
    }

    /// Returns the first `count` deliveries.
    pub(super) fn front(&self, count: usize) -> impl Iterator<Item = &Delivery> {
        self.left.iter().take(count).map(|(_, delivery)| delivery)
    }

    /// Counts an attempt of the first `count` deliveries.
    pub(super) fn raise_attempts(&mut self, count: usize) {
        for (_, delivery) in self.left.iter_mut().take(count) {
            *delivery = delivery.next_attempt();
        }
    }

    /// Moves the first delivery to the dead letters.
    pub(super) fn dead_letter(&mut self, letter: DeadRecord) {
        if let Some((number, _)) = self.left.pop_front() {
            self.letters.push((number, letter));
        }
    }
}
