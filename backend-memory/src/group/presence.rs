//! Members that crash, sleep and come back.

use std::time::Duration;

use tokio::time::Instant;

use super::{Group, Timer, after};
use crate::ids::MemberId;
use crate::member::Presence;

impl Group {
    /// The handle was dropped: no sign of life comes any more.
    pub(crate) fn vanish(&mut self, member: MemberId, now: Instant) {
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

    /// Ends a member's signs of life. Its session runs out after the session time-out.
    pub(crate) fn crash(&mut self, member: MemberId, now: Instant) {
        self.absent(member, Presence::Gone, now);
    }

    /// Holds a member's signs of life back for a while.
    pub(crate) fn pause(&mut self, member: MemberId, pause: Duration, now: Instant) {
        let until = after(now, pause);
        self.absent(member, Presence::Paused { until }, now);
        if let Some(found) = self.members.get(&member) {
            self.timers
                .insert((until, Timer::Return(member, found.absence)));
        }
        self.wake_all();
    }

    fn absent(&mut self, member: MemberId, presence: Presence, now: Instant) {
        let Some(found) = self.members.get_mut(&member) else {
            return;
        };
        // The session counts from the last sign of life: one who crashes in a pause gave none since
        // it began.
        if found.presence == Presence::Here {
            found.absence += 1;
            let expiry = after(now, self.session_timeout);
            self.timers
                .insert((expiry, Timer::Expire(member, found.absence)));
        }
        found.presence = presence;
        self.wake_all();
    }

    pub(super) fn expire(&mut self, member: MemberId, absence: u64) {
        let Some(found) = self.members.get_mut(&member) else {
            return;
        };
        if found.absence != absence || found.presence == Presence::Here {
            return;
        }
        found.expired = true;
        let attached = found.attached;
        self.free_all(member);
        if !attached {
            self.members.remove(&member);
        }
    }

    pub(super) fn come_back(&mut self, member: MemberId, absence: u64, now: Instant) {
        let Some(found) = self.members.get_mut(&member) else {
            return;
        };
        let over = matches!(found.presence, Presence::Paused { until } if until <= now);
        if found.absence != absence || !over {
            return;
        }
        found.presence = Presence::Here;
        found.absence += 1;
        found.expired = false;
        found.wake.notify_one();
        self.dirty = true;
    }
}
