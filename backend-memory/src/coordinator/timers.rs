//! The deadlines of a group: drains, sessions and pauses.

use std::time::Duration;

use tokio::time::Instant;

use super::GroupCoordinator;
use crate::ids::MemberId;

/// What a deadline ends. The number is the [`presence_version`](super::GroupMember) that the timer
/// was set for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Drain(MemberId),
    Session(MemberId, u64),
    Pause(MemberId, u64),
}

impl GroupCoordinator {
    /// Returns the next deadline.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Returns whether [`tick`](Self::tick) or [`rebalance`](Self::rebalance) has work.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.needs_rebalance || self.deadline().is_some_and(|at| at <= now)
    }

    /// Handles all deadlines that have passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some(&(at, timer)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Drain(member) => self.revoke_undrained(member, now),
                Timer::Session(member, version) => self.expire(member, version),
                Timer::Pause(member, version) => self.end_pause(member, version, now),
            }
        }
    }
}

/// Adds a wait to an instant; a wait that is too long to add becomes 100 years.
pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    now + wait.min(FAR)
}
