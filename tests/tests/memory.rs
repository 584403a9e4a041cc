//! The memory backend keeps every promise: each case of the suite by its name.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use conformance::{Fault, FaultyBackend, Harness, Hooks, Timing, cases};
use millstream_core::{Client, driver};
use millstream_memory::{Config, Memory, Target};

/// A broker of this test alone.
#[derive(Debug)]
struct Broker {
    config: Config,
    /// None while it is down.
    driver: Mutex<Option<FaultyBackend<Memory>>>,
    memory: Mutex<Option<Memory>>,
    names: AtomicUsize,
    /// What outlives the broker, where something does.
    folder: Option<tempfile::TempDir>,
}

/// Records live so long, which is longer than any case but for those that wait for it.
const RETENTION: Duration = Duration::from_secs(600);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this")
}

impl Broker {
    fn open(folder: Option<tempfile::TempDir>) -> Arc<dyn Harness> {
        let mut config = Config::default();
        config.start_time = Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        config.retention.age = Some(RETENTION);
        config.persist = folder.as_ref().map(|folder| folder.path().to_owned());
        let memory = Memory::new(config.clone()).expect("the settings are right");
        Arc::new(Self {
            config,
            driver: Mutex::new(Some(FaultyBackend::new(memory.clone()))),
            memory: Mutex::new(Some(memory)),
            names: AtomicUsize::new(0),
            folder,
        })
    }

    fn volatile() -> Arc<dyn Harness> {
        Self::open(None)
    }

    fn persistent() -> Arc<dyn Harness> {
        Self::open(Some(tempfile::tempdir().expect("a folder")))
    }

    fn memory(&self) -> Memory {
        lock(&self.memory).clone().expect("the broker is up")
    }

    fn driver(&self) -> FaultyBackend<Memory> {
        lock(&self.driver).clone().expect("the broker is up")
    }

    async fn restart(&self) {
        drop(lock(&self.driver).take());
        drop(lock(&self.memory).take());
        // The folder is free when the last task that holds a client has ended.
        let memory = loop {
            match Memory::new(self.config.clone()) {
                Ok(memory) => break memory,
                Err(error) if error.is_retryable() => {
                    tokio::time::sleep(self.timing().poll_interval).await
                }
                Err(error) => panic!("{error:?}"),
            }
        };
        *lock(&self.driver) = Some(FaultyBackend::new(memory.clone()));
        *lock(&self.memory) = Some(memory);
    }
}

#[async_trait]
impl Harness for Broker {
    async fn client(&self) -> Client {
        Client::new(self.driver())
    }

    fn unique(&self, prefix: &str) -> String {
        format!("{prefix}-{}", self.names.fetch_add(1, Relaxed))
    }

    fn timing(&self) -> Timing {
        Timing {
            session: self.config.session_timeout,
            handover: Duration::from_millis(500),
            timeout: Duration::from_secs(120),
            poll_interval: Duration::from_millis(10),
            timestamps: Duration::from_millis(1),
        }
    }

    fn limits(&self) -> driver::StreamLimits {
        driver::StreamLimits {
            record_bytes: self.config.limits.record_bytes.unwrap_or(1 << 20),
            key_bytes: self.config.limits.key_bytes.unwrap_or(256),
            empty_key: true,
            text_key: false,
            batch_records: usize::MAX,
            batch_bytes: usize::MAX,
        }
    }

    fn hooks(&self) -> Hooks {
        Hooks {
            freeze: true,
            steal: true,
            trim: true,
            restart: self.folder.is_some(),
            ..FaultyBackend::<Memory>::HOOKS
        }
    }

    fn hits(&self, stream_or_group: &str) -> u64 {
        self.driver().hits(stream_or_group)
    }

    async fn inject(&self, fault: Fault) {
        let faults = self.memory().faults();
        match fault {
            Fault::Freeze {
                member, duration, ..
            } => faults
                .pause(&Target::named(member), duration)
                .expect("there is such a member"),
            Fault::Steal { group, partition } => {
                faults.steal(&group, &partition).expect("somebody owns it")
            }
            // What is stored now is then older than that.
            Fault::Trim { .. } => tokio::time::sleep(RETENTION + Duration::from_secs(1)).await,
            Fault::Restart => {
                drop(faults);
                self.restart().await;
            }
            fault => self.driver().inject(fault).expect("it is one of its hooks"),
        }
    }
}

