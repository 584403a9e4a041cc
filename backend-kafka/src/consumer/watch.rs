//! Losses that fall into a drain.
//!
//! While a revocation waits for its answer librdkafka (2.12) tells of no loss: it skips the event, and
//! keeps a member of KIP-848 that was fenced waiting for the answer. Two signs are left. A member of a
//! classic group has no id any more, once a heartbeat or the session's end has told librdkafka. And the
//! broker refuses its commits; but while all handlers are stuck there is nothing new to commit. So what
//! is stored already is stored again from time to time. Once the revocation is answered, librdkafka makes
//! up for the loss by itself: it takes all back, and joins again.

use std::time::{Duration, Instant};

use super::poller::Poller;
use super::rebalance::Pending;
use crate::config::Protocol;
use crate::native::consume::identity;

/// How often the session is looked after.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Poller {
    /// Whether a revocation waits for a drain.
    pub(super) fn drains_for_others(&self) -> bool {
        matches!(self.pending, Some(Pending::Revoke { .. }))
    }

    pub(super) fn watch_session(&mut self, now: Instant) {
        let is_due = now >= self.watched + LOOK_EVERY;
        if !is_due || !self.drains_for_others() {
            return;
        }
        self.watched = now;
        let has_an_id = || identity(&*self.consumer).is_some_and(|it| !it.member.is_empty());
        match self.protocol {
            Protocol::Cooperative if !has_an_id() => self.lose(|_| true),
            _ => self.commits.probe(),
        }
    }
}
