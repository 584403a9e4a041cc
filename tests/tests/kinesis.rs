//! Runs each case of the suite on Kinesis: on two emulators, with and without aggregation, by polling and by
//! enhanced fan-out.
//!
//! The cases of one emulator share it and a DynamoDB Local. Both start before the first of these cases and are
//! removed after the last. Many cases run at once, since they wait most of the time.

use std::process::ExitCode;
use std::sync::Arc;

use conformance::kinesis::{Emulator, KinesisHarness, Testbed, Variant};
use conformance::{Case, cases};
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use millstream_kinesis::{Aggregation, Retrieval};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OnceCell, Semaphore};

/// The number of cases that run at once, unless the command line sets it.
const AT_ONCE: usize = 8;

/// The number of them on kinesis-mock. With more it responds too late for cases that measure time.
const AT_ONCE_ON_KINESIS_MOCK: usize = 4;

/// Cases on a testbed that all share.
const SHARED: &[&str] = &[
    "c01_order_of_many_keys",
    "c01_order_under_partial_failure",
    "c01_order_when_every_send_fails_first",
    "c01_order_under_throttling",
    "c01_order_when_timed_out_sends_were_stored",
    "c01_order_of_clones_of_one_producer",
    "c01_order_across_split_and_merge",
    "c01_other_keys_flow_while_one_is_held",
    "c02_order_under_retry",
    "c02_one_key_never_overlaps",
    "c02_records_without_key_do_not_wait_for_each_other",
    "c02_order_under_rebalance",
    "c02_order_under_reshard",
    "c02_order_through_restart",
    "c02_order_through_a_crash",
    "c02_pull_consumer_delivers_a_key_one_at_a_time",
    "c02_batches_come_in_stored_order",
    "c03_error_then_success",
    "c03_panic_is_a_nack",
    "c03_panic_before_the_first_await_is_a_nack",
    "c03_dead_letter_has_the_record_and_the_reason",
    "c03_dead_letter_is_settled_by_its_receipt",
    "c03_skip_is_explicit",
    "c03_stop_returns_the_error_and_the_record_is_redelivered",
    "c03_dropped_delivery_is_a_nack",
    "c03_nack_takes_the_failure_path",
    "c03_batch_failure_settles_what_is_before_it",
    "c03_batch_failure_without_an_index_is_bisected",
    "c03_permanent_failure_is_not_retried",
    "c03_unavailable_uses_up_no_attempts",
    "c03_dead_letter_of_a_full_record",
    "c03_dead_letter_of_an_old_record",
    "c03_dead_letter_of_odd_header_names",
    "c03_dead_letter_of_odd_keys",
    "c04_acks_in_any_order",
    "c04_a_stuck_record_holds_the_checkpoint",
    "c04_slow_and_quick_keys",
    "c05_rolling_restart_repeats_nothing",
    "c05_next_owner_starts_at_once",
    "c05_close_settles_what_is_in_flight",
    "c05_a_joining_member_repeats_nothing",
    "c05_group_that_is_empty_for_a_while_goes_on",
    "c06_checkpoint_count_bounds_the_repeats",
    "c06_checkpoint_interval_bounds_the_repeats",
    "c06_takeover_is_within_the_session_timeout",
    "c06_crash_in_the_middle_of_a_handler",
    "c06_consumer_dropped_without_close_is_a_crash",
    "c06_refused_checkpoints_lose_nothing",
    "c07_zombie_is_fenced",
    "c07_zombie_cannot_move_the_checkpoint",
    "c07_zombie_with_a_running_handler_sees_the_loss",
    "c07_stolen_partition_is_lost_and_handled_by_another_member",
    "c07_ack_of_a_stolen_partition_settles_nothing",
    "c07_short_freeze_loses_no_partition",
    "c08_stuck_handler_keeps_its_membership_and_other_keys_flow",
    "c08_all_handlers_stuck_for_longer_than_the_session_timeout",
    "c08_window_bounds_unsettled_records",
    "c08_buffer_bytes_bound_the_memory",
    "c08_concurrency_bounds_the_handlers",
    "c08_full_producer_makes_send_wait",
    "c08_producer_bounds_bytes",
    "c08_stuck_key_stops_no_other_partition",
    "c08_stuck_key_stops_no_other_partition_in_batches",
    "c08_stuck_key_stops_no_other_partition_when_pulled",
    "c08_stuck_key_stops_no_other_partition_of_a_pipeline",
    "c09_two_groups_read_everything_each",
    "c09_stuck_group_does_not_hold_another",
    "c09_reset_of_one_group_does_not_move_another",
    "c10_earliest_reads_all",
    "c10_latest_reads_records_after_group_creation",
    "c10_latest_is_pinned_at_group_creation",
    "c10_at_a_time",
    "c10_at_a_time_after_the_end",
    "c10_start_applies_only_to_new_groups",
    "c11_split_under_load",
    "c11_merge_under_load",
    "c11_tree_of_splits",
    "c11_children_wait_for_their_parents",
    "c11_crash_between_parent_and_child",
    "c11_latest_group_reads_children_from_their_beginning",
    "c11_invalid_reshards_are_refused",
    "c11_adding_partitions_is_unsupported",
    "c12_close_flushes",
    "c12_close_twice",
    "c12_closed_producer_refuses",
    "c12_close_gives_up_at_its_deadline",
    "c12_producer_dropped_without_close_delivers",
    "c12_flush_reports_failures_of_dropped_receipts",
    "c12_failure_seen_by_a_receipt_is_not_reported_again",
    "c12_shutdown_twice",
    "c12_shutdown_by_handle",
    "c12_stuck_handler_is_cut_off_at_the_drain_deadline",
    "c12_closed_consumer_ends_without_error",
    "c12_close_waits_for_held_deliveries",
    "c13_record_too_large",
    "c13_key_too_long",
    "c13_empty_key_is_accepted_or_invalid",
    "c13_non_utf8_key_is_accepted_or_invalid",
    "c13_header_without_a_name",
    "c13_unknown_stream",
    "c13_unknown_dead_letter_stream",
    "c13_unknown_group",
    "c13_stream_deleted_while_read",
    "c13_stream_names_and_sizes",
    "c13_options_of_groups_out_of_bounds",
    "c13_options_of_producers_out_of_bounds",
    "c13_names_of_groups",
    "c13_missing_guarantee_is_unsupported",
    "c13_required_guarantee_is_met",
    "c14_keys",
    "c14_payloads",
    "c14_headers",
    "c14_null_headers",
    "c14_tombstones",
    "c14_tombstones_pass_through_pipelines",
    "c14_tombstones_can_be_dead_lettered",
    "c14_timestamps",
    "c14_received_records_can_be_sent_on",
    "pipeline_keeps_order_and_loses_nothing",
    "pipeline_publishes_before_it_checkpoints",
    "pipeline_survives_a_crash",
    "pipeline_filters_and_multiplies",
    "pipeline_stops_when_a_transform_keeps_failing",
    "operate_pause_and_resume",
    "operate_pause_of_one_partition",
    "operate_reset_while_members_run",
    "operate_reset_while_none_runs",
    "operate_reset_to_latest_skips",
    "operate_reset_to_a_time",
    "operate_lag",
    "operate_checkpoints",
    "operate_several_streams",
    "operate_data_loss_fails",
    "operate_data_loss_skips",
    "operate_stream_id_changes_when_a_stream_is_created_anew",
    "operate_stream_id_is_the_same_for_all_members",
];