/// Makes a test of each case, and a list of their names.
macro_rules! run {
    ($names:ident, $broker:path: $($case:ident)+) => {
        const $names: &[&str] = &[$(stringify!($case)),+];
        $(
            #[tokio::test(start_paused = true)]
            async fn $case() {
                cases::named(stringify!($case)).run($broker()).await;
            }
        )+
    };
}

/// Shows each case as ignored, with the reason.
macro_rules! not_promised {
    ($names:ident: $($case:ident $reason:literal)+) => {
        const $names: &[&str] = &[$(stringify!($case)),+];
        $(
            #[tokio::test(start_paused = true)]
            #[ignore = $reason]
            async fn $case() {
                cases::named(stringify!($case)).run(Broker::volatile()).await;
            }
        )+
    };
}

run! { VOLATILE, Broker::volatile:
    c01_order_of_many_keys
    c01_order_under_partial_failure
    c01_order_when_every_send_fails_first
    c01_order_under_throttling
    c01_order_when_timed_out_sends_were_stored
    c01_order_of_clones_of_one_producer
    c01_order_across_split_and_merge
    c01_other_keys_flow_while_one_is_held
    c02_order_under_retry
    c02_one_key_never_overlaps
    c02_records_without_key_do_not_wait_for_each_other
    c02_order_under_rebalance
    c02_order_under_reshard
    c02_order_through_restart
    c02_order_through_a_crash
    c02_pull_consumer_delivers_a_key_one_at_a_time
    c02_batches_come_in_stored_order
    c03_error_then_success
    c03_panic_is_a_nack
    c03_panic_before_the_first_await_is_a_nack
    c03_dead_letter_has_the_record_and_the_reason
    c03_dead_letter_is_settled_by_its_receipt
    c03_skip_is_explicit
    c03_stop_returns_the_error_and_the_record_is_redelivered
    c03_dropped_delivery_is_a_nack
    c03_nack_takes_the_failure_path
    c03_batch_failure_settles_what_is_before_it
    c03_batch_failure_without_an_index_is_bisected
    c03_permanent_failure_is_not_retried
    c03_unavailable_uses_up_no_attempts
    c03_dead_letter_of_a_full_record
    c03_dead_letter_of_an_old_record
    c03_dead_letter_of_odd_header_names
    c03_dead_letter_of_odd_keys
    c03_result_that_the_broker_refuses_is_skipped
    c03_result_that_the_broker_refuses_is_dead_lettered
    c03_result_that_the_broker_refuses_stops_the_consumer
    c04_acks_in_any_order
    c04_a_stuck_record_holds_the_checkpoint
    c04_slow_and_quick_keys
    c05_rolling_restart_repeats_nothing
    c05_next_owner_starts_at_once
    c05_close_settles_what_is_in_flight
    c05_a_joining_member_repeats_nothing
    c05_group_that_is_empty_for_a_while_goes_on
    c06_checkpoint_count_bounds_the_repeats
    c06_checkpoint_interval_bounds_the_repeats
    c06_takeover_is_within_the_session_timeout
    c06_crash_in_the_middle_of_a_handler
    c06_consumer_dropped_without_close_is_a_crash
    c06_refused_checkpoints_lose_nothing
    c06_lost_checkpoints_lose_nothing
    c07_zombie_is_fenced
    c07_zombie_cannot_move_the_checkpoint
    c07_zombie_with_a_running_handler_sees_the_loss
    c07_stolen_partition_is_lost_and_handled_by_another_member
    c07_ack_of_a_stolen_partition_settles_nothing
    c07_short_freeze_loses_no_partition
    c08_stuck_handler_keeps_its_membership_and_other_keys_flow
    c08_all_handlers_stuck_for_longer_than_the_session_timeout
    c08_window_bounds_unsettled_records
    c08_buffer_bytes_bound_the_memory
    c08_concurrency_bounds_the_handlers
    c08_full_producer_makes_send_wait
    c08_producer_bounds_bytes
    c08_stuck_key_stops_no_other_partition
    c08_stuck_key_stops_no_other_partition_in_batches
    c08_stuck_key_stops_no_other_partition_when_pulled
    c08_stuck_key_stops_no_other_partition_of_a_pipeline
    c08_stuck_key_stops_no_other_partition_of_an_exactly_once_pipeline
    c09_two_groups_read_everything_each
    c09_stuck_group_does_not_hold_another
    c09_reset_of_one_group_does_not_move_another
    c10_earliest_reads_all
    c10_latest_reads_records_after_group_creation
    c10_latest_is_pinned_at_group_creation
    c10_at_a_time
    c10_at_a_time_after_the_end
    c10_start_applies_only_to_new_groups
    c11_split_under_load
    c11_merge_under_load
    c11_tree_of_splits
    c11_children_wait_for_their_parents
    c11_crash_between_parent_and_child
    c11_latest_group_reads_children_from_their_beginning
    c11_invalid_reshards_are_refused
    c11_added_partitions_are_read_from_their_beginning
    c11_invalid_additions_are_refused
    c12_close_flushes
    c12_close_twice
    c12_closed_producer_refuses
    c12_close_gives_up_at_its_deadline
    c12_producer_dropped_without_close_delivers
    c12_flush_reports_failures_of_dropped_receipts
    c12_failure_seen_by_a_receipt_is_not_reported_again
    c12_shutdown_twice
    c12_shutdown_by_handle
    c12_stuck_handler_is_cut_off_at_the_drain_deadline
    c12_closed_consumer_ends_without_error
    c12_close_waits_for_held_deliveries
    c13_record_too_large
    c13_key_too_long
    c13_empty_key_is_accepted_or_invalid
    c13_non_utf8_key_is_accepted_or_invalid
    c13_header_without_a_name
    c13_unknown_stream
    c13_unknown_dead_letter_stream
    c13_unknown_group
    c13_stream_deleted_while_read
    c13_stream_names_and_sizes
    c13_options_of_groups_out_of_bounds
    c13_options_of_producers_out_of_bounds
    c13_names_of_groups
    c13_missing_durability_is_unsupported
    c13_required_guarantee_is_met
    c14_keys
    c14_payloads
    c14_headers
    c14_null_headers
    c14_tombstones
    c14_tombstones_pass_through_pipelines
    c14_tombstones_can_be_dead_lettered
    c14_timestamps
    c14_received_records_can_be_sent_on
    pipeline_keeps_order_and_loses_nothing
    pipeline_publishes_before_it_checkpoints
    pipeline_survives_a_crash
    pipeline_publishes_each_result_once_through_a_crash
    pipeline_publishes_each_result_once_through_many_crashes
    pipeline_publishes_each_result_once_through_a_rebalance
    pipeline_publishes_each_result_once_though_checkpoints_fail
    pipeline_zombie_publishes_nothing
    pipeline_results_are_invisible_before_their_checkpoint
    pipeline_publishes_nothing_of_a_failed_transform
    pipeline_to_another_client_is_at_least_once
    pipeline_filters_and_multiplies
    pipeline_stops_when_a_transform_keeps_failing
    operate_pause_and_resume
    operate_pause_of_one_partition
    operate_reset_while_members_run
    operate_reset_while_none_runs
    operate_reset_to_latest_skips
    operate_reset_to_a_time
    operate_lag
    operate_checkpoints
    operate_several_streams
    operate_data_loss_fails
    operate_data_loss_skips
    operate_stream_id_changes_when_a_stream_is_created_anew
    operate_stream_id_is_the_same_for_all_members
}

