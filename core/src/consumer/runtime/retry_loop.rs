//! The way of a delivery that was not settled at once: pending, failed, tried again, and at last
//! given up.
//!
//! This is the slow path: it allocates, and it runs beside the hot path as one future per delivery
//! (or run of deliveries).

use std::error::Error as StdError;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::counters::Counters;
use super::handler::{FutureSlot, Handler, HandlerError};
use crate::BatchFailure;
use crate::telemetry::event;
use crate::{DeadLetter, Delivery, Error, ErrorKind, OnExhausted, Producer, Record, Retry};

/// Between two tries to send a dead letter, each of which the producer has already retried for its
/// own time-out.
const DEAD_LETTER_PAUSE: Duration = Duration::from_secs(1);

/// What all deliveries of a member have in common when they fail.
#[derive(Debug)]
pub(crate) struct ErrorHandler {
    pub(crate) group: Arc<str>,
    pub(crate) retry: Retry,
    pub(crate) dead_letters: Option<Producer>,
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

/// How it ended.
pub(crate) enum Outcome<M> {
    /// All is settled, with what was made of it.
    Settled(M),
    /// Nobody answered; the deliveries come again.
    Abandoned,
    /// The policy says to stop; the deliveries come again.
    Stop(Error),
}

impl ErrorHandler {
    /// Carries deliveries through from their first attempt, for as long as their partition is
    /// owned.
    pub(crate) async fn drive<W: Handler>(
        &self,
        handler: &Arc<W>,
        slot: &mut FutureSlot<W>,
        deliveries: Vec<Delivery>,
        first_poll: FirstPoll,
    ) -> Outcome<W::Output> {
        let mut left = deliveries;
        let mut answer = match first_poll {
            FirstPoll::Pending(_permit) => slot.finish().await,
            FirstPoll::Failed(failure) => Err(HandlerError::Failed(failure)),
        };
        // Output at the first failure: most handlers that are pending succeed.
        let mut delays = None;
        loop {
            let failure = match answer {
                Ok(made) => return Outcome::Settled(made),
                Err(HandlerError::Abandoned) => return Outcome::Abandoned,
                Err(HandlerError::Failed(failure)) => failure,
            };
            self.counters.failures.add(1);
            self.counters.panicked.add(u64::from(failure.is_panic()));
            let index = failure.index().map(|index| index.min(left.len() - 1));
            if index > Some(0) {
                left.drain(..index.unwrap_or(0));
                delays = None;
            }
            let failed = if index.is_some() { 1 } else { left.len() };
            let attempt = left[0].attempt();
            let delays_left =
                delays.get_or_insert_with(|| self.retry.delays_seeded(seed(&left[0])));
            if let Some(delay) = delays_left.next() {
                self.counters.retried.add(1);
                event!(
                    debug, "millstream.consumer.retried", group = %self.group,
                    partition = %left[0].partition(), position = %left[0].position(), attempt,
                    delay = ?delay, reason = ?failure, "attempt failed, trying again"
                );
                tokio::time::sleep(delay).await;
            } else {
                let reason: Arc<dyn StdError + Send + Sync> = Arc::from(failure.into_reason());
                for delivery in left.drain(..failed) {
                    if let Err(error) = self.apply_final_action(&delivery, &reason).await {
                        return Outcome::Stop(error);
                    }
                }
                if left.is_empty() {
                    return Outcome::Settled(W::Output::default());
                }
                delays = None;
            }
            for delivery in &mut left {
                *delivery = delivery.next_attempt();
            }
            let _permit = self
                .permits
                .clone()
                .acquire_owned()
                .await
                .expect("the permits are never closed");
            answer = slot.attempt(handler, &left).await;
        }
    }

