//! Slow path: drives deliveries whose handler did not finish on its first poll through waiting,
//! retries and the final action.
//!
//! It allocates, and it runs beside the hot path as one future per delivery (or run of deliveries).
//!
//! What is settled is reported at once, by ending the future with [`Outcome::Progress`] and what is
//! left; so a delivery that waits for its next attempt holds back nothing that is done.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use futures_util::future::try_join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::counters::Counters;
use super::dead_letter_sink::{DeadLetterSink, DeadRecord};
use super::handler::{FutureSlot, Handler, HandlerError};
use crate::BatchFailure;
use crate::telemetry::event;
use crate::{DeadLetter, Delivery, Error, ErrorKind, Failure, FailureKind, OnExhausted, Retry};

/// Dead letters that a run gathers before it sends them.
const MOST_LETTERS: usize = 1_000;

/// What all deliveries of a member have in common when they fail.
#[derive(Debug)]
pub(crate) struct ErrorHandler {
    pub(crate) group: Arc<str>,
    pub(crate) retry: Retry,
    pub(crate) handler_timeout: Option<Duration>,
    pub(crate) dead_letters: Option<Arc<dyn DeadLetterSink>>,
    pub(crate) counters: Arc<Counters>,
    /// One permit for each attempt under way that is not ready at once. A delivery that waits for
    /// its next attempt holds none.
    pub(crate) permits: Arc<Semaphore>,
}

/// How far the first attempt came.
pub(crate) enum FirstPoll {
    /// It is pending, and holds a permit.
    Pending(OwnedSemaphorePermit),
    /// It has failed.
    Failed(BatchFailure),
}

/// How a future of the slow path ended.
pub(crate) enum Outcome<M> {
    /// All that was left is settled, with what was made of it.
    Settled(M),
    /// These numbers are settled, and the rest goes on.
    Progress(Vec<u64>, RetryState),
    /// The consumer was closed, or the partition leaves; the records are delivered again.
    Abandoned,
    /// The policy says to stop; the deliveries come again.
    Stop(Error),
}

/// What the slow path begins with.
pub(crate) enum Entry {
    /// The first attempt of deliveries with these numbers.
    First(Range<u64>, Vec<Delivery>, FirstPoll),
    /// What [`Outcome::Progress`] left.
    Again(RetryState),
}

impl Entry {
    /// The numbers that are not settled.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        match self {
            Self::First(numbers, ..) => numbers.clone().collect(),
            Self::Again(state) => {
                let letters = state.letters.iter().map(|(number, _)| *number);
                let left = state.left.iter().map(|(number, _)| *number);
                letters.chain(left).collect()
            }
        }
    }
}

/// A run of deliveries after its first failure.
pub(crate) struct RetryState {
    /// What is neither settled nor given up, in order.
    left: VecDeque<(u64, Delivery)>,
    /// The lengths of the parts that are handed out one after the other, the next one last.
    parts: Vec<usize>,
    /// When the next part is handed out; unset: now.
    due: Option<Instant>,
    /// How often in a row a dependency was unavailable.
    outages: u32,
    /// What has failed for good and is to be dead-lettered.
    letters: Vec<(u64, DeadRecord)>,
    /// Set when the policy says to stop: what was settled before is reported first.
    stop: Option<Error>,
}

impl RetryState {
    fn new(numbers: Range<u64>, deliveries: Vec<Delivery>) -> Self {
        Self {
            parts: vec![deliveries.len()],
            left: numbers.zip(deliveries).collect(),
            due: None,
            outages: 0,
            letters: Vec::new(),
            stop: None,
        }
    }

    /// The part that is handed out next.
    fn part(&self) -> impl Iterator<Item = &Delivery> {
        let length = self.parts.last().copied().unwrap_or(0);
        self.left.iter().take(length).map(|(_, delivery)| delivery)
    }

    /// Puts back a part of which `length` deliveries are left.
    fn put_back(&mut self, length: usize) {
        if length > 0 {
            self.parts.push(length);
        }
    }

