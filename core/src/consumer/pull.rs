use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::delivery::Ownership;
use super::handle::ConsumerHandle;
use super::handover::HandoverQueue;
use crate::consumer::runtime::control_state::ControlState;
use crate::consumer::runtime::handler::{Handler, HandlerError};
use crate::consumer::runtime::member::Member;
use crate::telemetry::event;
use crate::{BatchFailure, ConsumerStats, Delivery, Error, ErrorKind, Failure, Result};

type AckResult = Result<(), Failure>;

/// A pull consumer, from [`ConsumerGroup::join`](crate::ConsumerGroup::join).
///
/// It may hold as many unsettled deliveries as the group's
/// [`concurrency`](crate::ConsumerGroup::concurrency), at most one of each key: the next delivery of a
/// key arrives when the previous one is settled. Records without a key do not wait. A loop that
/// collects deliveries before it settles them must therefore not wait for a fixed number: settle what
/// you have when [`next`](Self::next) returns nothing for a while (it is cancel safe), or use
/// [`run_batches`](crate::ConsumerGroup::run_batches), whose batches hold many records of one key.
///
/// Revoked partitions are drained in the background: settle what you hold, and they move without
/// duplicates. Their deliveries that were not pulled yet go to the next owner, and the drain does not
/// wait for them. Dropping the consumer without [`close`](Self::close) is a crash, and is logged.
#[derive(Debug)]
pub struct Consumer {
    queue: Arc<HandoverQueue>,
    /// The member's task. Unset once its result was returned.
    member: Option<JoinHandle<Result<()>>>,
    control: Arc<ControlState>,
}

impl Consumer {
    pub(super) fn new(
        member: Member<PullHandler>,
        queue: Arc<HandoverQueue>,
        control: Arc<ControlState>,
    ) -> Self {
        // Only a shutdown through the control ends it, and `close` gives that.
        let member = tokio::spawn(member.run(std::future::pending()));
        Self {
            queue,
            member: Some(member),
            control,
        }
    }

    /// Waits for the next delivery. Returns `None` when the member was shut down through its
    /// [`ConsumerHandle`] and everything is settled.
    ///
    /// # Errors
    /// As [`ConsumerGroup::run`](crate::ConsumerGroup::run). After an error the member has left the
    /// group, and `None` follows.
    ///
    /// # Cancel safety
    /// A dropped call loses no delivery.
    pub async fn next(&mut self) -> Result<Option<PendingDelivery>> {
        while let Some(delivery) = self.queue.pop().await {
            // One that was lost while it waited here is with the new owner, or comes again.
            if !delivery.is_lost() {
                return Ok(Some(delivery));
            }
        }
        let Some(member) = &mut self.member else {
            return Ok(None);
        };
        let ended = member.await;
        self.member = None;
        join_result(ended).map(|()| None)
    }

    /// Drains, checkpoints and leaves.
    ///
    /// Deliveries that you still hold may be settled until the drain timeout. Those that were never
    /// pulled are delivered again, to the remaining members, and so are settled ones behind them in the
    /// partition. To settle all of them, call [`shutdown`](ConsumerHandle::shutdown) and continue with
    /// [`next`](Self::next) until it returns `None`.
    ///
    /// # Errors
    /// An error since the last call of [`next`](Self::next), or of the close itself.
    ///
    /// # Cancel safety
    /// Once polled, the close continues in the background.
    pub async fn close(mut self) -> Result<()> {
        let member = self.member.take();
        self.handle().shutdown();
        self.queue.close_and_reclaim();
        match member {
            Some(member) => join_result(member.await),
            None => Ok(()),
        }
    }

    /// Returns a handle for monitoring and controlling this member.
    pub fn handle(&self) -> ConsumerHandle {
        ConsumerHandle(self.control.clone())
    }

    /// Returns a snapshot of the counters.
    pub fn stats(&self) -> ConsumerStats {
        self.handle().stats()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if let Some(member) = self.member.take() {
            member.abort();
        }
    }
}

fn join_result(ended: std::result::Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    ended.unwrap_or_else(|error| {
        // Its runtime has ended, or it panicked: the source says which.
        let message = "the member's task was cut off";
        Err(Error::new(ErrorKind::Closed, "consume", message).with_source(error))
    })
}

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

/// The handler of a pull consumer: hands deliveries over, and waits until they are settled.
pub(super) struct PullHandler {
    queue: Arc<HandoverQueue>,
}

impl PullHandler {
    pub(super) fn new(queue: Arc<HandoverQueue>) -> Self {
        Self { queue }
    }
}

/// The member has ended: nothing more is handed over.
impl Drop for PullHandler {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Handler for PullHandler {
    type Future = PullAttempt;
    type Output = ();

    fn reclaim(&self, ownership: &Arc<Ownership>) {
        self.queue.reclaim(ownership);
    }

    fn attempt(&self, mut deliveries: impl Iterator<Item = Delivery>) -> Self::Future {
        let delivery = deliveries.next().expect("an attempt has a delivery");
        let (ack_result, settled) = oneshot::channel();
        self.queue.push(PendingDelivery {
            delivery,
            ack_result: Some(ack_result),
        });
        PullAttempt(settled)
    }
}

/// Waits until a delivery is settled, or taken back.
pub(super) struct PullAttempt(oneshot::Receiver<AckResult>);

impl Future for PullAttempt {
    type Output = Result<(), HandlerError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let settled = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(match settled {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(HandlerError::Failed(BatchFailure::whole(failure))),
            Err(_) => Err(HandlerError::Abandoned),
        })
    }
}
