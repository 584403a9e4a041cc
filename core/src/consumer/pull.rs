use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::delivery::Ownership;
use super::handle::ConsumerHandle;
use super::handover::{HandedOver, Handover};
use super::pending_delivery::PendingDelivery;
use crate::consumer::runtime::control_state::ControlState;
use crate::consumer::runtime::handler::{AttemptId, Handler, HandlerError, Settlement};
use crate::consumer::runtime::member::Member;
use crate::{ConsumerStats, Delivery, Error, ErrorKind, Result};

/// A pull consumer, from [`ConsumerGroup::join`](crate::ConsumerGroup::join).
///
/// It may hold as many unsettled deliveries as the group's
/// [`concurrency`](crate::ConsumerGroup::concurrency), at most one of each key: the next delivery of a
/// key arrives when the previous one is settled. Records without a key do not wait. So a loop that
/// collects deliveries before it settles them must not wait for a fixed number: settle what you have
/// when [`next`](Self::next) returns nothing for a while (it is cancel safe), or use
/// [`run_batches`](crate::ConsumerGroup::run_batches), whose batches hold many records of one key.
///
/// Revoked partitions are drained in the background: settle what you hold, and they move without
/// duplicates. Their deliveries that were not pulled yet go to the next owner, and the drain does not
/// wait for them. Dropping the consumer without [`close`](Self::close) is a crash, and is logged.
#[derive(Debug)]
pub struct Consumer {
    handover: Arc<Handover>,
    /// The member's task. Unset once its result was returned.
    member: Option<JoinHandle<Result<()>>>,
    control: Arc<ControlState>,
}

impl Consumer {
    pub(super) fn new(
        member: Member<PullHandler>,
        handover: Arc<Handover>,
        control: Arc<ControlState>,
    ) -> Self {
        // The member ends only by a shutdown through the control, which `close` requests.
        let member = tokio::spawn(member.run(std::future::pending()));
        Self {
            handover,
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
        // A loop that always finds a delivery would starve other tasks.
        tokio::task::consume_budget().await;
        if let Some((attempt, delivery)) = self.handover.pop().await {
            let handover = self.handover.clone();
            return Ok(Some(PendingDelivery::new(delivery, attempt, handover)));
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
    /// pulled or wait for a retry are delivered again, to the remaining members, and so are settled ones
    /// behind them in the partition. To settle all of them, call [`shutdown`](ConsumerHandle::shutdown) and continue with
    /// [`next`](Self::next) until it returns `None`.
    ///
    /// # Errors
    /// An error since the last call of [`next`](Self::next), or of the close itself. `Timeout` if settled
    /// records could not be checkpointed before the drain timeout: they are delivered again.
    ///
    /// # Cancel safety
    /// Once polled, the close continues in the background.
    pub async fn close(mut self) -> Result<()> {
        let member = self.member.take();
        // Closed first, so that the shutdown does not wait for retries that could not be pulled.
        self.handover.close_and_reclaim();
        self.handle().shutdown();
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
        // The runtime has ended, or the task panicked: the source shows which.
        let message = "the member's task was aborted";
        Err(Error::new(ErrorKind::Closed, "consume", message).with_source(error))
    })
}

/// The handler of a pull consumer: hands deliveries over, to be settled by the application.
pub(super) struct PullHandler {
    handover: Arc<Handover>,
}

impl PullHandler {
    pub(super) fn new(handover: Arc<Handover>) -> Self {
        Self { handover }
    }
}

/// Ends the handover with the member: no more deliveries are handed over.
impl Drop for PullHandler {
    fn drop(&mut self) {
        self.handover.close();
    }
}

impl Handler for PullHandler {
    type Future = PullAttempt;
    type Output = ();

    const SETTLED_OUTSIDE: bool = true;

    fn poll_settled(&self, taken: &mut VecDeque<Settlement>, cx: &mut Context<'_>) -> Poll<()> {
        self.handover.poll_settled(taken, cx)
    }

    fn is_closed(&self) -> bool {
        self.handover.is_closed()
    }

    fn begun_at(&self, serial: u64) -> Option<Instant> {
        self.handover.pulled_at(serial)
    }

    fn reclaim(&self, ownership: &Arc<Ownership>) {
        self.handover.reclaim(ownership);
    }

    fn attempt(
        &self,
        attempt: AttemptId,
        mut deliveries: impl Iterator<Item = Delivery>,
    ) -> Self::Future {
        let delivery = deliveries.next().expect("an attempt has a delivery");
        PullAttempt(self.handover.push(attempt, delivery))
    }
}

/// An attempt that stays pending if its delivery was handed over: it is settled from outside.
pub(super) struct PullAttempt(HandedOver);

impl Future for PullAttempt {
    type Output = Result<(), HandlerError>;

    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.0 {
            HandedOver::Yes => Poll::Pending,
            HandedOver::TooLate => Poll::Ready(Err(HandlerError::Abandoned)),
        }
    }
}