    fn take(&mut self, count: usize) -> impl Iterator<Item = u64> {
        self.left.drain(..count).map(|(number, _)| number)
    }

    /// Counts an attempt of the next `count` deliveries.
    fn raise_attempts(&mut self, count: usize) {
        for (_, delivery) in self.left.iter_mut().take(count) {
            *delivery = delivery.next_attempt();
        }
    }

    /// Whether the letters are sent before anything else is done.
    fn sends_letters(&self) -> bool {
        !self.letters.is_empty()
            && (self.left.is_empty() || self.due.is_some() || self.letters.len() >= MOST_LETTERS)
    }
}

impl ErrorHandler {
    /// Carries deliveries through until some of them are settled, for as long as their partition is
    /// owned.
    pub(crate) async fn drive<W: Handler>(
        &self,
        handler: &Arc<W>,
        slot: &mut FutureSlot<W>,
        entry: Entry,
    ) -> Outcome<W::Output> {
        let (mut state, mut first) = match entry {
            Entry::Again(state) => (state, None),
            Entry::First(numbers, deliveries, first_poll) => {
                let answer = match first_poll {
                    FirstPoll::Pending(_permit) => {
                        self.limited(slot.finish(), deliveries.iter()).await
                    }
                    FirstPoll::Failed(failure) => Err(HandlerError::Failed(failure)),
                };
                match answer {
                    Ok(made) => return Outcome::Settled(made),
                    Err(HandlerError::Abandoned) => return Outcome::Abandoned,
                    Err(HandlerError::Failed(failure)) => {
                        (RetryState::new(numbers, deliveries), Some(failure))
                    }
                }
            }
        };
        loop {
            slot.clear();
            if let Some(error) = state.stop.take() {
                return Outcome::Stop(error);
            }
            if state.sends_letters() {
                let settled = match self.send_letters(std::mem::take(&mut state.letters)).await {
                    Ok(settled) => settled,
                    Err(error) => return Outcome::Stop(error),
                };
                return match state.left.is_empty() {
                    true => Outcome::Settled(W::Output::default()),
                    false => Outcome::Progress(settled, state),
                };
            }
            let answer = match first.take() {
                Some(failure) => Err(HandlerError::Failed(failure)),
                None => match self.attempt(handler, slot, &mut state).await {
                    Some(answer) => answer,
                    None => return Outcome::Abandoned,
                },
            };
            let settled: Vec<u64> = match answer {
                Ok(made) => {
                    state.outages = 0;
                    let part = state.parts.pop().unwrap_or(0);
                    if part == state.left.len() && state.letters.is_empty() {
                        return Outcome::Settled(made);
                    }
                    state.take(part).collect()
                }
                Err(HandlerError::Abandoned) => return Outcome::Abandoned,
                Err(HandlerError::Failed(failure)) => {
                    let settled = self.on_failure(&mut state, failure);
                    if state.left.is_empty() && state.letters.is_empty() {
                        return Outcome::Settled(W::Output::default());
                    }
                    settled
                }
            };
            if !settled.is_empty() {
                return Outcome::Progress(settled, state);
            }
        }
    }

    /// Hands out the next part when it is due. `None` if its partition leaves before that.
    async fn attempt<W: Handler>(
        &self,
        handler: &Arc<W>,
        slot: &mut FutureSlot<W>,
        state: &mut RetryState,
    ) -> Option<Result<W::Output, HandlerError>> {
        if let Some(due) = state.due.take() {
            let ownership = state.left.front()?.1.ownership().clone();
            if !ownership.sleep_until(due).await {
                return None;
            }
        }
        let _permit = self
            .permits
            .clone()
            .acquire_owned()
            .await
            .expect("the permits are never closed");
        let deliveries: Vec<Delivery> = state.part().cloned().collect();
        let attempt = slot.attempt(handler, deliveries.into_iter());
        Some(self.limited(attempt, state.part()).await)
    }

