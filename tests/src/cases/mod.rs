//! The promises, each in its own module, as cases that any backend can run.

#![deny(
    clippy::missing_assert_message,
    reason = "the author of a driver must not have to read a case to learn what is wrong"
)]

use std::sync::Arc;

use futures_util::future::BoxFuture;
use millstream_core::Guarantee;

use crate::{BrokerScope, Harness, Need};

mod c01_produce_order;
mod c02_consume_order;
mod c03_at_least_once;
mod c03_odd_dead_letters;
mod c03_refused_results;
mod c04_contiguous_checkpoint;
mod c05_clean_handover;
mod c05_prompt_handover;
mod c06_crash;
mod c07_fencing;
mod c08_back_pressure;
mod c08_stuck_key;
mod c09_independent_groups;
mod c10_at;
mod c10_start;
mod c10_streams;
mod c11_reshard;
mod c12_close;
mod c12_prompt_shutdown;
mod c13_limits;
mod c13_options;
mod c14_round_trip;
mod deleted_streams;
mod driver_contract;
mod longest_key;
mod network;
mod operations;
mod pipelines;
mod reader;
mod retention;
mod stored_progress;
mod stream_ids;

/// One promise that a backend must be shown to keep.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The name: the promise, and the fact that the case shows.
    pub name: &'static str,
    /// What a backend must have for the case to be run.
    pub needs: &'static [Need],
    run: fn(Arc<dyn Harness>) -> BoxFuture<'static, ()>,
}

impl Case {
    /// Returns the needs that the backend does not meet. If there are none, the case must be run.
    pub async fn unmet(&self, harness: &dyn Harness) -> Vec<String> {
        let (guarantees, hooks) = (harness.client().await.guarantees(), harness.hooks());
        let unmet = self
            .needs
            .iter()
            .filter(|need| !need.met(&guarantees, &hooks));
        unmet.map(ToString::to_string).collect()
    }

    /// Returns whether the case needs its own broker.
    pub fn broker_scope(&self) -> BrokerScope {
        let restarts = |need: &Need| need.to_string() == RESTART.to_string();
        match self.needs.iter().any(restarts) {
            true => BrokerScope::OneCase,
            false => BrokerScope::Shared,
        }
    }

    /// Runs the case without a time limit. [`Setup::run`](crate::Setup::run) bounds the time.
    ///
    /// # Panics
    /// If the promise is broken, or if the backend does not meet the needs of the case.
    pub async fn run(&self, harness: Arc<dyn Harness>) {
        let unmet = self.unmet(&*harness).await;
        assert!(
            unmet.is_empty(),
            "{} needs {}, which this backend does not have: list it as ignored",
            self.name,
            unmet.join(", ")
        );
        (self.run)(harness).await;
    }
}

/// Returns all cases, in the order of the promises.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        c01_produce_order::CASES,
        c02_consume_order::CASES,
        c03_at_least_once::CASES,
        c03_odd_dead_letters::CASES,
        c03_refused_results::CASES,
        c04_contiguous_checkpoint::CASES,
        c05_clean_handover::CASES,
        c05_prompt_handover::CASES,
        c06_crash::CASES,
        c07_fencing::CASES,
        c08_back_pressure::CASES,
        c08_stuck_key::CASES,
        c09_independent_groups::CASES,
        c10_start::CASES,
        c10_at::CASES,
        c10_streams::CASES,
        c11_reshard::CASES,
        c12_close::CASES,
        c12_prompt_shutdown::CASES,
        c13_limits::CASES,
        c13_options::CASES,
        c14_round_trip::CASES,
        network::CASES,
        pipelines::CASES,
        operations::CASES,
        stored_progress::CASES,
        retention::CASES,
        deleted_streams::CASES,
        stream_ids::CASES,
    ]
    .into_iter()
    .flatten()
    .chain(driver_contract::all())
}

/// Returns the case called `name`.
///
/// # Panics
/// If there is none.
pub fn named(name: &str) -> &'static Case {
    let case = all().find(|case| case.name == name);
    case.unwrap_or_else(|| panic!("there is no case called {name}"))
}

