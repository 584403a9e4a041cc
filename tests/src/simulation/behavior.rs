use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use millstream_core::{Delivery, Failure};

use super::script::HandlerPlan;
use super::world::lock;

/// The behavior of a group's handlers for each record: decided by the record's id and key, not by the
/// member that handles it.
#[derive(Debug)]
pub(super) struct HandlerBehavior {
    plan: HandlerPlan,
    seed: u64,
    stuck: Duration,
    /// The number of failures of each record, over all members.
    failed: Mutex<BTreeMap<u64, u32>>,
    /// The keys that were stuck.
    stuck_keys: Mutex<BTreeSet<Bytes>>,
    /// The records whose results were rejected.
    refused: Mutex<BTreeSet<u64>>,
}

/// A handler's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InjectedFailure {
    /// An error without a classification for the next attempt.
    Plain,
    Panic,
    Permanent,
    RetryAfter(Duration),
    Unavailable,
}

impl HandlerBehavior {
    pub(super) fn new(plan: HandlerPlan, seed: u64, session_timeout: Duration) -> Self {
        Self {
            plan,
            seed,
            stuck: session_timeout.mul_f64(2.5),
            failed: Mutex::default(),
            stuck_keys: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    /// Returns how long the handler takes for a record.
    pub(super) fn pause(&self, id: u64, delivery: &Delivery) -> Duration {
        let mut dice = self.dice(id, u64::from(delivery.attempt()));
        if delivery.key().is_some_and(|key| self.gets_stuck(key)) {
            self.plan.key_stuck_for
        } else if dice.f64() < self.plan.stuck {
            self.stuck
        } else if dice.f64() < self.plan.pausing {
            let most = u64::try_from(self.plan.pause.as_millis()).unwrap_or(u64::MAX);
            Duration::from_millis(dice.u64(0..=most))
        } else {
            Duration::ZERO
        }
    }

    /// Returns whether a key gets stuck now. Each is stuck at most once.
    fn gets_stuck(&self, key: &Bytes) -> bool {
        const SHARE: f64 = 0.3;
        let mut stuck = lock(&self.stuck_keys);
        if stuck.len() >= self.plan.stuck_keys || stuck.contains(key) {
            return false;
        }
        let mixed = key.iter().fold(0, |mixed: u64, byte| {
            mixed.wrapping_mul(31).wrapping_add(u64::from(*byte))
        });
        self.dice(mixed, 1 << 33).f64() < SHARE && stuck.insert(key.clone())
    }

    /// Returns the total number of failures of a record.
    fn failures(&self, id: u64) -> u32 {
        let mut dice = self.dice(id, 0);
        if dice.f64() < self.plan.poison {
            u32::MAX
        } else if dice.f64() < self.plan.failing {
            dice.u32(1..=self.plan.failures)
        } else {
            0
        }
    }

    /// Returns whether the handler fails a record at its next attempt.
    pub(super) fn will_fail(&self, id: u64) -> bool {
        let before = lock(&self.failed).get(&id).copied().unwrap_or(0);
        before < self.failures(id)
    }

    /// Returns whether the handler fails a record this time. Each call is an attempt.
    pub(super) fn failure_of(&self, id: u64) -> Option<InjectedFailure> {
        let mut failed = lock(&self.failed);
        let before = failed.entry(id).or_default();
        if *before >= self.failures(id) {
            return None;
        }
        *before += 1;
        let mut dice = self.dice(id, 1 << 32 | u64::from(*before));
        Some(if dice.f64() < self.plan.panicking {
            InjectedFailure::Panic
        } else if dice.f64() < self.plan.classified {
            match dice.u8(..3) {
                0 => InjectedFailure::Permanent,
                1 => InjectedFailure::RetryAfter(Duration::from_millis(dice.u64(..10_000))),
                _ => InjectedFailure::Unavailable,
            }
        } else {
            InjectedFailure::Plain
        })
    }

    /// Returns whether the result of a record is rejected this time, with the kind of the error.
    pub(super) fn refuses_result(&self, id: u64, once: bool) -> Option<&'static str> {
        let mut dice = self.dice(id, 1 << 34);
        let refuses = dice.f64() < self.plan.refused;
        let kind = ["invalid", "too_large"][dice.usize(..2)];
        (refuses && (lock(&self.refused).insert(id) || !once)).then_some(kind)
    }

    fn dice(&self, id: u64, salt: u64) -> Rng {
        let mut mixed = Rng::with_seed(self.seed ^ id.rotate_left(32));
        Rng::with_seed(mixed.u64(..) ^ salt)
    }
}

impl InjectedFailure {
    /// Returns the error that the handler returns, or panics without a message on the terminal.
    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::Panic => std::panic::resume_unwind(Box::new("the handler panics")),
            failure => failure.into_named(),
        }
    }

    /// Returns an error that names the record, which a panic cannot.
    pub(super) fn into_named(self) -> Failure {
        const REASON: &str = "the handler refuses";
        match self {
            Self::Plain | Self::Panic => REASON.into(),
            Self::Permanent => Failure::permanent(REASON),
            Self::RetryAfter(delay) => Failure::retry_after(REASON, delay),
            Self::Unavailable => Failure::unavailable(REASON),
        }
    }
}