    /// Ends an attempt that takes too long. Its deliveries report that they are lost, to what the
    /// handler has started elsewhere; the handler itself is dropped with its slot's next use.
    async fn limited<'a, M>(
        &self,
        attempt: impl Future<Output = Result<M, HandlerError>>,
        deliveries: impl Iterator<Item = &'a Delivery>,
    ) -> Result<M, HandlerError> {
        let Some(limit) = self.handler_timeout else {
            return attempt.await;
        };
        match timeout(limit, attempt).await {
            Ok(answer) => answer,
            Err(_) => {
                deliveries.for_each(Delivery::expire);
                let failure = BatchFailure::whole(Failure::timeout(limit));
                Err(HandlerError::Failed(failure))
            }
        }
    }

    /// Decides what comes after the failure of the next part, and returns what is settled by it.
    fn on_failure(&self, state: &mut RetryState, failure: BatchFailure) -> Vec<u64> {
        let (index, failure) = failure.into_parts();
        self.counters.failures.add(1);
        let is_panic = failure.kind() == FailureKind::Panic;
        self.counters.panicked.add(u64::from(is_panic));
        let part = state.parts.pop().unwrap_or(0);
        let before = index.map_or(0, |index| index.min(part.saturating_sub(1)));
        let mut settled: Vec<u64> = state.take(before).collect();
        let part = part - before;
        let failed = if index.is_some() { 1 } else { part };
        let attempts = state.left.iter().take(failed);
        let attempt = attempts.map(|(_, delivery)| delivery.attempt()).max();
        let attempt = attempt.unwrap_or(1);
        match self.next_attempt(state, &failure, attempt) {
            Some(delay) => {
                self.log_retry(state, &failure, attempt, delay);
                if failure.kind() != FailureKind::Unavailable {
                    state.raise_attempts(failed);
                }
                state.due = Some(Instant::now() + delay);
                state.put_back(part);
            }
            // One of them is bad, and the others must not pay for it.
            None if failed > 1 => {
                state.raise_attempts(failed);
                state.put_back(part - part / 2);
                state.put_back(part / 2);
            }
            None => {
                state.put_back(part - 1);
                let Some((number, delivery)) = state.left.front().cloned() else {
                    return settled;
                };
                match self.give_up(delivery, failure) {
                    Ok(None) => settled.extend(state.take(1)),
                    Ok(Some(letter)) => {
                        state.left.pop_front();
                        state.letters.push((number, letter));
                    }
                    Err(error) => state.stop = Some(error),
                }
            }
        }
        settled
    }

    /// The delay before the next attempt, if there is one.
    fn next_attempt(
        &self,
        state: &mut RetryState,
        failure: &Failure,
        attempt: u32,
    ) -> Option<Duration> {
        let seed = seed(&state.left.front()?.1);
        let is_outage = failure.kind() == FailureKind::Unavailable;
        state.outages = if is_outage {
            state.outages.saturating_add(1)
        } else {
            0
        };
        match failure.kind() {
            FailureKind::Permanent => return None,
            FailureKind::Unavailable => return Some(Retry::outage_delay(state.outages, seed)),
            _ => {}
        }
        let allows = AssertUnwindSafe(|| self.retry.allows(failure.reason()));
        if attempt >= self.retry.limit() || !catch_unwind(allows).unwrap_or(true) {
            return None;
        }
        match failure.kind() {
            FailureKind::RetryAfter(delay) => Some(delay),
            _ => Some(self.retry.delay(attempt, seed)),
        }
    }

    fn log_retry(&self, state: &RetryState, failure: &Failure, attempt: u32, delay: Duration) {
        let Some((_, delivery)) = state.left.front() else {
            return;
        };
        self.counters.retried.add(1);
        if state.outages == 1 {
            event!(
                warn, "millstream.consumer.unavailable", group = %self.group,
                partition = %delivery.partition(), position = %delivery.position(), ?delay,
                reason = %failure,
                "a dependency of the handler is unavailable, trying again until it is back"
            );
        } else {
            event!(
                debug, "millstream.consumer.retried", group = %self.group,
                partition = %delivery.partition(), position = %delivery.position(), attempt,
                ?delay, kind = failure.kind().as_str(), reason = %failure,
                "attempt failed, trying again"
            );
        }
    }

    /// Applies the policy's final action to a delivery. Returns it if it is to be dead-lettered.
    fn give_up(&self, delivery: Delivery, failure: Failure) -> Result<Option<DeadRecord>, Error> {
        match self.retry.exhausted() {
            OnExhausted::Stop => {
                let (position, attempts) = (delivery.position(), delivery.attempt());
                let times = if attempts == 1 { "attempt" } else { "attempts" };
                let message = match failure.kind() {
                    FailureKind::Permanent => {
                        format!("position {position} failed permanently at attempt {attempts}")
                    }
                    _ => format!("position {position} failed after {attempts} {times}"),
                };
                Err(Error::new(ErrorKind::Handler, "handle", message)
                    .with_partition(delivery.partition())
                    .with_group(self.group.clone())
                    .with_shared_source(failure.into_reason()))
            }
            OnExhausted::Skip => {
                self.counters.skipped.add(1);
                event!(
                    warn, "millstream.consumer.skipped", group = %self.group,
                    partition = %delivery.partition(), position = %delivery.position(),
                    attempts = delivery.attempt(), reason = %failure,
                    "record skipped by the failure policy"
                );
                Ok(None)
            }
            OnExhausted::DeadLetter(_) => Ok(Some(DeadRecord {
                group: self.group.clone(),
                delivery,
                failure,
            })),
        }
    }

    /// Stores dead letters: those of one key in order, those of different keys side by side. What can
    /// never be stored stops the consumer: the record stays unsettled.
    async fn send_letters(&self, letters: Vec<(u64, DeadRecord)>) -> Result<Vec<u64>, Error> {
        // In the order of the hashes, so that a replay sends in the same order.
        let mut queues: BTreeMap<(bool, u64), Vec<(u64, DeadRecord)>> = BTreeMap::new();
        for (number, letter) in letters {
            let queue = match letter.delivery.key() {
                Some(key) => (true, FixedState::default().hash_one(&**key)),
                None => (false, number),
            };
            queues.entry(queue).or_default().push((number, letter));
        }
        let settled = try_join_all(queues.into_values().map(|queue| self.send_in_order(queue)));
        Ok(settled.await?.concat())
    }

    async fn send_in_order(&self, queue: Vec<(u64, DeadRecord)>) -> Result<Vec<u64>, Error> {
        let (sink, OnExhausted::DeadLetter(DeadLetter { stream })) =
            (&self.dead_letters, self.retry.exhausted())
        else {
            return Ok(Vec::new());
        };
        let sink = sink
            .as_ref()
            .expect("it is opened at the join when the policy needs it");
        let mut settled = Vec::with_capacity(queue.len());
        for (number, letter) in queue {
            let delivery = &letter.delivery;
            let changed = sink.store(&letter).await.map_err(|error| {
                let message = format!("position {} cannot be dead-lettered", delivery.position());
                Error::new(error.kind(), "dead-letter", message)
                    .with_partition(delivery.partition())
                    .with_group(self.group.clone())
                    .with_source(error)
            })?;
            if let Some(changed) = changed {
                self.counters.dead_letters_changed.add(1);
                event!(
                    warn, "millstream.consumer.dead_letter_changed", group = %self.group,
                    partition = %delivery.partition(), position = %delivery.position(),
                    dead_letters = %stream, %changed,
                    "the dead letter stream does not take the record as it is"
                );
            }
            self.counters.dead_lettered.add(1);
            event!(
                warn, "millstream.consumer.dead_lettered", group = %self.group,
                partition = %delivery.partition(), position = %delivery.position(),
                attempts = delivery.attempt(), dead_letters = %stream, reason = %letter.failure,
                "record dead-lettered"
            );
            settled.push(number);
        }
        Ok(settled)
    }
}

/// Spreads the retries of different records, and gives the same delays in a replay.
fn seed(delivery: &Delivery) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(delivery.partition().id().as_bytes());
    delivery.position().hash(&mut hasher);
    hasher.finish()
}
