//! Starts attempts: of deliveries that were not handed out yet, and of those whose retry is due.

use std::ops::Range;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::Member;
use super::in_flight::InFlight;
use crate::consumer::runtime::handler::{AttemptId, Handler, HandlerError, Output, ReusableFuture};
use crate::consumer::runtime::run::Run;

/// The most starts of one step, so that events and other tasks have their turn.
const BURST: usize = 1_000;

/// How long a step starts handlers, or handles their results, before other tasks of the thread may
/// run. tokio advises 10 to 100 us between yields, but reading the clock must not cost as much as a
/// handler.
const BURST_TIME: Duration = Duration::from_micros(500);

/// The most starts between two readings of the clock.
const MAX_STRIDE: u32 = 32;

/// Bounds a burst in time, from its first piece of work on, and reads the clock as rarely as the
/// measured times allow.
#[derive(Default)]
pub(super) struct BurstClock {
    start: Option<Instant>,
    counted: u32,
    look_at: u32,
    over: bool,
}

impl BurstClock {
    /// Counts a piece of work that begins. The time of the previous ones is measured.
    pub(super) fn count(&mut self) {
        if self.counted == self.look_at {
            self.look();
        }
        self.counted += 1;
    }

    fn look(&mut self) {
        let now = Instant::now();
        let Some(start) = self.start else {
            self.start = Some(now);
            self.look_at = 1;
            return;
        };
        let elapsed = now - start;
        self.over = elapsed >= BURST_TIME;
        let each = (elapsed / self.counted).max(Duration::from_nanos(1));
        let left = BURST_TIME.saturating_sub(elapsed).as_nanos() / each.as_nanos();
        self.look_at += (left as u32).clamp(1, MAX_STRIDE);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }
}

impl<W: Handler> Member<W> {
    /// Queues an assignment to start everything that it can.
    pub(super) fn mark_runnable(&mut self, index: usize) {
        let assignment = &mut self.assignments[index];
        if !assignment.queued {
            assignment.queued = true;
            self.runnable.push_back(index);
        }
    }

    /// Starts records as far as the concurrency allows. Retries that are due come first.
    pub(super) fn dispatch(&mut self, cx: &mut Context<'_>) -> bool {
        let mut left = BURST;
        let mut clock = BurstClock::default();
        let mut happened = self.start_retries(&mut clock, cx);
        while left > 0 && !clock.is_over() && self.has_free_attempt() {
            let Some(index) = self.runnable.pop_front() else {
                break;
            };
            happened = true;
            // The assignment may have left since it was queued, and another one may have its index.
            let Some(assignment) = self.assignments.get_mut(index) else {
                continue;
            };
            if !std::mem::take(&mut assignment.queued) {
                continue;
            }
            let started = self.start_from(index, left, &mut clock, cx);
            // A visit that starts nothing counts too, so the loop always ends.
            left = left.saturating_sub(started.max(1));
            if self.may_start_more(index) {
                self.mark_runnable(index);
            }
        }
        self.burst_over |= clock.is_over();
        happened
    }

    /// Returns whether a record may start now.
    pub(super) fn may_dispatch(&self) -> bool {
        self.has_free_attempt() && (!self.runnable.is_empty() || self.retries.is_due(self.now))
    }

    /// Returns whether one more attempt that is not ready at once may be in flight.
    fn has_free_attempt(&self) -> bool {
        self.attempts < self.options.concurrency
    }

    /// Returns whether a partition may start one more record or batch. A batch in flight keeps its
    /// partition from starting another. While there is no room for output, a partition starts only its
    /// first unsettled record, and only if its output can be published next.
    fn may_start_more(&self, index: usize) -> bool {
        let assignment = &self.assignments[index];
        let window = &assignment.window;
        if self.has_too_many_waiting(index) {
            return false;
        }
        if self.handler.batch().is_some() {
            return window.has_startable()
                && window.running() == 0
                && assignment.batch_due.is_none();
        }
        match self.is_limited(index) {
            true if self.waits_to_publish(index) => false,
            true => {
                window.has_first() || (window.has_next_at_watermark() && self.has_published(index))
            }
            false => window.has_startable(),
        }
    }

    fn start_retries(&mut self, clock: &mut BurstClock, cx: &mut Context<'_>) -> bool {
        let mut happened = false;
        while self.has_free_attempt() && !clock.is_over() {
            let Some((index, first)) = self.retries.pop_due(self.now) else {
                break;
            };
            happened = true;
            clock.count();
            let Some(mut run) = self.assignments[index].waiting.remove(&first) else {
                continue;
            };
            run.begin();
            let attempt = self.next_attempt(index, first);
            let mut future = self.take_spare_future();
            match future.begin(&self.handler, attempt, run.part().cloned(), cx) {
                Poll::Ready(result) => {
                    self.return_future(future);
                    self.on_attempt(index, run, result);
                }
                Poll::Pending => self.wait_for_attempt(attempt, run, future),
            }
            self.mark_runnable(index);
        }
        if happened {
            self.count_in_flight();
        }
        happened
    }

