//! The core's building blocks for drivers are sufficient: a driver over a lease table that is built with them passes
//! the
//! suite.
//!
//! It runs in real time, because heartbeats come from a dedicated thread, which the paused clock of a
//! case's runtime does not affect.

mod driver;
mod table;

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use conformance::{Fault, FaultyBackend, Harness, Hooks, Setup, Suite, Timing, eventually};
use millstream_core::Client;
use millstream_core::driver::{SessionOptions, StreamLimits};

use driver::{LIMITS, LeaseBackend};
use table::Connection;

const SESSION: SessionOptions = SessionOptions {
    timeout: Duration::from_secs(2),
    heartbeat_interval: Duration::from_millis(50),
};

const ORDERED_RESHARD: &[&str] = &[
    "c01_order_across_split_and_merge",
    "c02_order_under_reshard",
    "c11_split_under_load",
    "c11_merge_under_load",
    "c11_tree_of_splits",
    "c11_children_wait_for_their_parents",
    "c11_crash_between_parent_and_child",
    "c11_latest_group_reads_children_from_their_beginning",
    "c11_invalid_reshards_are_refused",
];

const EXACTLY_ONCE: &[&str] = &[
    "c03_result_that_the_broker_refuses_is_skipped",
    "c03_result_that_the_broker_refuses_is_dead_lettered",
    "c03_result_that_the_broker_refuses_stops_the_consumer",
    "c08_stuck_key_stops_no_other_partition_of_an_exactly_once_pipeline",
    "pipeline_publishes_each_result_once_through_a_crash",
    "pipeline_publishes_each_result_once_through_many_crashes",
    "pipeline_publishes_each_result_once_through_a_rebalance",
    "pipeline_publishes_each_result_once_though_checkpoints_fail",
    "pipeline_survives_a_late_refusal",
    "pipeline_zombie_publishes_nothing",
    "pipeline_results_are_invisible_before_their_checkpoint",
    "pipeline_publishes_nothing_of_a_failed_transform",
    "pipeline_to_another_client_is_at_least_once",
    "c07_step_of_which_a_part_is_lost_is_retryable",
    "pipeline_step_whose_response_is_lost_is_stored_once",
];

/// The table of one case.
#[derive(Debug)]
struct LeaseTable {
    backend: LeaseBackend,
    faults: FaultyBackend<LeaseBackend>,
    names: AtomicUsize,
}

impl LeaseTable {
    fn new() -> Self {
        let backend = LeaseBackend {
            store: Connection::default(),
            session: SESSION,
        };
        Self {
            faults: FaultyBackend::new(backend.clone()),
            backend,
            names: AtomicUsize::new(0),
        }
    }
}

#[async_trait]
impl Harness for LeaseTable {
    async fn client(&self) -> Client {
        Client::new(self.faults.clone())
    }

    fn unique(&self, prefix: &str) -> String {
        format!("{prefix}-{}", self.names.fetch_add(1, Relaxed))
    }

    fn timing(&self) -> Timing {
        Timing {
            session: SESSION.timeout,
            handover: Duration::from_millis(700),
            timeout: Duration::from_secs(20),
            poll_interval: Duration::from_millis(10),
            timestamps: Duration::from_millis(1),
        }
    }

    fn limits(&self) -> StreamLimits {
        LIMITS
    }

    fn hooks(&self) -> Hooks {
        Hooks {
            freeze: true,
            steal: true,
            trim: true,
            ..FaultyBackend::<LeaseBackend>::HOOKS
        }
    }

    fn hits(&self, stream_or_group: &str) -> u64 {
        self.faults.hits(stream_or_group)
    }

    async fn inject(&self, fault: Fault) {
        match fault {
            Fault::Freeze {
                group,
                member,
                duration,
            } => {
                let until = Instant::now() + duration;
                self.backend
                    .store
                    .table()
                    .frozen
                    .insert((group, member), until);
            }
            Fault::Steal { group, partition } => {
                eventually(self.timing(), "somebody owns the partition", async || {
                    let mut table = self.backend.store.table();
                    let group = table.group("steal", &group).expect("the group exists");
                    group.steal(&partition).then_some(())
                })
                .await;
            }
            Fault::Trim { stream, .. } => {
                let mut table = self.backend.store.table();
                let stream = table.stream("trim", &stream);
                stream.expect("the stream exists").trim();
            }
            fault => self.faults.inject(fault).expect("it is one of its hooks"),
        }
    }
}

fn main() -> ExitCode {
    let setup = Setup::new(|_| async { LeaseTable::new() })
        .ignore(
            "not promised: needs durable",
            ["c06_broker_restart_keeps_records_and_progress"],
        )
        .ignore(
            "needs a backend without add_partitions",
            ["c11_adding_partitions_is_unsupported"],
        )
        .ignore(
            "needs network: it has no connections",
            [
                "c01_send_whose_response_is_lost_keeps_its_order",
                "c02_order_on_a_slow_network",
                "c03_cut_connections_lose_nothing",
                "c05_member_joins_and_leaves_though_responses_are_lost",
                "c06_checkpoint_whose_response_is_lost_is_repaired",
            ],
        )
        .ignore(
            "not promised: needs ordered_reshard",
            ORDERED_RESHARD.iter().copied(),
        )
        .ignore(
            "not promised: needs exactly_once",
            EXACTLY_ONCE.iter().copied(),
        );
    // The cases wait most of the time.
    Suite::new([setup]).at_once(8).run()
}
