//! The member's session with the coordinator: timely heartbeats, and session losses during a drain.

use std::time::{Duration, Instant};

use crate::config::Protocol;
use crate::native::identity::Identity;

/// The delay after the interval at which the thread is woken. A heartbeat is sent only when its interval is over, so
/// an earlier wake-up has no effect. The interval begins when the thread has sent the last heartbeat, which may take
/// this long on a busy machine.
const AFTER: Duration = Duration::from_millis(5);

/// Decides when librdkafka's main thread must be woken for a heartbeat.
///
/// A member of a classic group learns of a rebalance from the response to its heartbeat, and all others
/// wait for it. But librdkafka (2.12) sends heartbeats only when its main thread is awake anyway: a due heartbeat
/// does not wake it, and may be sent up to a second late. Any request to that thread wakes it.
#[derive(Debug)]
pub(crate) struct HeartbeatTimer {
    every: Duration,
    /// `None` from when it is due until it is sent.
    next: Option<Instant>,
}

impl HeartbeatTimer {
    /// Returns `None` if librdkafka sends heartbeats on time by itself.
    fn new(protocol: Protocol, heartbeat_interval: Duration, now: Instant) -> Option<Self> {
        let every = heartbeat_interval + AFTER;
        let next = Some(now + every);
        (protocol == Protocol::Cooperative).then_some(Self { every, next })
    }

    /// Returns whether to wake the thread now.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        self.next.take_if(|next| *next <= now).is_some()
    }

    /// Counts the next interval from when the thread was woken. If it were counted from before that, the next wake-up
    /// could come before the next heartbeat is due, and would have no effect.
    pub(crate) fn on_sent(&mut self, now: Instant) {
        self.next = Some(now + self.every);
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }
}

/// Keeps the member in its session, and detects the loss of the session.
#[derive(Debug)]
pub(crate) struct Session {
    protocol: Protocol,
    pub(crate) heartbeat: Option<HeartbeatTimer>,
    pub(crate) probe: SessionProbe,
}

/// The result of a probe of the session.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Probed {
    /// The session is over.
    Lost,
    /// The broker must be asked.
    AskBroker,
}

impl Session {
    pub(crate) fn new(protocol: Protocol, heartbeat_interval: Duration, now: Instant) -> Self {
        Self {
            protocol,
            heartbeat: HeartbeatTimer::new(protocol, heartbeat_interval, now),
            probe: SessionProbe::new(now),
        }
    }

    /// Handles the member's identity in its group, if the probe has requested it.
    pub(crate) fn on_identity(&mut self, identity: Option<&Identity>) -> Option<Probed> {
        if !self.probe.take_asked() {
            return None;
        }
        let has_id = identity.is_some_and(|identity| !identity.member.is_empty());
        match self.protocol {
            Protocol::Cooperative if !has_id => Some(Probed::Lost),
            _ => Some(Probed::AskBroker),
        }
    }
}

/// How often the session is probed.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// Decides when to check whether the member still has its session.
///
/// While a revocation waits for its acknowledgement, librdkafka (2.12) reports no session loss: it skips the event,
/// and a fenced KIP-848 member keeps waiting for the acknowledgement. Two signs remain. A member of a classic group
/// has no id any more, once librdkafka knows from a heartbeat or the session timeout. And the broker refuses its
/// commits; but while all handlers are stuck there is nothing new to commit. So an offset that is already stored is
/// stored again from time to time. Once the revocation is acknowledged, librdkafka handles the loss by itself: it
/// revokes all partitions, and joins again.
#[derive(Debug)]
pub(crate) struct SessionProbe {
    last: Instant,
    is_asked: bool,
}

impl SessionProbe {
    fn new(now: Instant) -> Self {
        Self {
            last: now,
            is_asked: false,
        }
    }

    /// Returns whether to probe now, while a revocation waits.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = now >= self.last + PROBE_EVERY;
        if is_due {
            self.last = now;
            self.is_asked = true;
        }
        is_due
    }

    /// Returns whether the probe has requested the identity that has become known.
    fn take_asked(&mut self) -> bool {
        std::mem::take(&mut self.is_asked)
    }

    pub(crate) fn next(&self) -> Instant {
        self.last + PROBE_EVERY
    }
}