    /// Settles a delivery whose attempts have run out, as the policy says.
    async fn apply_final_action(
        &self,
        delivery: &Delivery,
        reason: &Arc<dyn StdError + Send + Sync>,
    ) -> Result<(), Error> {
        match self.retry.exhausted() {
            OnExhausted::Stop => {
                let message = format!(
                    "position {} failed {} times: {reason}",
                    delivery.position(),
                    delivery.attempt()
                );
                Err(Error::new(ErrorKind::Handler, "handle", message)
                    .with_partition(delivery.partition())
                    .with_group(self.group.clone())
                    .with_source(SharedReason(reason.clone())))
            }
            OnExhausted::Skip => {
                self.counters.skipped.add(1);
                event!(
                    warn, "millstream.consumer.skipped", group = %self.group,
                    partition = %delivery.partition(), position = %delivery.position(),
                    attempts = delivery.attempt(), reason = %reason,
                    "record skipped by the failure policy"
                );
                Ok(())
            }
            OnExhausted::DeadLetter(DeadLetter { stream }) => {
                self.dead_letter(delivery, reason).await?;
                self.counters.dead_lettered.add(1);
                event!(
                    warn, "millstream.consumer.dead_lettered", group = %self.group,
                    partition = %delivery.partition(), position = %delivery.position(),
                    attempts = delivery.attempt(), dead_letters = %stream, reason = %reason,
                    "record dead-lettered"
                );
                Ok(())
            }
        }
    }

    /// Sends a dead letter until its stream has it. What can never be sent stops the consumer: the
    /// record stays unsettled.
    async fn dead_letter(
        &self,
        delivery: &Delivery,
        reason: &Arc<dyn StdError + Send + Sync>,
    ) -> Result<(), Error> {
        let producer = self
            .dead_letters
            .as_ref()
            .expect("it is opened at the join when the policy needs it");
        loop {
            let sent = match producer
                .send(self.dead_letter_record(delivery, reason))
                .await
            {
                Ok(receipt) => receipt.await,
                Err(refused) => Err(refused),
            };
            match sent {
                Ok(_) => return Ok(()),
                Err(error) if error.is_retryable() => {
                    event!(
                        warn, "millstream.consumer.dead_letter_delayed", group = %self.group,
                        partition = %delivery.partition(), position = %delivery.position(),
                        error = %error, "dead letter not stored yet, trying again"
                    );
                    tokio::time::sleep(DEAD_LETTER_PAUSE).await;
                }
                Err(error) => {
                    let message =
                        format!("position {} cannot be dead-lettered", delivery.position());
                    return Err(Error::new(error.kind(), "dead-letter", message)
                        .with_partition(delivery.partition())
                        .with_group(self.group.clone())
                        .with_source(error));
                }
            }
        }
    }

    fn dead_letter_record(
        &self,
        delivery: &Delivery,
        reason: &Arc<dyn StdError + Send + Sync>,
    ) -> Record {
        /// A reason may quote the payload; the letter must stay within the limits of its stream.
        const LONGEST_REASON: usize = 1_000;

        let reason: String = error_chain(reason.as_ref())
            .chars()
            .take(LONGEST_REASON)
            .collect();
        delivery
            .to_record()
            .header("millstream-dead-reason", reason)
            .header("millstream-dead-attempts", delivery.attempt().to_string())
            .header("millstream-dead-group", self.group.to_string())
            .header("millstream-dead-stream", delivery.stream().to_owned())
            .header(
                "millstream-dead-partition",
                delivery.partition().id().to_owned(),
            )
            .header("millstream-dead-position", delivery.position().to_string())
    }
}

/// An error with its causes, in one line.
fn error_chain(error: &dyn StdError) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told.push_str(&format!(": {error}"));
        cause = error.source();
    }
    told
}

/// Spreads the retries of different records, and gives the same delays in a replay.
fn seed(delivery: &Delivery) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(delivery.partition().id().as_bytes());
    delivery.position().hash(&mut hasher);
    hasher.finish()
}

/// The handler's own error, as the source of ours.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct SharedReason(Arc<dyn StdError + Send + Sync>);
