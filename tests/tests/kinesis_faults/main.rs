//! Faults that only Kinesis and DynamoDB have: one of the two is unreachable, the table is throttled, a lease
//! is deleted, responses are lost, subscriptions break. Members and producers run behind a proxy that injects
//! these faults, and the checker looks for lost and repeated records. Each case proves that its fault took
//! effect.
//!
//! All cases share one ferrokinesis and one DynamoDB Local.

mod another_stream;
mod connections;
mod credentials;
mod cut_off;
mod deleted;
mod distribution;
mod fixture;
mod foreign;
mod https;
mod lost_answers;
mod manners;
mod memory;
mod poison;
mod quiet;
mod slow;
mod storm;
mod subscriptions;
mod throttled;

use std::process::ExitCode;
use std::sync::Arc;

use conformance::kinesis::{Emulator, Endpoint, KinesisHarness, Streams, Testbed, Variant};
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
    endpoint: Endpoint::Plain,
};

const KPL: Variant = Variant {
    aggregation: Aggregation::Kpl,
    ..RAW
};

const FAN_OUT: Variant = Variant {
    retrieval: Retrieval::FanOut,
    ..RAW
};

/// As AWS serves it.
const HTTPS: Variant = Variant {
    endpoint: Endpoint::AwsLike {
        streams: Streams::Few,
    },
    ..RAW
};

const HTTPS_FAN_OUT: Variant = Variant {
    endpoint: HTTPS.endpoint,
    ..FAN_OUT
};

const MANY_STREAMS: Variant = Variant {
    endpoint: Endpoint::AwsLike {
        streams: Streams::Many,
    },
    ..FAN_OUT
};

type Case = fn(Fixture) -> LocalBoxFuture<'static, ()>;

