//! Faults that only Kinesis and DynamoDB have: one of the two is unreachable, the table is throttled, a lease
//! is deleted, responses are lost, subscriptions break. Members and producers run behind a proxy that injects
//! these faults, and the checker looks for lost and repeated records. Each case proves that its fault took
//! effect.
//!
//! All cases share one ferrokinesis and one DynamoDB Local.

mod connections;
mod cut_off;
mod deleted;
mod fixture;
mod foreign;
mod lost_answers;
mod poison;
mod quiet;
mod storm;
mod subscriptions;
mod throttled;

use std::process::ExitCode;
use std::sync::Arc;

use conformance::kinesis::{Emulator, KinesisHarness, Testbed, Variant};
use fixture::Fixture;
use futures_util::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Trial};
use millstream_kinesis::{Aggregation, Retrieval};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::OnceCell;

/// The number of cases that run concurrently, unless set on the command line.
const AT_ONCE: usize = 4;

const RAW: Variant = Variant {
    aggregation: Aggregation::Off,
    retrieval: Retrieval::Polling,
};

const KPL: Variant = Variant {
    aggregation: Aggregation::Kpl,
    ..RAW
};

const FAN_OUT: Variant = Variant {
    retrieval: Retrieval::FanOut,
    ..RAW
};

type Case = fn(Fixture) -> LocalBoxFuture<'static, ()>;

#[rustfmt::skip]
const CASES: &[(&str, Variant, Case)] = &[
    ("cut_off_from_dynamodb", RAW, |g| Box::pin(cut_off::from_dynamodb(g))),
    ("cut_off_from_kinesis", RAW, |g| Box::pin(cut_off::from_kinesis(g))),
    ("cut_off_from_kinesis_in_fan_out", FAN_OUT, |g| Box::pin(cut_off::from_kinesis(g))),
    ("table_throttled_for_less_than_a_session", RAW, |g| Box::pin(throttled::shortly(g))),
    ("table_throttled_for_longer_than_a_session", RAW, |g| Box::pin(throttled::long(g))),
    ("lease_deleted_under_its_owner", RAW, |g| Box::pin(deleted::under_its_owner(g))),
    ("poisonous_aggregates_stop_nobody", RAW, |g| Box::pin(poison::stops_nobody(g))),
    ("poisonous_aggregates_stop_nobody_in_fan_out", FAN_OUT, |g| Box::pin(poison::stops_nobody(g))),
    ("foreign_aggregates", RAW, |g| Box::pin(foreign::aggregates_are_delivered_whole(g))),
    ("quiet_partition_is_no_gap", RAW, |g| Box::pin(quiet::is_no_gap(g))),
    ("quiet_partition_is_no_gap_aggregated", KPL, |g| Box::pin(quiet::is_no_gap(g))),
    ("quiet_partition_is_no_gap_in_fan_out", FAN_OUT, |g| Box::pin(quiet::is_no_gap(g))),
    ("answers_to_checkpoints_lost", RAW, |g| Box::pin(lost_answers::to_checkpoints(g))),
    ("storm_of_members_and_reshards", RAW, |g| Box::pin(storm::blows(g))),
    ("storm_of_members_and_reshards_aggregated", KPL, |g| Box::pin(storm::blows(g))),
    ("connections_of_all_fail", RAW, |g| Box::pin(connections::of_all(g))),
    ("connections_of_all_fail_aggregated", KPL, |g| Box::pin(connections::of_all(g))),
    ("connections_of_all_fail_in_fan_out", FAN_OUT, |g| Box::pin(connections::of_all(g))),
    ("subscriptions_break_off", FAN_OUT, |g| Box::pin(subscriptions::break_off(g))),
];

struct Shared {
    runtime: Runtime,
    testbed: OnceCell<Arc<Testbed>>,
}

impl Shared {
    /// Started by the first case that needs it: listing the cases needs no testbed.
    fn testbed(&self) -> Arc<Testbed> {
        let start = async || Arc::new(Testbed::start(Emulator::Ferrokinesis).await);
        self.runtime
            .block_on(self.testbed.get_or_init(start))
            .clone()
    }
}

/// Creates a runtime like an application's, but small: there are many at once.
fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    runtime.expect("a runtime")
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let shared = Arc::new(Shared {
        runtime: runtime(),
        testbed: OnceCell::new(),
    });
    let trials = CASES.iter().map(|(name, variant, case)| {
        let shared = shared.clone();
        Trial::test(*name, move || {
            let testbed = shared.testbed();
            runtime().block_on(async {
                let harness = KinesisHarness::shared(testbed, *variant).await;
                case(Fixture::new(harness).await).await;
            });
            Ok(())
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let shared = Arc::into_inner(shared).expect("no case runs any more");
    // The containers are removed by the runtime that created them.
    shared.runtime.block_on(async { drop(shared.testbed) });
    conclusion.exit_code()
}