run! { PERSISTENT, Broker::persistent:
    c06_broker_restart_keeps_records_and_progress
}

not_promised! { IGNORED:
    c13_missing_guarantee_is_unsupported "not promised: needs a backend without exactly_once"
    c11_split_and_merge_are_unsupported "not promised: needs a backend without ordered_reshard"
    c11_adding_partitions_is_unsupported "not promised: needs a backend without add_partitions"
    pipeline_survives_a_late_refusal "needs refuse_publish_late: it responds at once"
}

/// Every case of the suite is listed, once, where it belongs.
#[tokio::test(start_paused = true)]
async fn every_case_is_a_test() {
    let (volatile, persistent) = (Broker::volatile(), Broker::persistent());
    for case in cases::all() {
        let lists = [VOLATILE, PERSISTENT, IGNORED].map(|list| list.contains(&case.name));
        assert_eq!(
            lists.iter().filter(|listed| **listed).count(),
            1,
            "{} must stand in one list",
            case.name
        );
        let runs = [
            case.unmet(&*volatile).await.is_empty(),
            case.unmet(&*persistent).await.is_empty(),
        ];
        let ignored = lists[2];
        assert_eq!(
            ignored,
            runs == [false, false],
            "{} is ignored if, and only if, no broker here meets its needs",
            case.name
        );
    }
    let listed = [VOLATILE, PERSISTENT, IGNORED].concat().len();
    assert_eq!(
        listed,
        cases::all().count(),
        "a list names a case twice, or one that is not there"
    );
}