/// Lists the cases of a module, each with its needs.
macro_rules! cases {
    ($($name:ident $([$($need:ident),+])?,)+) => {
        pub(super) const CASES: &[$crate::cases::Case] = &[$($crate::cases::Case {
            name: stringify!($name),
            needs: &[$($($crate::cases::$need),+)?],
            run: |harness| Box::pin($name(harness)),
        }),+];
    };
}
use cases;

const FAIL_SENDS: Need = Need::Has("fail_sends", |_, hooks| hooks.fail_sends);
const FAIL_SENDS_BY_KEY: Need = Need::Has("fail_sends_by_key", |_, hooks| hooks.fail_sends_by_key);
const TIME_OUT_SENDS: Need = Need::Has("time_out_sends", |_, hooks| hooks.time_out_sends);
const THROTTLE_SENDS: Need = Need::Has("throttle_sends", |_, hooks| hooks.throttle_sends);
const DELAY_SENDS: Need = Need::Has("delay_sends", |_, hooks| hooks.delay_sends);
const DELAY_JOIN: Need = Need::Has("delay_join", |_, hooks| hooks.delay_join);
const FREEZE: Need = Need::Has("freeze", |_, hooks| hooks.freeze);
const FAIL_CHECKPOINTS: Need = Need::Has("fail_checkpoints", |_, hooks| hooks.fail_checkpoints);
const LOSE_CHECKPOINTS: Need = Need::Has("lose_checkpoints", |_, hooks| hooks.lose_checkpoints);
const REFUSE_PUBLISH_LATE: Need =
    Need::Has("refuse_publish_late", |_, hooks| hooks.refuse_publish_late);
const LOSE_PUBLISH_RESPONSES: Need = Need::Has("lose_publish_responses", |_, hooks| {
    hooks.lose_publish_responses
});
const REFUSE_LARGE: Need = Need::Has("refuse_large", |_, hooks| hooks.refuse_large);
const STEAL: Need = Need::Has("steal", |_, hooks| hooks.steal);
const TRIM: Need = Need::Has("trim", |_, hooks| hooks.trim);
const RESTART: Need = Need::Has("restart", |_, hooks| hooks.restart);
const NETWORK: Need = Need::Has("network", |_, hooks| hooks.network);
const OWN_SESSION_CLOCK: Need = Need::Has("own_session_clock", |_, hooks| hooks.own_session_clock);
const RUNNING_CLOCK: Need = Need::Lacks("paused_clock", |_, hooks| hooks.paused_clock);
const DURABLE: Need = Need::Has("durable", |guarantees, _| guarantees.durable);
const RESHARD: Need = Need::Has("ordered_reshard", |guarantees, _| {
    guarantees.ordered_reshard
});
const NO_RESHARD: Need = Need::Lacks("ordered_reshard", |guarantees, _| {
    guarantees.ordered_reshard
});
const ADD_PARTITIONS: Need = Need::Has("add_partitions", |guarantees, _| guarantees.add_partitions);
const NO_ADD_PARTITIONS: Need =
    Need::Lacks("add_partitions", |guarantees, _| guarantees.add_partitions);
const EXACTLY_ONCE: Need = Need::Has("exactly_once", |guarantees, _| guarantees.exactly_once);
/// What programs may require.
const ALL_GUARANTEES: [Guarantee; 4] = [
    Guarantee::Durable,
    Guarantee::ExactlyOnce,
    Guarantee::OrderedReshard,
    Guarantee::KeyOrder,
];
const SOME_GUARANTEE: Need = Need::Has("a guarantee", |guarantees, _| {
    ALL_GUARANTEES.iter().any(|it| guarantees.has(*it))
});
const SOME_GUARANTEE_MISSING: Need = Need::Has("a guarantee to be missing", |guarantees, _| {
    !ALL_GUARANTEES.iter().all(|it| guarantees.has(*it))
});
