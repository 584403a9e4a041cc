//! Decides what follows a failed attempt, and stores dead letters.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::counters::Counters;
use super::dead_letter_sink::{DeadLetterSink, DeadRecord};
use super::run::Run;
use crate::BatchFailure;
use crate::telemetry::event;
use crate::{DeadLetter, Delivery, Error, ErrorKind, Failure, FailureKind, OnExhausted, Retry};

/// The failure policy of a member.
#[derive(Debug)]
pub(crate) struct ErrorHandler {
    pub(crate) group: Arc<str>,
    pub(crate) retry: Retry,
    pub(crate) dead_letters: Option<Arc<dyn DeadLetterSink>>,
    pub(crate) counters: Arc<Counters>,
}

impl ErrorHandler {
    /// Decides what follows the failure of the next part. Returns the numbers that this settles.
    ///
    /// It calls application code, whose panics the caller must catch.
    pub(crate) fn on_failure(&self, run: &mut Run, failure: BatchFailure) -> Vec<u64> {
        let (index, failure) = failure.into_parts();
        self.counters.failures.add(1);
        let is_panic = failure.kind() == FailureKind::Panic;
        self.counters.panicked.add(u64::from(is_panic));
        let part = run.take_part();
        let before = index.map_or(0, |index| index.min(part.saturating_sub(1)));
        let mut settled: Vec<u64> = run.settle(before).collect();
        let part = part - before;
        let failed = if index.is_some() { 1 } else { part };
        let attempts = run.front(failed).map(Delivery::attempt);
        let attempt = attempts.max().unwrap_or(1);
        match self.next_attempt(run, &failure, attempt) {
            Some(delay) => {
                self.log_retry(run, &failure, attempt, delay);
                if failure.kind() != FailureKind::Unavailable {
                    run.raise_attempts(failed);
                }
                // A timer has a resolution of one millisecond, and a zero delay must take no time.
                let due = (!delay.is_zero()).then(|| Instant::now() + delay);
                run.wait_until(due);
                run.put_back(part);
            }
            // Bisects the batch down to the records that fail on their own.
            None if failed > 1 => {
                run.raise_attempts(failed);
                run.put_back(part - part / 2);
                run.put_back(part / 2);
            }
            None => {
                run.put_back(part - 1);
                let Some(delivery) = run.front(1).next().cloned() else {
                    return settled;
                };
                match self.apply_final_action(delivery, failure) {
                    Ok(None) => settled.extend(run.settle(1)),
                    Ok(Some(letter)) => run.dead_letter(letter),
                    Err(error) => run.stop(error),
                }
            }
        }
        settled
    }

    /// Returns the delay before the next attempt, if there is one.
    fn next_attempt(&self, run: &mut Run, failure: &Failure, attempt: u32) -> Option<Duration> {
        let seed = seed(run.front(1).next()?);
        let is_outage = failure.kind() == FailureKind::Unavailable;
        let outages = run.count_outage(is_outage);
        match failure.kind() {
            FailureKind::Permanent => return None,
            FailureKind::Unavailable => return Some(Retry::outage_delay(outages, seed)),
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

    fn log_retry(&self, run: &Run, failure: &Failure, attempt: u32, delay: Duration) {
        let Some(delivery) = run.front(1).next() else {
            return;
        };
        self.counters.retried.add(1);
        if run.outages() == 1 {
            event!(
                warn, "millstream.consumer.unavailable", group = %self.group,
                partition = %delivery.partition(), position = %delivery.position(), ?delay,
                reason = %failure,
                "a dependency of the handler is unavailable, retrying until it is back"
            );
        } else {
            event!(
                debug, "millstream.consumer.retried", group = %self.group,
                partition = %delivery.partition(), position = %delivery.position(), attempt,
                ?delay, kind = failure.kind().as_str(), reason = %failure,
                "attempt failed, will be retried"
            );
        }
    }

    /// Applies the policy's final action to a delivery. Returns the dead letter, if it must be sent.
    fn apply_final_action(
        &self,
        delivery: Delivery,
        failure: Failure,
    ) -> Result<Option<DeadRecord>, Error> {
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

    /// Stores dead letters, those of one key in order and those of different keys concurrently. A
    /// letter that can never be stored stops the consumer, and its record stays unsettled.
    pub(crate) async fn send_letters(
        &self,
        letters: Vec<(u64, DeadRecord)>,
    ) -> Result<Vec<u64>, Error> {
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
                    "the dead letter stream does not accept the record as it is"
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

/// Returns the seed of a record's jitter, which is the same in a replay.
fn seed(delivery: &Delivery) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(delivery.partition().id().as_bytes());
    delivery.position().hash(&mut hasher);
    hasher.finish()
}
