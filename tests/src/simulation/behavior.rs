use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use fastrand::Rng;

use super::script::HandlerPlan;
use super::world::lock;

/// How the handlers of a group take each record: decided by the record's id, not by who handles it
/// when.
#[derive(Debug)]
pub(super) struct HandlerBehavior {
    plan: HandlerPlan,
    seed: u64,
    stuck: Duration,
    /// How often a record has failed, over all members.
    failed: Mutex<BTreeMap<u64, u32>>,
}

/// How a handler refuses a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InjectedFailure {
    Error,
    Panic,
}

impl HandlerBehavior {
    pub(super) fn new(plan: HandlerPlan, seed: u64, session_timeout: Duration) -> Self {
        Self {
            plan,
            seed,
            stuck: session_timeout.mul_f64(2.5),
            failed: Mutex::default(),
        }
    }

    /// How long the handler takes for a record.
    pub(super) fn pause(&self, id: u64, attempt: u32) -> Duration {
        let mut dice = self.dice(id, u64::from(attempt));
        if dice.f64() < self.plan.stuck {
            self.stuck
        } else if dice.f64() < self.plan.pausing {
            let most = u64::try_from(self.plan.pause.as_millis()).unwrap_or(u64::MAX);
            Duration::from_millis(dice.u64(0..=most))
        } else {
            Duration::ZERO
        }
    }

    /// Whether the handler refuses a record this time. Each call is a try.
    pub(super) fn failure_of(&self, id: u64) -> Option<InjectedFailure> {
        let mut dice = self.dice(id, 0);
        let times = if dice.f64() < self.plan.poison {
            u32::MAX
        } else if dice.f64() < self.plan.failing {
            dice.u32(1..=self.plan.failures)
        } else {
            0
        };
        let mut failed = lock(&self.failed);
        let before = failed.entry(id).or_default();
        if *before >= times {
            return None;
        }
        *before += 1;
        let panics = self.dice(id, 1 << 32 | u64::from(*before)).f64() < self.plan.panicking;
        Some(match panics {
            true => InjectedFailure::Panic,
            false => InjectedFailure::Error,
        })
    }

    fn dice(&self, id: u64, salt: u64) -> Rng {
        let mut mixed = Rng::with_seed(self.seed ^ id.rotate_left(32));
        Rng::with_seed(mixed.u64(..) ^ salt)
    }
}

impl InjectedFailure {
    /// Returns an error, or panics without a message on the terminal.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Error => "the handler refuses",
            Self::Panic => std::panic::resume_unwind(Box::new("the handler panics")),
        }
    }
}
