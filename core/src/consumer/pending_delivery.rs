use std::error::Error as StdError;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::handover::Handover;
use crate::consumer::runtime::handler::{AttemptId, HandlerError};
use crate::telemetry::event;
use crate::{BatchFailure, Delivery, Failure};

/// A delivery that must be settled once, by [`ack`](Self::ack) or [`nack`](Self::nack).
///
/// Dropping it is a nack: the group's failure policy applies. If its partition was lost in the meantime
/// ([`is_lost`](Delivery::is_lost)), settling it has no effect: the new owner has it.
#[must_use = "a delivery that is dropped unsettled counts as failed"]
pub struct PendingDelivery {
    delivery: Delivery,
    attempt: AttemptId,
    /// The handover in which it is settled. `None` once it is settled.
    handover: Option<Arc<Handover>>,
}

impl PendingDelivery {
    pub(super) fn new(delivery: Delivery, attempt: AttemptId, handover: Arc<Handover>) -> Self {
        Self {
            delivery,
            attempt,
            handover: Some(handover),
        }
    }

    /// Settles the delivery: the checkpoint may now pass it.
    pub fn ack(mut self) {
        self.settle(Ok(()));
    }

    /// Fails the delivery: the group's failure policy applies (retry, then dead letter, skip or stop).
    /// A [`Failure`] may say more, such as [`Failure::unavailable`].
    pub fn nack(mut self, failure: impl Into<Failure>) {
        self.settle(Err(failure.into()));
    }

    /// Fails the delivery, and requests the next attempt after `delay` (at most 1 day) instead of the
    /// policy's delay; see [`Failure::retry_after`].
    pub fn nack_after(self, delay: Duration, reason: impl Into<Box<dyn StdError + Send + Sync>>) {
        self.nack(Failure::retry_after(reason, delay));
    }

    /// Fails the delivery permanently: there is no further attempt, and the policy's final action
    /// follows at once; see [`Failure::permanent`].
    pub fn reject(self, reason: impl Into<Box<dyn StdError + Send + Sync>>) {
        self.nack(Failure::permanent(reason));
    }

    fn settle(&mut self, result: Result<(), Failure>) {
        if let Some(handover) = self.handover.take() {
            let result =
                result.map_err(|failure| HandlerError::Failed(BatchFailure::whole(failure)));
            handover.settle(self.attempt, result);
        }
    }
}

impl Drop for PendingDelivery {
    fn drop(&mut self) {
        if self.handover.is_some() {
            if !self.delivery.is_lost() {
                event!(
                    warn, "millstream.consumer.dropped_delivery",
                    partition = %self.delivery.partition(), position = %self.delivery.position(),
                    "a delivery was dropped unsettled, which counts as failed"
                );
            }
            self.settle(Err("the delivery was dropped unsettled".into()));
        }
    }
}

impl Deref for PendingDelivery {
    type Target = Delivery;

    fn deref(&self) -> &Delivery {
        &self.delivery
    }
}

impl fmt::Debug for PendingDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PendingDelivery")
            .field(&self.delivery)
            .finish()
    }
}
