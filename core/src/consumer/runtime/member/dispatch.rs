//! Starting deliveries, and taking in how they ended.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::StreamExt;
use tokio::time::Instant;

use super::Member;
use crate::consumer::delivery::Ownership;
use crate::consumer::runtime::handler::{FutureSlot, Handler, HandlerError, Output};
use crate::consumer::runtime::retry_loop::{Entry, FirstPoll, Outcome};
use crate::{Delivery, Epoch, Error, ErrorKind};

/// Starts in a row before the session looks up: other partitions, events and tasks have their turn
/// too.
const BURST: usize = 1_000;

/// How long a step starts handlers and takes in their ends before it lets other tasks of the thread
/// run: tokio advises 10 to 100 us between yields, a look at the clock should not cost as much as a
/// handler.
const BURST_TIME: Duration = Duration::from_micros(500);

/// The most starts between two looks at the clock.
const MAX_STRIDE: u32 = 32;

/// Completions taken in a row.
const COMPLETED_BURST: usize = 256;

/// A delivery (or run of deliveries) that was not ready at once has ended.
pub(super) struct Completed<W: Handler> {
    ownership: Arc<Ownership>,
    /// What was not settled when it began.
    numbers: Vec<u64>,
    outcome: Outcome<W::Output>,
    slot: FutureSlot<W>,
}

/// Bounds a burst in time, and looks at the clock as seldom as what it measures allows.
struct BurstClock {
    start: Instant,
    counted: u32,
    look_at: u32,
    over: bool,
}

impl BurstClock {
    fn start() -> Self {
        Self {
            start: Instant::now(),
            counted: 0,
            look_at: 1,
            over: false,
        }
    }

    /// Counts a piece of work that was begun; what came before it is measured.
    fn count(&mut self) {
        if self.counted == self.look_at {
            let elapsed = self.start.elapsed();
            self.over = elapsed >= BURST_TIME;
            let each = (elapsed / self.counted).max(Duration::from_nanos(1));
            let left = BURST_TIME.saturating_sub(elapsed).as_nanos() / each.as_nanos();
            self.look_at += (left as u32).clamp(1, MAX_STRIDE);
        }
        self.counted += 1;
    }

    fn is_over(&self) -> bool {
        self.over
    }
}

impl<W: Handler> Member<W> {
    /// Queues an assignment to start what it can.
    pub(super) fn mark_runnable(&mut self, index: usize) {
        let assignment = &mut self.assignments[index];
        if !assignment.queued {
            assignment.queued = true;
            self.runnable.push_back(index);
        }
    }

    /// Starts what may start, as far as the concurrency allows.
    pub(super) fn dispatch(&mut self, cx: &mut Context<'_>) -> bool {
        let mut left = BURST;
        let mut clock = BurstClock::start();
        while left > 0 && self.may_dispatch() {
            let Some(index) = self.runnable.pop_front() else {
                break;
            };
            // It may have left since it was queued, and another one may have its place.
            let Some(assignment) = self.assignments.get_mut(index) else {
                continue;
            };
            if !std::mem::take(&mut assignment.queued) {
                continue;
            }
            let started = self.start_from(index, left, &mut clock, cx);
            // A visit counts although it starts nothing: no state of a window can hold the member
            // here.
            left = left.saturating_sub(started.max(1));
            if self.may_start_more(index) {
                self.mark_runnable(index);
            }
            if clock.is_over() {
                self.burst_over = true;
                break;
            }
        }
        left < BURST
    }

    /// Whether something may start now: permits come back not only when a delivery ends, but also
    /// when it begins to wait for its next attempt.
    pub(super) fn may_dispatch(&self) -> bool {
        !self.runnable.is_empty() && self.errors.permits.available_permits() > 0
    }

    /// A run that is under way keeps its partition from starting another. While there is no room for
    /// results each partition starts its first unsettled record at the most, and none whose results
    /// would only wait behind others of the partition.
    fn may_start_more(&self, index: usize) -> bool {
        let window = &self.assignments[index].window;
        match self.is_limited(index) {
            true => {
                window.has_first() || (window.has_next_at_watermark() && self.has_published(index))
            }
            false => {
                window.has_startable()
                    && (self.handler.max_batch().is_none() || window.running() == 0)
            }
        }
    }

    fn start_from(
        &mut self,
        index: usize,
        most: usize,
        clock: &mut BurstClock,
        cx: &mut Context<'_>,
    ) -> usize {
        let mut slot = self.slots.pop().unwrap_or_else(FutureSlot::new);
        let mut settled = 0;
        let mut started = 0;
        while started < most && !clock.is_over() && self.errors.permits.available_permits() > 0 {
            let limited = self.is_limited(index);
            let published = limited && self.has_published(index);
            let assignment = &mut self.assignments[index];
            let numbers = match self.handler.max_batch() {
                None if published && assignment.window.has_next_at_watermark() => {
                    assignment.window.start().map(|number| number..number + 1)
                }
                None if limited => assignment
                    .window
                    .start_first()
                    .map(|number| number..number + 1),
                None => assignment.window.start().map(|number| number..number + 1),
                Some(most) => assignment.window.start_run(most),
            };
            let Some(numbers) = numbers else { break };
            started += 1;
            clock.count();
            let deliveries = numbers.clone().map(|number| assignment.delivery(number));
            match slot.begin(&self.handler, deliveries, cx) {
                Poll::Ready(Ok(made)) => {
                    for number in numbers.clone() {
                        assignment.settle(number);
                        settled += 1;
                    }
                    self.buffer_output(index, numbers.end - 1, made.into_records());
                }
                Poll::Ready(Err(HandlerError::Abandoned)) => {
                    numbers.for_each(|number| assignment.window.abandon(number))
                }
                Poll::Ready(Err(HandlerError::Failed(failure))) => {
                    self.spawn_slow_path(index, numbers, slot, FirstPoll::Failed(failure));
                    slot = self.slots.pop().unwrap_or_else(FutureSlot::new);
                }
                Poll::Pending => {
                    let permit = self.errors.permits.clone().try_acquire_owned();
                    let permit = permit.expect("one was free, and only this task takes them");
                    self.spawn_slow_path(index, numbers, slot, FirstPoll::Pending(permit));
                    slot = self.slots.pop().unwrap_or_else(FutureSlot::new);
                }
            }
        }
        self.slots.push(slot);
        self.settled(index, settled);
        started
    }

