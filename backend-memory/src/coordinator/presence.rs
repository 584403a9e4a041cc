//! Members that crash, pause and return.

use std::time::Duration;

use tokio::time::Instant;

use super::member::Presence;
use super::timers::Timer;
use super::{GroupCoordinator, after};
use crate::ids::MemberId;

impl GroupCoordinator {
    /// Handles a dropped handle: the member sends no more heartbeats.
    pub(crate) fn disconnect(&mut self, member: MemberId, now: Instant) {
        let Some(found) = self.members.get_mut(&member) else {
            return;
        };
        found.attached = false;
        if found.expired {
            self.members.remove(&member);
        } else {
            self.crash(member, now);
        }
    }

    /// Stops a member's heartbeats. Its session expires after the session timeout.
    pub(crate) fn crash(&mut self, member: MemberId, now: Instant) {
        self.set_absent(member, Presence::Gone, now);
    }

    /// Delays a member's heartbeats for a while. This replaces an earlier pause.
    pub(crate) fn pause(&mut self, member: MemberId, pause: Duration, now: Instant) {
        let until = after(now, pause);
        self.set_absent(member, Presence::Paused { until }, now);
        if let Some(found) = self.members.get(&member) {
            self.timers
                .insert((until, Timer::Pause(member, found.presence_version)));
            found.pause_changed.notify_waiters();
        }
        self.wake_all();
    }

    fn set_absent(&mut self, member: MemberId, presence: Presence, now: Instant) {
        let Some(found) = self.members.get_mut(&member) else {
            return;
        };
        // The session counts from the last heartbeat: a member that crashes during a pause sent
        // none since the pause started.
        if found.presence == Presence::Present {
            found.presence_version += 1;
            let expiry = after(now, self.session_timeout);
            self.timers
                .insert((expiry, Timer::Session(member, found.presence_version)));
        }
        found.presence = presence;
        self.wake_all();
    }

    pub(super) fn expire(&mut self, member: MemberId, presence_version: u64) {
        let Some(found) = self.members.get_mut(&member) else {
            return;
        };
        if found.presence_version != presence_version || found.presence == Presence::Present {
            return;
        }
        found.expired = true;
        let attached = found.attached;
        self.revoke_all_now(member);
        if !attached {
            self.members.remove(&member);
        }
    }

    pub(super) fn end_pause(&mut self, member: MemberId, presence_version: u64, now: Instant) {
        let Some(found) = self.members.get_mut(&member) else {
            return;
        };
        let is_over = matches!(found.presence, Presence::Paused { until } if until <= now);
        if found.presence_version != presence_version || !is_over {
            return;
        }
        found.presence = Presence::Present;
        found.presence_version += 1;
        found.expired = false;
        found.wake.notify_one();
        self.needs_rebalance = true;
    }
}
