//! The results of attempts, and the runs that wait for the next one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::StreamExt;
use tokio::time::Instant;

use super::Member;
use super::dispatch::BurstClock;
use super::in_flight::{Completed, FinishedWork, InFlight};
use crate::consumer::delivery::Ownership;
use crate::consumer::runtime::handler::{Handler, HandlerError, Output};
use crate::consumer::runtime::run::{Next, Run};
use crate::{BatchFailure, Error, ErrorKind, Partition, Result};

/// The most completions, or settlements, that are handled in a row.
pub(super) const COMPLETED_BURST: usize = 256;

/// The approximate memory of a run that waits for its retry or for its dead letter: itself, its delivery
/// and its entries in maps.
const WAITING_BYTES: usize = 512;

/// How many runs of a partition may always wait for their retry or for their dead letter.
const MIN_WAITING: usize = 8;

impl<W: Handler> Member<W> {
    pub(super) fn poll_completed(&mut self, cx: &mut Context<'_>) -> bool {
        if self.running.is_empty() {
            return false;
        }
        let mut clock = BurstClock::default();
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
            index,
            ownership,
            run,
            ended,
        } = done;
        let owned = self.owns(index, &ownership);
        match ended {
            FinishedWork::Attempt(future, result) => {
                self.attempts -= 1;
                self.return_future(future);
                if owned {
                    let result = result.unwrap_or(Err(HandlerError::Abandoned));
                    self.on_attempt(index, run, result);
                }
            }
            FinishedWork::Letters(numbers, stored) if owned => {
                self.assignments[index].storing_letters -= 1;
                self.on_letters(index, run, numbers, stored);
            }
            FinishedWork::Letters(..) => {}
        }
        if owned {
            self.mark_runnable(index);
        }
        self.count_in_flight();
    }

    /// Returns whether an index still belongs to the assignment of `ownership`.
    pub(super) fn owns(&self, index: usize, ownership: &Arc<Ownership>) -> bool {
        self.assignments
            .get(index)
            .is_some_and(|assignment| Arc::ptr_eq(&assignment.ownership, ownership))
    }

    /// Handles the result of an attempt, and continues with the run.
    pub(super) fn on_attempt(
        &mut self,
        index: usize,
        mut run: Run,
        result: Result<W::Output, HandlerError>,
    ) {
        match result {
            Ok(output) => {
                let assignment = &mut self.assignments[index];
                let records = output.into_records();
                let delivery = run.part().next().filter(|_| !records.is_empty());
                let origin = run.first().zip(delivery.cloned());
                let origin = origin.map(|(number, delivery)| assignment.origin(number, delivery));
                let mut settled = 0;
                for number in run.succeeded() {
                    assignment.settle(number);
                    settled += 1;
                }
                self.buffer_output(index, origin, records);
                self.settled(index, settled);
            }
            Err(HandlerError::Abandoned) => return self.abandon(index, run.numbers()),
            Err(HandlerError::Failed(failure)) => return self.on_failure(index, run, failure),
        }
        self.go_on(index, run);
    }

    /// Lets the failure policy decide what follows the failure of a run's next part, and does it.
    pub(super) fn on_failure(&mut self, index: usize, mut run: Run, failure: BatchFailure) {
        let numbers = run.numbers();
        let errors = &self.errors;
        // Errors are application code, like handlers.
        let decide = AssertUnwindSafe(|| errors.on_failure(&mut run, failure));
        let Ok(settled) = catch_unwind(decide) else {
            let message = "the code of a failure panicked";
            let error = Error::new(ErrorKind::Handler, "handle", message);
            return self.stop(index, numbers, error);
        };
        self.settle_all(index, &settled);
        self.go_on(index, run);
    }

    fn on_letters(
        &mut self,
        index: usize,
        run: Run,
        numbers: Vec<u64>,
        stored: Option<Result<Vec<u64>>>,
    ) {
        match stored {
            Some(Ok(stored)) => {
                self.settle_all(index, &stored);
                self.go_on(index, run);
            }
            lost => {
                let all = numbers.into_iter().chain(run.numbers()).collect();
                match lost {
                    Some(Err(error)) => self.stop(index, all, error),
                    _ => self.abandon(index, all),
                }
            }
        }
    }

    /// Continues with a run.
    pub(super) fn go_on(&mut self, index: usize, mut run: Run) {
        match run.next() {
            Next::Done => {}
            Next::Stop(error) => self.stop(index, run.numbers(), error),
            Next::Letters(letters) => {
                let assignment = &mut self.assignments[index];
                assignment.storing_letters += 1;
                let ownership = assignment.ownership.clone();
                let errors = self.errors.clone();
                self.running
                    .push(InFlight::letters(index, ownership, run, letters, errors));
                self.count_in_flight();
            }
            Next::Attempt(due) => self.wait_for_retry(index, due.unwrap_or(self.now), run),
        }
    }

    /// Keeps a run until its next attempt. A run whose attempt is due after the drain of its partition,
    /// or after the handler was closed, is abandoned at once.
    fn wait_for_retry(&mut self, index: usize, due: Instant, mut run: Run) {
        let assignment = &mut self.assignments[index];
        let Some(first) = run.first() else { return };
        let is_late = assignment.drain_by.is_some_and(|deadline| deadline <= due);
        if is_late || self.handler.is_closed() {
            return self.abandon(index, run.numbers());
        }
        run.wait_until(Some(due));
        assignment.waiting.insert(first, run);
        self.retries.insert(due, index, first);
        self.count_in_flight();
    }

    /// Abandons the runs of a partition whose retry is due after its drain.
    pub(super) fn abandon_late_retries(&mut self, index: usize) {
        let assignment = &mut self.assignments[index];
        let Some(deadline) = assignment.drain_by else {
            return;
        };
        let late = |(_, run): &(&u64, &Run)| run.due().is_some_and(|due| due >= deadline);
        let late: Vec<u64> = assignment
            .waiting
            .iter()
            .filter(late)
            .map(|(first, _)| *first)
            .collect();
        for first in late {
            if let Some(run) = self.take_waiting(index, first) {
                self.abandon(index, run.numbers());
            }
        }
    }

    /// Abandons all runs of a partition that wait for their retry.
    pub(super) fn abandon_retries(&mut self, index: usize) {
        while let Some((first, _)) = self.assignments[index].waiting.first_key_value() {
            let first = *first;
            if let Some(run) = self.take_waiting(index, first) {
                self.abandon(index, run.numbers());
            }
        }
    }

    fn take_waiting(&mut self, index: usize, first: u64) -> Option<Run> {
        let run = self.assignments[index].waiting.remove(&first)?;
        if let Some(due) = run.due() {
            self.retries.remove(due, index, first);
        }
        Some(run)
    }

    /// Returns whether the runs of a partition that wait for their retry or for their dead letter fill its
    /// share of the buffer. It then starts no more records.
    pub(super) fn has_too_many_waiting(&self, index: usize) -> bool {
        let assignment = &self.assignments[index];
        let waiting = assignment.waiting.len() + assignment.storing_letters;
        waiting >= MIN_WAITING && waiting * WAITING_BYTES >= self.budget.share()
    }

    fn stop(&mut self, index: usize, numbers: Vec<u64>, error: Error) {
        let error = match error.partition() {
            Some(_) => error,
            None => error.with_partition(self.assignments[index].partition()),
        };
        self.abandon(index, numbers);
        self.fail(error);
    }

    /// Abandons started records: they stay unsettled and are delivered again.
    pub(super) fn abandon(&mut self, index: usize, numbers: Vec<u64>) {
        let assignment = &mut self.assignments[index];
        numbers
            .into_iter()
            .for_each(|number| assignment.abandon(number));
        self.check_release(index);
    }

    fn settle_all(&mut self, index: usize, numbers: &[u64]) {
        let mut settled = 0;
        for number in numbers {
            let assignment = &mut self.assignments[index];
            match &assignment.refused {
                Some(refused) if refused.is(*number) => self.settle_refused(index),
                _ => {
                    assignment.settle(*number);
                    settled += 1;
                }
            }
        }
        self.settled(index, settled);
    }

    /// Updates what depends on the settled records of an assignment.
    pub(super) fn settled(&mut self, index: usize, settled: u64) {
        if settled == 0 {
            return;
        }
        self.control.counters.settled.add(settled);
        let assignment = &mut self.assignments[index];
        if W::PUBLISHES {
            // The failure policy may have settled records for which output waited.
            let watermark = assignment.window.watermark();
            assignment.outputs_mut().advance(watermark);
        }
        assignment.return_memory(&mut self.record_memory);
        self.checkpointer.settled(assignment, index, settled);
        self.resume_below_low_watermark(index);
        self.check_release(index);
    }

    /// Returns how many attempts, and dead letters of runs, are in flight.
    pub(super) fn under_way(&self) -> usize {
        self.running.len() + self.outstanding()
    }

    /// Returns how many runs there are.
    pub(super) fn in_flight(&self) -> usize {
        self.under_way() + self.retries.len()
    }

    pub(super) fn count_in_flight(&self) {
        self.control.counters.in_flight.set(self.in_flight() as u64);
    }

    /// Returns the assignment of an event or a result. There is none for an older epoch.
    pub(super) fn assignment_of(
        &self,
        partition: &Partition,
        epoch: crate::Epoch,
    ) -> Option<usize> {
        let (index, owned) = *self.index.get(partition)?;
        (owned == epoch).then_some(index)
    }
}