    fn start_from(
        &mut self,
        index: usize,
        most: usize,
        clock: &mut BurstClock,
        cx: &mut Context<'_>,
    ) -> usize {
        let mut future = self.take_spare_future();
        let mut settled = 0;
        let mut started = 0;
        while started < most
            && !clock.is_over()
            && self.has_free_attempt()
            && !self.has_too_many_waiting(index)
        {
            let Some(numbers) = self.next_numbers(index) else {
                break;
            };
            started += 1;
            clock.count();
            let attempt = self.next_attempt(index, numbers.start);
            let assignment = &mut self.assignments[index];
            let deliveries = numbers.clone().map(|number| assignment.delivery(number));
            match future.begin(&self.handler, attempt, deliveries, cx) {
                Poll::Ready(Ok(output)) => {
                    let records = output.into_records();
                    let origin = !records.is_empty();
                    let origin = origin.then(|| {
                        let number = numbers.start;
                        assignment.origin(number, assignment.delivery(number))
                    });
                    for number in numbers {
                        assignment.settle(number);
                        settled += 1;
                    }
                    self.buffer_output(index, origin, records);
                }
                Poll::Ready(Err(HandlerError::Abandoned)) => {
                    numbers.for_each(|number| assignment.abandon(number));
                    self.check_release(index);
                }
                Poll::Ready(Err(HandlerError::Failed(failure))) => {
                    let holds = !failpoint!(OrderLostOnRetry);
                    let run = self.begin_run(index, numbers, holds);
                    self.on_attempt(index, run, Err(HandlerError::Failed(failure)));
                }
                Poll::Pending => {
                    let run = self.begin_run(index, numbers, true);
                    self.wait_for_attempt(attempt, run, future);
                    future = self.take_spare_future();
                }
            }
        }
        self.return_future(future);
        self.settled(index, settled);
        started
    }

    /// Takes the numbers to hand out next, as long as the partition has records that may start.
    fn next_numbers(&mut self, index: usize) -> Option<Range<u64>> {
        if let Some(batch) = self.handler.batch() {
            return self.next_batch(index, batch);
        }
        let limited = self.is_limited(index);
        if limited && self.waits_to_publish(index) {
            return None;
        }
        let published = limited && self.has_published(index);
        let window = &mut self.assignments[index].window;
        let number = match limited {
            true if published && window.has_next_at_watermark() => window.start(),
            true => window.start_first(),
            false => window.start(),
        };
        number.map(|number| number..number + 1)
    }

    /// Takes the next batch, if it is full or has waited for long enough.
    fn next_batch(&mut self, index: usize, batch: crate::Batch) -> Option<Range<u64>> {
        let assignment = &mut self.assignments[index];
        let before = assignment.batch_due;
        let numbers = assignment.next_batch(batch, self.now);
        let after = assignment.batch_due;
        if before != after {
            if let Some(due) = before {
                self.batches_due.remove(&(due, index));
            }
            if let Some(due) = after {
                self.batches_due.insert((due, index));
            }
        }
        numbers
    }

    /// Queues the partitions whose incomplete batch is due.
    pub(super) fn start_due_batches(&mut self) -> bool {
        let mut happened = false;
        while let Some((due, index)) = self.batches_due.first().copied() {
            if due > self.now {
                break;
            }
            self.batches_due.pop_first();
            self.assignments[index].batch_due = None;
            self.mark_runnable(index);
            happened = true;
        }
        happened
    }

    /// Creates the run of started records. Their keys are busy until it ends.
    fn begin_run(&mut self, index: usize, numbers: Range<u64>, holds: bool) -> Run {
        let assignment = &mut self.assignments[index];
        let hold = numbers.clone().filter(|_| holds);
        hold.for_each(|number| assignment.window.hold(number));
        let delivery = |number| (number, assignment.delivery(number));
        Run::new(self.now, numbers.map(delivery))
    }

    fn next_attempt(&mut self, index: usize, number: u64) -> AttemptId {
        self.last_serial += 1;
        AttemptId {
            index,
            number,
            place: match W::SETTLED_OUTSIDE {
                true => self.assignments[index].outstanding.vacant_key(),
                false => 0,
            },
            serial: self.last_serial,
        }
    }

    fn wait_for_attempt(&mut self, attempt: AttemptId, run: Run, future: ReusableFuture<W>) {
        self.attempts += 1;
        if W::SETTLED_OUTSIDE {
            self.return_future(future);
            self.wait_for_settlement(attempt, run);
        } else {
            let index = attempt.index;
            let ownership = self.assignments[index].ownership.clone();
            let limit = self.options.handler_timeout;
            self.running
                .push(InFlight::attempt(index, ownership, run, future, limit));
        }
        self.count_in_flight();
    }

    fn take_spare_future(&mut self) -> ReusableFuture<W> {
        self.spare_futures.pop().unwrap_or_else(ReusableFuture::new)
    }

    /// Keeps the memory of an attempt for the next one: one for each attempt that may be in flight, and one to
    /// start the next.
    pub(super) fn return_future(&mut self, future: ReusableFuture<W>) {
        if self.spare_futures.len() <= self.options.concurrency {
            self.spare_futures.push(future);
        }
    }
}