    /// Sends deliveries down the slow path, until they are settled or their partition is lost.
    fn spawn_slow_path(
        &mut self,
        index: usize,
        numbers: Range<u64>,
        slot: FutureSlot<W>,
        first_poll: FirstPoll,
    ) {
        let assignment = &mut self.assignments[index];
        if !(failpoint!(OrderLostOnRetry) && matches!(first_poll, FirstPoll::Failed(_))) {
            numbers
                .clone()
                .for_each(|number| assignment.window.hold(number));
        }
        let deliveries: Vec<Delivery> = numbers
            .clone()
            .map(|number| assignment.delivery(number))
            .collect();
        let ownership = assignment.ownership.clone();
        let entry = Entry::First(numbers, deliveries, first_poll);
        self.drive(ownership, slot, entry);
    }

    fn drive(&mut self, ownership: Arc<Ownership>, mut slot: FutureSlot<W>, entry: Entry) {
        let (errors, handler) = (self.errors.clone(), self.handler.clone());
        self.running.push(Box::pin(async move {
            let numbers = entry.numbers();
            let drive = AssertUnwindSafe(errors.drive(&handler, &mut slot, entry)).catch_unwind();
            let outcome = tokio::select! {
                biased;
                () = ownership.lost.cancelled() => Outcome::Abandoned,
                outcome = drive => outcome.unwrap_or_else(|_| {
                    let message = "the code of a failure panicked";
                    let error = Error::new(ErrorKind::Handler, "handle", message);
                    Outcome::Stop(error.with_partition(&ownership.partition))
                }),
            };
            slot.clear();
            Completed {
                ownership,
                numbers,
                outcome,
                slot,
            }
        }));
        self.control
            .counters
            .in_flight
            .set(self.running.len() as u64);
    }

    pub(super) fn poll_completed(&mut self, cx: &mut Context<'_>) -> bool {
        let mut clock = BurstClock::start();
        for count in 0..COMPLETED_BURST {
            clock.count();
            if clock.is_over() {
                self.burst_over = true;
                break;
            }
            match self.running.poll_next_unpin(cx) {
                Poll::Ready(Some(done)) => self.on_completed(done),
                Poll::Ready(None) | Poll::Pending => return count > 0,
            }
        }
        true
    }

    fn on_completed(&mut self, done: Completed<W>) {
        let Completed {
            ownership,
            numbers,
            outcome,
            slot,
        } = done;
        self.control
            .counters
            .in_flight
            .set(self.running.len() as u64);
        let found = self.assignment_of(&ownership.partition, ownership.epoch);
        match outcome {
            Outcome::Settled(made) => {
                self.slots.push(slot);
                let Some(index) = found else { return };
                self.settle_all(index, &numbers);
                if let Some(last) = numbers.last() {
                    self.buffer_output(index, *last, made.into_records());
                }
                self.settled(index, numbers.len() as u64);
                self.mark_runnable(index);
            }
            Outcome::Progress(settled, rest) => {
                let Some(index) = found else {
                    self.slots.push(slot);
                    return;
                };
                self.settle_all(index, &settled);
                self.settled(index, settled.len() as u64);
                self.drive(ownership, slot, Entry::Again(rest));
            }
            Outcome::Abandoned | Outcome::Stop(_) => {
                self.slots.push(slot);
                if let Some(index) = found {
                    let window = &mut self.assignments[index].window;
                    numbers
                        .into_iter()
                        .for_each(|number| window.abandon(number));
                }
                if let Outcome::Stop(error) = outcome {
                    self.fail(error);
                }
            }
        }
    }

    fn settle_all(&mut self, index: usize, numbers: &[u64]) {
        for number in numbers {
            self.assignments[index].settle(*number);
        }
    }

    /// Takes in that deliveries of an assignment are settled.
    fn settled(&mut self, index: usize, settled: u64) {
        if settled == 0 {
            return;
        }
        self.control.counters.settled.add(settled);
        self.checkpointer
            .settled(&mut self.assignments[index], index, settled);
        self.resume_below_low_watermark(index);
    }

    /// Returns the assignment of an event or a result. An older epoch has none.
    pub(super) fn assignment_of(
        &self,
        partition: &crate::Partition,
        epoch: Epoch,
    ) -> Option<usize> {
        let (index, owned) = *self.index.get(partition)?;
        (owned == epoch).then_some(index)
    }
}