/// On a testbed of their own, which they restart.
const ALONE: &[&str] = &["c06_broker_restart_keeps_records_and_progress"];

/// Not run, and why.
const IGNORED: &[(&str, &str)] = &[
    (
        "c06_lost_checkpoints_lose_nothing",
        "needs lose_checkpoints: DynamoDB acknowledges a write when it is stored",
    ),
    (
        "c11_split_and_merge_are_unsupported",
        "needs a backend without ordered_reshard",
    ),
    (
        "c11_added_partitions_are_read_from_their_beginning",
        "not promised: needs add_partitions",
    ),
    (
        "c11_invalid_additions_are_refused",
        "not promised: needs add_partitions",
    ),
    (
        "c13_missing_durability_is_unsupported",
        "needs a backend without durable",
    ),
    (
        "pipeline_publishes_each_result_once_through_a_crash",
        "not promised: needs exactly_once",
    ),
    (
        "pipeline_publishes_each_result_once_through_many_crashes",
        "not promised: needs exactly_once",
    ),
    (
        "pipeline_publishes_each_result_once_through_a_rebalance",
        "not promised: needs exactly_once",
    ),
    (
        "c03_result_that_the_broker_refuses_is_skipped",
        "not promised: needs exactly_once",
    ),
    (
        "c03_result_that_the_broker_refuses_is_dead_lettered",
        "not promised: needs exactly_once",
    ),
    (
        "c03_result_that_the_broker_refuses_stops_the_consumer",
        "not promised: needs exactly_once",
    ),
    (
        "c08_stuck_key_stops_no_other_partition_of_an_exactly_once_pipeline",
        "not promised: needs exactly_once",
    ),
    (
        "pipeline_publishes_each_result_once_though_checkpoints_fail",
        "not promised: needs exactly_once",
    ),
    (
        "pipeline_survives_a_late_refusal",
        "not promised: needs exactly_once",
    ),
    (
        "pipeline_zombie_publishes_nothing",
        "not promised: needs exactly_once",
    ),
    (
        "pipeline_results_are_invisible_before_their_checkpoint",
        "not promised: needs exactly_once",
    ),
    (
        "pipeline_publishes_nothing_of_a_failed_transform",
        "not promised: needs exactly_once",
    ),
    (
        "pipeline_to_another_client_is_at_least_once",
        "not promised: needs exactly_once",
    ),
];

