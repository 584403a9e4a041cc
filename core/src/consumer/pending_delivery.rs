use std::error::Error as StdError;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::delivery::Ownership;
use crate::telemetry::event;
use crate::{Delivery, Failure, Result};

pub(super) type AckResult = Result<(), Failure>;

/// A delivery that waits to be settled, once: [`ack`](Self::ack) or [`nack`](Self::nack).
///
/// Dropping it is a nack: it comes again, as the group's failure policy says. When its partition
/// was lost meanwhile ([`is_lost`](Delivery::is_lost)), settling it has no effect: the new owner
/// has it.
#[must_use = "a delivery that is dropped unsettled counts as failed"]
pub struct PendingDelivery {
    delivery: Delivery,
    /// Unset once it is settled.
    ack_result: Option<oneshot::Sender<AckResult>>,
}

impl PendingDelivery {
    /// Creates one, with the receiver of its result. The receiver fails if it is taken back.
    pub(super) fn new(delivery: Delivery) -> (Self, oneshot::Receiver<AckResult>) {
        let (ack_result, settled) = oneshot::channel();
        let pending = Self {
            delivery,
            ack_result: Some(ack_result),
        };
        (pending, settled)
    }

    /// Settles it: the checkpoint may pass it now.
    pub fn ack(mut self) {
        self.settle(Ok(()));
    }

    /// Fails it: it takes the group's failure path (retry, then dead letter, skip or stop). A
    /// [`Failure`] may say more, such as [`Failure::unavailable`].
    pub fn nack(mut self, failure: impl Into<Failure>) {
        self.settle(Err(failure.into()));
    }

    /// Fails it, and asks for the next attempt after `delay` (at most 1 day) in place of the
    /// policy's delay; see [`Failure::retry_after`].
    pub fn nack_after(self, delay: Duration, reason: impl Into<Box<dyn StdError + Send + Sync>>) {
        self.nack(Failure::retry_after(reason, delay));
    }

    /// Fails it for good: no further attempt, the policy's final action at once; see
    /// [`Failure::permanent`].
    pub fn reject(self, reason: impl Into<Box<dyn StdError + Send + Sync>>) {
        self.nack(Failure::permanent(reason));
    }

    fn settle(&mut self, ack_result: AckResult) {
        if let Some(told) = self.ack_result.take() {
            // Nobody listens any more if the partition was lost.
            let _ = told.send(ack_result);
        }
    }

    /// Makes it as if it had never been handed out.
    pub(super) fn take_back(mut self) {
        self.ack_result = None;
    }

    pub(super) fn ownership(&self) -> &Arc<Ownership> {
        self.delivery.ownership()
    }
}

impl Drop for PendingDelivery {
    fn drop(&mut self) {
        if self.ack_result.is_some() {
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