/// Each case, how the backend is set up, the partitions of its stream, and what it does.
#[rustfmt::skip]
const CASES: &[(&str, Variant, usize, Case)] = &[
    ("cut_off_from_dynamodb", RAW, 2, |g| Box::pin(cut_off::from_dynamodb(g))),
    ("cut_off_from_kinesis", RAW, 2, |g| Box::pin(cut_off::from_kinesis(g))),
    ("cut_off_from_kinesis_in_fan_out", FAN_OUT, 2, |g| Box::pin(cut_off::from_kinesis(g))),
    ("table_throttled_for_less_than_a_session", RAW, 2, |g| Box::pin(throttled::shortly(g))),
    ("table_throttled_for_longer_than_a_session", RAW, 2, |g| Box::pin(throttled::long(g))),
    ("lease_deleted_under_its_owner", RAW, 2, |g| Box::pin(deleted::under_its_owner(g))),
    ("leases_of_java_for_another_stream", RAW, 2, |g| Box::pin(another_stream::of_java_is_refused(g))),
    ("poisonous_aggregates_stop_nobody", RAW, 2, |g| Box::pin(poison::stops_nobody(g))),
    ("poisonous_aggregates_stop_nobody_in_fan_out", FAN_OUT, 2, |g| Box::pin(poison::stops_nobody(g))),
    ("foreign_aggregates", RAW, 2, |g| Box::pin(foreign::aggregates_are_delivered_whole(g))),
    ("records_left_out_of_foreign_aggregates", RAW, 2, |g| Box::pin(foreign::records_left_out_are_counted(g))),
    ("stream_that_distributes_records_loses_nothing", RAW, 2, |g| Box::pin(distribution::loses_nothing(g))),
    ("stream_that_distributes_records_loses_nothing_in_fan_out", FAN_OUT, 2, |g| Box::pin(distribution::loses_nothing(g))),
    ("stream_that_distributes_records_keeps_no_key_order", RAW, 2, |g| Box::pin(distribution::keeps_no_key_order(g))),
    ("stream_that_distributes_records_takes_no_aggregates", KPL, 2, |g| Box::pin(distribution::takes_no_aggregates(g))),
    ("quiet_partition_is_no_gap", RAW, 2, |g| Box::pin(quiet::is_no_gap(g))),
    ("quiet_partition_is_no_gap_aggregated", KPL, 2, |g| Box::pin(quiet::is_no_gap(g))),
    ("quiet_partition_is_no_gap_in_fan_out", FAN_OUT, 2, |g| Box::pin(quiet::is_no_gap(g))),
    ("answers_to_checkpoints_lost", RAW, 2, |g| Box::pin(lost_answers::to_checkpoints(g))),
    ("storm_of_members_and_reshards", RAW, 2, |g| Box::pin(storm::blows(g))),
    ("storm_of_members_and_reshards_aggregated", KPL, 2, |g| Box::pin(storm::blows(g))),
    ("connections_of_all_fail", RAW, 2, |g| Box::pin(connections::of_all(g))),
    ("connections_of_all_fail_aggregated", KPL, 2, |g| Box::pin(connections::of_all(g))),
    ("connections_of_all_fail_in_fan_out", FAN_OUT, 2, |g| Box::pin(connections::of_all(g))),
    ("fan_out_reads_more_shards_than_streams", HTTPS_FAN_OUT, 8, |g| Box::pin(https::reads_more_shards_than_streams(g))),
    ("fan_out_reads_fewer_shards_than_streams", MANY_STREAMS, 8, |g| Box::pin(https::reads_fewer_shards_than_streams(g))),
    ("fan_out_reads_many_shards_for_long", HTTPS_FAN_OUT, 64, |g| Box::pin(https::reads_many_shards_for_long(g))),
    ("paused_partitions_stop_no_other", HTTPS_FAN_OUT, 4, |g| Box::pin(https::paused_partitions_stop_no_other(g))),
    ("paused_partitions_stop_no_other_over_many_streams", MANY_STREAMS, 4, |g| Box::pin(https::paused_partitions_stop_no_other_over_many_streams(g))),
    ("dead_connections_are_left", HTTPS, 2, |g| Box::pin(https::dead_connections_are_left(g))),
    ("dead_connections_are_left_in_fan_out", HTTPS_FAN_OUT, 2, |g| Box::pin(https::dead_connections_are_left(g))),
    ("mute_subscriptions_are_made_again", HTTPS_FAN_OUT, 2, |g| Box::pin(https::mute_subscriptions_are_made_again(g))),
    ("expired_credentials_end_nothing", HTTPS, 2, |g| Box::pin(credentials::that_expire_end_nothing(g))),
    ("expired_credentials_end_nothing_in_fan_out", HTTPS_FAN_OUT, 2, |g| Box::pin(credentials::that_expire_end_nothing(g))),
    ("slow_responses_arrive", HTTPS, 2, |g| Box::pin(slow::responses_arrive(g))),
    ("slow_requests_arrive", HTTPS, 2, |g| Box::pin(slow::requests_arrive(g))),
    ("idle_groups_leave_room", RAW, 1, |g| Box::pin(manners::leave_room(g))),
    ("many_shards_with_a_backlog_fit_into_memory", RAW, memory::SHARDS, |g| Box::pin(memory::is_bounded(g))),
    ("subscriptions_break_off", FAN_OUT, 2, |g| Box::pin(subscriptions::break_off(g))),
];

/// Cases that take minutes, and run only when they are requested.
const LONG: [&str; 1] = ["fan_out_reads_many_shards_for_long"];

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
    if let Ok(options) = std::env::var(memory::VARIABLE) {
        return memory::run(&options);
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let shared = Arc::new(Shared {
        runtime: runtime(),
        testbed: OnceCell::new(),
    });
    let trials = CASES.iter().map(|(name, variant, partitions, case)| {
        let shared = shared.clone();
        Trial::test(*name, move || {
            let testbed = shared.testbed();
            runtime().block_on(async {
                let harness = KinesisHarness::shared(testbed, *variant).await;
                case(Fixture::new(harness, *partitions).await).await;
            });
            Ok(())
        })
        .with_ignored_flag(LONG.contains(name))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let shared = Arc::into_inner(shared).expect("no case runs any more");
    // The containers are removed by the runtime that created them.
    shared.runtime.block_on(async { drop(shared.testbed) });
    conclusion.exit_code()
}