/// A way to use an emulator.
struct Setup {
    name: &'static str,
    emulator: Emulator,
    variant: Variant,
    /// The cases that are not run in this way, and why.
    ignored: &'static [(&'static str, &'static str)],
}

const RAW: Variant = Variant {
    aggregation: Aggregation::Off,
    retrieval: Retrieval::Polling,
};

const SETUPS: &[Setup] = &[
    Setup {
        name: "ferrokinesis",
        emulator: Emulator::Ferrokinesis,
        variant: RAW,
        ignored: &[],
    },
    Setup {
        name: "kinesis-mock",
        emulator: Emulator::KinesisMock,
        variant: RAW,
        ignored: LOSES_ITS_DATA,
    },
    Setup {
        name: "kpl",
        emulator: Emulator::Ferrokinesis,
        variant: Variant {
            aggregation: Aggregation::Kpl,
            ..RAW
        },
        ignored: FAILS_AS_ONE,
    },
    Setup {
        name: "fan-out",
        emulator: Emulator::Ferrokinesis,
        variant: Variant {
            retrieval: Retrieval::FanOut,
            ..RAW
        },
        ignored: &[],
    },
];

const LOSES_ITS_DATA: &[(&str, &str)] = &[(
    "c06_broker_restart_keeps_records_and_progress",
    "needs restart: the emulator has lost its data then",
)];

const FAILS_AS_ONE: &[(&str, &str)] = &[
    (
        "c01_order_under_partial_failure",
        "needs fail_sends_by_key: an aggregate has records of all keys of a partition",
    ),
    (
        "c01_other_keys_flow_while_one_is_held",
        "needs fail_sends_by_key: an aggregate has records of all keys of a partition",
    ),
    (
        "c12_flush_reports_failures_of_dropped_receipts",
        "needs fail_sends_by_key: an aggregate has records of all keys of a partition",
    ),
];

impl Setup {
    /// Returns why a case is not run in this way, if so.
    fn ignores(&self, case: &str) -> Option<&'static str> {
        let mut ignored = IGNORED.iter().chain(self.ignored);
        ignored.find(|(name, _)| *name == case).map(|(_, why)| *why)
    }
}

/// The testbeds that cases share, and their runtime.
struct Shared {
    runtime: Runtime,
    ferrokinesis: OnceCell<Arc<Testbed>>,
    kinesis_mock: OnceCell<Arc<Testbed>>,
    kinesis_mock_slots: Semaphore,
}

