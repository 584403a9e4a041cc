use std::error::Error as StdError;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::Control;
use crate::runtime::attempt::{Fault, Work};
use crate::runtime::board::Board;
use crate::runtime::session::Session;
use crate::telemetry::tell;
use crate::{BatchFailure, ConsumerStats, Delivery, Error, ErrorKind, Result};

type Verdict = Result<(), Box<dyn StdError + Send + Sync>>;

/// A member that pulls, from [`ConsumerGroup::join`](crate::ConsumerGroup::join).
///
/// Deliveries of different keys may be held at once, as many as the group's
/// [`concurrency`](crate::ConsumerGroup::concurrency); the next one of a key comes when the one
/// before is settled. A record without a key waits for no other. So a loop that gathers deliveries
/// before it settles them must not wait for more than it can get: settle what is there when
/// [`next`](Self::next) has nothing for a while (it is cancel safe), or use
/// [`run_batches`](crate::ConsumerGroup::run_batches), whose batches hold many records of one key.
///
/// Revoked partitions are drained behind the scenes: settle what you hold, and they go over without
/// a repeat. Dropping the consumer without [`close`](Self::close) is a crash, and is logged.
#[derive(Debug)]
pub struct Consumer {
    deliveries: mpsc::Receiver<Unsettled>,
    /// The member's own task. Unset once its end was told.
    session: Option<JoinHandle<Result<()>>>,
    board: Arc<Board>,
}

impl Consumer {
    pub(super) fn new(
        session: Session<HandOver>,
        deliveries: mpsc::Receiver<Unsettled>,
        board: Arc<Board>,
    ) -> Self {
        // Only a shutdown through the control ends it, and `close` gives that.
        let session = tokio::spawn(session.run(std::future::pending()));
        Self {
            deliveries,
            session: Some(session),
            board,
        }
    }

    /// Waits for the next delivery; `None` when the member was shut down through its [`Control`]
    /// and everything is settled.
    ///
    /// # Errors
    /// As [`ConsumerGroup::run`](crate::ConsumerGroup::run). After an error the member has left the
    /// group, and `None` follows.
    ///
    /// # Cancellation
    /// Cancel safe: a dropped call loses no delivery.
    pub async fn next(&mut self) -> Result<Option<Unsettled>> {
        while let Some(delivery) = self.deliveries.recv().await {
            // One that was lost while it waited here is with the new owner, or comes again.
            if !delivery.is_lost() {
                return Ok(Some(delivery));
            }
        }
        let Some(session) = &mut self.session else {
            return Ok(None);
        };
        let ended = session.await;
        self.session = None;
        told(ended).map(|()| None)
    }

    /// Drains, checkpoints and leaves.
    ///
    /// Deliveries that you still hold may be settled until the drain time-out. Those that were never
    /// pulled come again, to the members that are left, and so do settled ones behind them in the
    /// partition. To settle all of them, ask for the [`shutdown`](Control::shutdown) and go on with
    /// [`next`](Self::next) until `None`.
    ///
    /// # Errors
    /// What went wrong since the last call of [`next`](Self::next), or on the way out.
    ///
    /// # Cancellation
    /// Once begun, the closing goes on.
    pub async fn close(mut self) -> Result<()> {
        let session = self.session.take();
        self.control().shutdown();
        self.deliveries.close();
        // Until what is being handed over on another thread has come too.
        while let Some(mut unpulled) = self.deliveries.recv().await {
            unpulled.give_back();
        }
        match session {
            Some(session) => told(session.await),
            None => Ok(()),
        }
    }

    /// A handle to watch and steer this member from elsewhere.
    pub fn control(&self) -> Control {
        Control(self.board.clone())
    }

    /// What was counted so far.
    pub fn stats(&self) -> ConsumerStats {
        self.control().stats()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.abort();
        }
    }
}

fn told(ended: std::result::Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
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
pub struct Unsettled {
    delivery: Delivery,
    /// Unset once it is settled.
    verdict: Option<oneshot::Sender<Verdict>>,
}

impl Unsettled {
    /// Settles it: the checkpoint may pass it now.
    pub fn ack(mut self) {
        self.settle(Ok(()));
    }

    /// Fails it: it takes the group's failure path (retry, then dead letter, skip or stop).
    pub fn nack(mut self, reason: impl Into<Box<dyn StdError + Send + Sync>>) {
        self.settle(Err(reason.into()));
    }

    fn settle(&mut self, verdict: Verdict) {
        if let Some(told) = self.verdict.take() {
            // Nobody listens any more if the partition was lost.
            let _ = told.send(verdict);
        }
    }

    /// Makes it as if it had never been handed out.
    fn give_back(&mut self) {
        self.verdict = None;
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if self.verdict.is_some() {
            if !self.delivery.is_lost() {
                tell!(
                    warn, "millstream.consumer.dropped_delivery",
                    partition = %self.delivery.partition(), position = %self.delivery.position(),
                    "a delivery was dropped unsettled, which counts as failed"
                );
            }
            self.settle(Err("the delivery was dropped unsettled".into()));
        }
    }
}

impl Deref for Unsettled {
    type Target = Delivery;

    fn deref(&self) -> &Delivery {
        &self.delivery
    }
}

impl fmt::Debug for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Unsettled").field(&self.delivery).finish()
    }
}

/// The work of a pulling member: hand the delivery over and wait for the verdict.
pub(super) struct HandOver(pub(super) mpsc::Sender<Unsettled>);

impl Work for HandOver {
    type Attempt = BoxFuture<'static, Result<(), Fault>>;
    type Made = ();

    fn run_length(&self) -> Option<usize> {
        None
    }

    fn publishes_to(&self) -> Option<&Arc<str>> {
        None
    }

    fn attempt(&self, mut deliveries: impl Iterator<Item = Delivery>) -> Self::Attempt {
        let delivery = deliveries.next().expect("an attempt has a delivery");
        let deliveries = self.0.clone();
        Box::pin(async move {
            let (told, verdict) = oneshot::channel();
            if let Err(mut unsent) = deliveries
                .send(Unsettled {
                    delivery,
                    verdict: Some(told),
                })
                .await
            {
                unsent.0.give_back();
                return Err(Fault::Abandoned);
            }
            match verdict.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(reason)) => Err(Fault::Failed(BatchFailure::whole(reason))),
                Err(_) => Err(Fault::Abandoned),
            }
        })
    }
}
