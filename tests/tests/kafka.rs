//! Runs each case of the suite on Apache Kafka, with classic groups and with KIP-848.
//!
//! The cases share a broker, which starts before the first of them and is removed after the last. Many cases
//! run concurrently, because they wait most of the time.

use std::process::ExitCode;

use conformance::kafka::{KafkaHarness, Options, Testbed};
use conformance::{BrokerScope, LazyBroker, Setup, Suite};
use millstream_kafka::Protocol;

const PROTOCOLS: [(&str, Protocol); 2] = [
    ("cooperative", Protocol::Cooperative),
    ("consumer", Protocol::Consumer),
];

async fn start() -> Testbed {
    Testbed::start(Options::new()).await
}

fn setup(name: &str, protocol: Protocol, shared: LazyBroker<Testbed>) -> Setup {
    let harness = move |scope: BrokerScope| {
        let shared = shared.clone();
        async move {
            match scope {
                BrokerScope::Shared => KafkaHarness::shared(shared.get(), protocol).await,
                BrokerScope::OneCase => KafkaHarness::alone(start().await, protocol).await,
            }
        }
    };
    let setup = match protocol {
        Protocol::Consumer => Setup::new(harness).ignore(
            "needs own_session_clock: librdkafka (2.12) has none for KIP-848",
            ["c07_member_that_is_cut_off_reports_the_loss_itself"],
        ),
        _ => Setup::new(harness),
    };
    setup
        .named(name)
        .ignore(
            "needs fail_sends_by_key: a batch has records of all keys of a partition",
            [
                "c01_order_under_partial_failure",
                "c01_other_keys_flow_while_one_is_held",
                "c12_flush_reports_failures_of_dropped_receipts",
            ],
        )
        .ignore(
            "needs throttle_sends: a broker delays responses over a quota",
            ["c01_order_under_throttling"],
        )
        .ignore(
            "not promised: needs ordered_reshard",
            [
                "c01_order_across_split_and_merge",
                "c02_order_under_reshard",
                "c11_split_under_load",
                "c11_merge_under_load",
                "c11_tree_of_splits",
                "c11_children_wait_for_their_parents",
                "c11_crash_between_parent_and_child",
                "c11_latest_group_reads_children_from_their_beginning",
                "c11_invalid_reshards_are_refused",
            ],
        )
        .ignore(
            "needs a backend without add_partitions",
            ["c11_adding_partitions_is_unsupported"],
        )
}

fn main() -> ExitCode {
    let shared = LazyBroker::new(start);
    let setups = PROTOCOLS.map(|(name, protocol)| setup(name, protocol, shared.clone()));
    // With more, they would wait for the CPU, and members would lose sessions that they must keep.
    Suite::new(setups).at_once(6).run()
}