impl Shared {
    /// Started by the first case that wants it: listing the cases needs no testbed.
    fn testbed(&self, emulator: Emulator) -> Arc<Testbed> {
        let testbed = match emulator {
            Emulator::Ferrokinesis => &self.ferrokinesis,
            Emulator::KinesisMock => &self.kinesis_mock,
        };
        let start = async || Arc::new(Testbed::start(emulator).await.expect("a testbed"));
        self.runtime.block_on(testbed.get_or_init(start)).clone()
    }
}

/// Creates a multi-threaded runtime, as in an application, but a small one: many run at once.
fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    runtime.expect("a runtime")
}

fn run_shared(case: &'static Case, setup: &'static Setup, shared: &Shared) -> Result<(), Failed> {
    let testbed = shared.testbed(setup.emulator);
    runtime().block_on(async move {
        let _slot = match setup.emulator {
            Emulator::Ferrokinesis => None,
            Emulator::KinesisMock => Some(shared.kinesis_mock_slots.acquire().await?),
        };
        let harness = KinesisHarness::shared(testbed, setup.variant).await;
        case.run(Arc::new(harness)).await;
        Ok(())
    })
}

fn run_alone(case: &'static Case, setup: &'static Setup) -> Result<(), Failed> {
    runtime().block_on(async move {
        let testbed = Testbed::persistent().await.expect("a testbed");
        let harness = KinesisHarness::alone(testbed, setup.variant).await;
        case.run(Arc::new(harness)).await;
    });
    Ok(())
}

/// Every case of the suite is listed, once, where it belongs.
fn every_case_is_a_test(shared: &Shared) -> Result<(), Failed> {
    for setup in SETUPS {
        let testbed = shared.testbed(setup.emulator);
        runtime().block_on(async move {
            let harness = KinesisHarness::shared(testbed, setup.variant).await;
            for case in cases::all() {
                let alone = ALONE.contains(&case.name);
                let nowhere = IGNORED.iter().any(|(name, _)| *name == case.name);
                let lists = [SHARED.contains(&case.name), alone, nowhere];
                let listed = lists.iter().filter(|listed| **listed).count();
                assert_eq!(listed, 1, "{} must stand in one list", case.name);
                let mut unmet = case.unmet(&harness).await;
                let lasting = alone && setup.emulator == Emulator::Ferrokinesis;
                unmet.retain(|need| !(lasting && need == "restart"));
                assert_eq!(
                    setup.ignores(case.name).is_some(),
                    !unmet.is_empty(),
                    "{}::{} is ignored if, and only if, its needs are not met: {unmet:?}",
                    setup.name,
                    case.name
                );
            }
        });
    }
    let listed = SHARED.len() + ALONE.len() + IGNORED.len();
    let all = cases::all().count();
    assert_eq!(
        listed, all,
        "a list names a case twice, or one that is not there"
    );
    Ok(())
}

fn trials(shared: &Arc<Shared>) -> Vec<Trial> {
    let mut trials = Vec::new();
    // The setups alternate, so that few cases wait for a slot of kinesis-mock.
    for case in cases::all() {
        for setup in SETUPS {
            let shared = shared.clone();
            let run = move || match ALONE.contains(&case.name) {
                true => run_alone(case, setup),
                false => run_shared(case, setup, &shared),
            };
            let trial = Trial::test(format!("{}::{}", setup.name, case.name), run);
            trials.push(match setup.ignores(case.name) {
                Some(why) => trial.with_ignored_flag(true).with_kind(why),
                None => trial,
            });
        }
    }
    let shared = shared.clone();
    let check = move || every_case_is_a_test(&shared);
    trials.push(Trial::test("every_case_is_a_test", check));
    trials
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let shared = Arc::new(Shared {
        runtime: runtime(),
        ferrokinesis: OnceCell::new(),
        kinesis_mock: OnceCell::new(),
        kinesis_mock_slots: Semaphore::new(AT_ONCE_ON_KINESIS_MOCK),
    });
    let conclusion: Conclusion = libtest_mimic::run(&arguments, trials(&shared));
    let shared = Arc::into_inner(shared).expect("no case runs any more");
    // The containers are removed by the runtime that made them.
    shared
        .runtime
        .block_on(async { drop((shared.ferrokinesis, shared.kinesis_mock)) });
    conclusion.exit_code()
}
