//! Hands deliveries over from a member to its pull consumer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::delivery::Ownership;
use super::pending_delivery::PendingDelivery;
use crate::sync::lock;

/// Deliveries that were not pulled yet. It needs no bound of its own: the group's concurrency bounds
/// the attempts, and each has one delivery.
#[derive(Debug, Default)]
pub(super) struct HandoverQueue {
    state: Mutex<State>,
    /// Notified when the queue is no longer empty, and when it is closed.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    unpulled: VecDeque<PendingDelivery>,
    closed: bool,
}

impl HandoverQueue {
    /// Appends a delivery. One that can no longer be pulled in time is taken back at once.
    pub(super) fn push(&self, pending: PendingDelivery) {
        let mut state = lock(&self.state);
        let pull = lock(&pending.ownership().pull);
        let is_late = pull.reclaimed && Some(pending.position()) > pull.last;
        drop(pull);
        if state.closed || is_late {
            pending.take_back();
            return;
        }
        state.unpulled.push_back(pending);
        if state.unpulled.len() == 1 {
            self.changed.notify_one();
        }
    }

    /// Waits for the next delivery. `None` when the queue is closed and empty. Cancel safe.
    pub(super) async fn pop(&self) -> Option<PendingDelivery> {
        loop {
            {
                let mut state = lock(&self.state);
                if let Some(pending) = state.unpulled.pop_front() {
                    let mut pull = lock(&pending.ownership().pull);
                    pull.last = pull.last.max(Some(pending.position()));
                    drop(pull);
                    return Some(pending);
                }
                if state.closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Takes back what was not pulled of a partition that is revoked. What lies before a delivery that
    /// was pulled stays: when that one settles and this one does not, both come again.
    pub(super) fn reclaim(&self, ownership: &Arc<Ownership>) {
        let mut state = lock(&self.state);
        let mut pull = lock(&ownership.pull);
        pull.reclaimed = true;
        let last = pull.last;
        drop(pull);
        let is_late = |pending: &PendingDelivery| {
            Arc::ptr_eq(pending.ownership(), ownership) && Some(pending.position()) > last
        };
        let (late, stay) = std::mem::take(&mut state.unpulled)
            .into_iter()
            .partition(is_late);
        state.unpulled = stay;
        drop(state);
        let late: VecDeque<PendingDelivery> = late;
        late.into_iter().for_each(PendingDelivery::take_back);
    }

    /// Ends the queue. What is in it can still be pulled.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_one();
    }

    /// Ends the queue, and takes back what is in it.
    pub(super) fn close_and_reclaim(&self) {
        let unpulled = {
            let mut state = lock(&self.state);
            state.closed = true;
            std::mem::take(&mut state.unpulled)
        };
        unpulled.into_iter().for_each(PendingDelivery::take_back);
    }
}
