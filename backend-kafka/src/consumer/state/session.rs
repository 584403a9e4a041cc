//! The member's session with the coordinator: heartbeats in time, and losses that fall into a drain.

use std::time::{Duration, Instant};

use crate::config::Protocol;
use crate::native::consume::Identity;

/// A heartbeat goes out when its interval is over, and a wake-up before that is one for nothing. The
/// interval begins when the thread has sent the last one, which may take it so long on a busy machine.
const AFTER: Duration = Duration::from_millis(5);

/// When librdkafka's main thread is to be woken for a heartbeat.
///
/// A member of a classic group learns of a rebalance by the response to its heartbeat, and all others
/// wait for it. But librdkafka (2.12) sends heartbeats when its main thread is awake anyway: one that is
/// due wakes nothing, and may go out up to a second late. Whatever is asked of that thread wakes it.
#[derive(Debug)]
pub(crate) struct HeartbeatTimer {
    every: Duration,
    /// `None` from when it is due until it is sent.
    next: Option<Instant>,
}

impl HeartbeatTimer {
    /// None where librdkafka keeps the time by itself.
    fn new(protocol: Protocol, heartbeat_interval: Duration, now: Instant) -> Option<Self> {
        let every = heartbeat_interval + AFTER;
        let next = Some(now + every);
        (protocol == Protocol::Cooperative).then_some(Self { every, next })
    }

    /// Whether to wake the thread now.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        self.next.take_if(|next| *next <= now).is_some()
    }

    /// Counts the next interval from when the thread was woken. Counted from before that, the next time
    /// could come before the next heartbeat is due, and wake it for nothing.
    pub(crate) fn on_sent(&mut self, now: Instant) {
        self.next = Some(now + self.every);
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }
}

/// What keeps the member in its session, and notices that it is not.
#[derive(Debug)]
pub(crate) struct Session {
    protocol: Protocol,
    pub(crate) heartbeat: Option<HeartbeatTimer>,
    pub(crate) probe: SessionProbe,
}

/// What a probe of the session has shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Probed {
    /// The session is over.
    Lost,
    /// The broker is to be asked.
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

    /// Takes in who the member is in its group, if the probe has asked for that.
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

/// When to find out whether the member still has its session.
///
/// While a revocation waits for its answer librdkafka (2.12) reports no loss: it skips the event, and
/// keeps a member of KIP-848 that was fenced waiting for the answer. Two signs are left. A member of a
/// classic group has no id any more, once a heartbeat or the session's end has told librdkafka. And the
/// broker refuses its commits; but while all handlers are stuck there is nothing new to commit. So what
/// is stored already is stored again from time to time. Once the revocation is answered, librdkafka makes
/// up for the loss by itself: it takes all back, and joins again.
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

    /// Whether to probe now, as long as a revocation waits.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = now >= self.last + PROBE_EVERY;
        if is_due {
            self.last = now;
            self.is_asked = true;
        }
        is_due
    }

    /// Returns whether the identity that has become known was asked for by the probe.
    fn take_asked(&mut self) -> bool {
        std::mem::take(&mut self.is_asked)
    }

    pub(crate) fn next(&self) -> Instant {
        self.last + PROBE_EVERY
    }
}
