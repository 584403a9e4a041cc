//! Heartbeats in time.
//!
//! A member of a classic group hears of a rebalance by the answer to its heartbeat, and all others wait
//! for it. But librdkafka (2.12) sends heartbeats when its main thread is awake anyway: one that is due
//! wakes nothing, and may go out up to a second late. Whatever is asked of that thread wakes it.

use std::time::{Duration, Instant};

use super::poller::Poller;
use crate::config::Protocol;
use crate::native::consume::identity;

/// A heartbeat goes out when its interval is over, and a wake before that is one for nothing. The
/// interval begins when the thread has sent the last one, which may take it so long on a busy machine.
const AFTER: Duration = Duration::from_millis(5);

/// When the main thread is to be woken.
#[derive(Debug)]
pub(super) struct Pulse {
    every: Duration,
    next: Instant,
}

impl Pulse {
    /// None where librdkafka keeps the time by itself.
    pub(super) fn new(protocol: Protocol, heartbeat_interval: Duration) -> Option<Self> {
        let every = heartbeat_interval + AFTER;
        let next = Instant::now() + every;
        (protocol == Protocol::Cooperative).then_some(Self { every, next })
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }
}

impl Poller {
    pub(super) fn pulse(&mut self, now: Instant) {
        if let Some(pulse) = self.pulse.as_mut().filter(|pulse| pulse.next <= now) {
            // The answer is not wanted, only that the thread looks around. Counted from before that,
            // the next time could come before the next heartbeat is due, and wake it for nothing.
            let _ = identity(&*self.consumer);
            pulse.next = Instant::now() + pulse.every;
        }
    }
}
