//! Hands deliveries over from a member to its pull consumer, and settlements back.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::delivery::Ownership;
use crate::Delivery;
use crate::consumer::runtime::handler::{AttemptId, HandlerError, Settlement};
use crate::sync::lock;

/// Both directions between a member and its pull consumer. They need no bound of their own: the group's
/// concurrency bounds the attempts, and each attempt has one delivery and one settlement.
///
/// Rejected: a channel of one value for each delivery. It allocates, and each settlement wakes the
/// member.
#[derive(Debug, Default)]
pub(super) struct Handover {
    unpulled: Mutex<Unpulled>,
    /// Notified when deliveries can be pulled again, and when the handover is closed.
    changed: Notify,
    settled: Mutex<Settled>,
    /// When each delivery that the application holds was pulled, by the serial number of its attempt.
    /// Unset if attempts have no time limit.
    pulled_at: Option<Mutex<HashMap<u64, Instant>>>,
}

/// Deliveries that were not pulled yet.
#[derive(Debug, Default)]
struct Unpulled {
    queue: VecDeque<(AttemptId, Delivery)>,
    closed: bool,
}

/// Settlements that the member has not taken yet.
#[derive(Debug, Default)]
struct Settled {
    queue: VecDeque<Settlement>,
    /// The member, if it waits for a settlement. The first one wakes it.
    member: Option<Waker>,
}

/// Whether a delivery was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HandedOver {
    Yes,
    /// The delivery can no longer be pulled in time.
    TooLate,
}

impl Handover {
    /// Creates a handover. `is_timed` says whether attempts have a time limit.
    pub(super) fn new(is_timed: bool) -> Self {
        Self {
            pulled_at: is_timed.then(Mutex::default),
            ..Self::default()
        }
    }

    /// Appends a delivery, unless it can no longer be pulled in time.
    pub(super) fn push(&self, attempt: AttemptId, delivery: Delivery) -> HandedOver {
        let mut unpulled = lock(&self.unpulled);
        if unpulled.closed || is_left(attempt, delivery.ownership()) {
            return HandedOver::TooLate;
        }
        unpulled.queue.push_back((attempt, delivery));
        if unpulled.queue.len() == 1 {
            self.changed.notify_one();
        }
        HandedOver::Yes
    }

    /// Waits for the next delivery that is not lost. The attempts of lost deliveries have ended. `None` when
    /// the handover is closed and empty. Cancel safe.
    pub(super) async fn pop(&self) -> Option<(AttemptId, Delivery)> {
        loop {
            {
                let mut unpulled = lock(&self.unpulled);
                while let Some((attempt, delivery)) = unpulled.queue.pop_front() {
                    if delivery.is_lost() {
                        continue;
                    }
                    let pull = &delivery.ownership().pull;
                    pull.end.fetch_max(attempt.number + 1, Relaxed);
                    if let Some(pulled_at) = &self.pulled_at {
                        lock(pulled_at).insert(attempt.serial, Instant::now());
                    }
                    return Some((attempt, delivery));
                }
                if unpulled.closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Returns when the delivery of an attempt was pulled. `None` if it was not, or is settled.
    pub(super) fn pulled_at(&self, serial: u64) -> Option<Instant> {
        lock(self.pulled_at.as_ref()?).get(&serial).copied()
    }

    /// Settles the attempt of a delivery that was handed over.
    pub(super) fn settle(&self, attempt: AttemptId, result: Result<(), HandlerError>) {
        if let Some(pulled_at) = &self.pulled_at {
            lock(pulled_at).remove(&attempt.serial);
        }
        let mut settled = lock(&self.settled);
        settled.queue.push_back(Settlement { attempt, result });
        let member = settled.member.take();
        drop(settled);
        if let Some(member) = member {
            member.wake();
        }
    }

    /// Appends all settlements since the last call to `taken`. Pending if there is none.
    pub(super) fn poll_settled(
        &self,
        taken: &mut VecDeque<Settlement>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let mut settled = lock(&self.settled);
        if !settled.queue.is_empty() {
            // Mostly one of them is empty, and only their buffers are swapped.
            if taken.is_empty() {
                std::mem::swap(taken, &mut settled.queue);
            } else {
                taken.append(&mut settled.queue);
            }
            return Poll::Ready(());
        }
        match &mut settled.member {
            Some(member) => member.clone_from(cx.waker()),
            member => *member = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Takes back the deliveries of a lost or revoked partition that were not pulled. Those of a revoked partition
    /// stay if a later one was pulled: if only the later one were settled, both would be
    /// delivered again.
    pub(super) fn reclaim(&self, ownership: &Arc<Ownership>) {
        let mut unpulled = lock(&self.unpulled);
        ownership.pull.reclaimed.store(true, Relaxed);
        let is_late = |(attempt, delivery): &(AttemptId, Delivery)| {
            Arc::ptr_eq(delivery.ownership(), ownership) && is_left(*attempt, ownership)
        };
        let (late, stay) = std::mem::take(&mut unpulled.queue)
            .into_iter()
            .partition(is_late);
        unpulled.queue = stay;
        drop(unpulled);
        self.take_back(late);
    }

    /// Returns whether no more deliveries are handed over.
    pub(super) fn is_closed(&self) -> bool {
        lock(&self.unpulled).closed
    }

    /// Ends the handover. Deliveries that were not pulled yet can still be pulled.
    pub(super) fn close(&self) {
        lock(&self.unpulled).closed = true;
        self.changed.notify_one();
    }

    /// Ends the handover, and takes back the deliveries that were not pulled yet.
    pub(super) fn close_and_reclaim(&self) {
        let unpulled = {
            let mut unpulled = lock(&self.unpulled);
            unpulled.closed = true;
            std::mem::take(&mut unpulled.queue)
        };
        self.take_back(unpulled);
    }

    /// Ends the attempts of these deliveries, as if they had never been handed over.
    fn take_back(&self, unpulled: VecDeque<(AttemptId, Delivery)>) {
        for (attempt, _) in unpulled {
            self.settle(attempt, Err(HandlerError::Abandoned));
        }
    }
}

/// Returns whether a delivery that was not pulled yet is left to the next owner of its partition. Called
/// under the lock of `unpulled`.
fn is_left(attempt: AttemptId, ownership: &Ownership) -> bool {
    let pull = &ownership.pull;
    ownership.is_lost() || pull.reclaimed.load(Relaxed) && attempt.number >= pull.end.load(Relaxed)
}
