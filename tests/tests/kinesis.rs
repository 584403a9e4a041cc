//! Runs each case of the suite on Kinesis: on two emulators, with and without aggregation, by polling and by
//! enhanced fan-out.
//!
//! The cases of one emulator share it and a DynamoDB Local. Both start before the first of these cases and are
//! removed after the last. Many cases run concurrently, because they wait most of the time.

use std::process::ExitCode;

use conformance::kinesis::{Emulator, Endpoint, KinesisHarness, Streams, Testbed, Variant};
use conformance::{BrokerScope, LazyBroker, Setup, Suite};
use millstream_kinesis::{Aggregation, Retrieval};

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

/// Fan-out and unary requests have connections of different kinds, and both are in use.
const AWS_LIKE: Variant = Variant {
    endpoint: Endpoint::AwsLike {
        streams: Streams::Few,
    },
    ..FAN_OUT
};

/// A testbed that is started when it is needed.
#[derive(Clone)]
struct Shared {
    emulator: Emulator,
    testbed: LazyBroker<Testbed>,
}

impl Shared {
    fn new(emulator: Emulator) -> Self {
        let start = move || async move { Testbed::start(emulator).await };
        Self {
            emulator,
            testbed: LazyBroker::new(start),
        }
    }

    async fn harness(self, scope: BrokerScope, variant: Variant) -> KinesisHarness {
        match (scope, self.emulator) {
            (BrokerScope::OneCase, Emulator::Ferrokinesis) => {
                let testbed = Testbed::persistent().await;
                KinesisHarness::alone(testbed, variant).await
            }
            // kinesis-mock cannot be restarted, so the case for that is ignored.
            (BrokerScope::OneCase | BrokerScope::Shared, _) => {
                KinesisHarness::shared(self.testbed.get(), variant).await
            }
        }
    }

    fn setup(&self, name: &str, variant: Variant) -> Setup {
        let shared = self.clone();
        Setup::new(move |scope| shared.clone().harness(scope, variant))
            .named(name)
            .ignore(
                "needs lose_checkpoints: DynamoDB acknowledges a write when it is stored",
                ["c06_lost_checkpoints_lose_nothing"],
            )
            .ignore(
                "needs a backend without ordered_reshard",
                ["c11_split_and_merge_are_unsupported"],
            )
            .ignore(
                "not promised: needs add_partitions",
                [
                    "c11_added_partitions_are_read_from_their_beginning",
                    "c11_invalid_additions_are_refused",
                ],
            )
            .ignore(
                "not promised: needs exactly_once",
                [
                    "pipeline_publishes_each_result_once_through_a_crash",
                    "pipeline_publishes_each_result_once_through_many_crashes",
                    "pipeline_publishes_each_result_once_through_a_rebalance",
                    "c03_result_that_the_broker_refuses_is_skipped",
                    "c03_result_that_the_broker_refuses_is_dead_lettered",
                    "c03_result_that_the_broker_refuses_stops_the_consumer",
                    "c08_stuck_key_stops_no_other_partition_of_an_exactly_once_pipeline",
                    "pipeline_publishes_each_result_once_though_checkpoints_fail",
                    "pipeline_survives_a_late_refusal",
                    "pipeline_zombie_publishes_nothing",
                    "pipeline_results_are_invisible_before_their_checkpoint",
                    "pipeline_publishes_nothing_of_a_failed_transform",
                    "pipeline_to_another_client_is_at_least_once",
                    "c07_step_of_which_a_part_is_lost_is_retryable",
                    "pipeline_step_whose_response_is_lost_is_stored_once",
                ],
            )
    }
}

fn main() -> ExitCode {
    let ferrokinesis = Shared::new(Emulator::Ferrokinesis);
    let kinesis_mock = Shared::new(Emulator::KinesisMock);
    let setups = [
        ferrokinesis.setup("ferrokinesis", RAW),
        kinesis_mock
            .setup("kinesis-mock", RAW)
            // With more, it responds too late for cases that measure time.
            .at_once(4)
            .ignore(
                "needs restart: the emulator has lost its data then",
                ["c06_broker_restart_keeps_records_and_progress"],
            )
            .ignore(
                "needs network: the other emulator shows what the driver does",
                [
                    "c01_send_whose_response_is_lost_keeps_its_order",
                    "c02_order_on_a_slow_network",
                    "c03_cut_connections_lose_nothing",
                    "c05_member_joins_and_leaves_though_responses_are_lost",
                    "c06_checkpoint_whose_response_is_lost_is_repaired",
                ],
            ),
        ferrokinesis.setup("kpl", KPL).ignore(
            "needs fail_sends_by_key: an aggregate has records of all keys of a partition",
            [
                "c01_order_under_partial_failure",
                "c01_other_keys_flow_while_one_is_held",
                "c12_flush_reports_failures_of_dropped_receipts",
            ],
        ),
        ferrokinesis.setup("fan-out", FAN_OUT),
        ferrokinesis.setup("aws-like", AWS_LIKE),
    ];
    Suite::new(setups).at_once(8).run()
}
