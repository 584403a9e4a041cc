//! The wall clock of a process with members and producers jumps by hours in both directions, as after an NTP
//! correction or a resume from suspend. Start times and ages depend on the wall clock. Leases depend on the
//! monotonic clock, which never jumps.
//!
//! The program runs itself again with a clock that can be set. Cases run one at a time, because they share it.

mod clock;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use conformance::checker::Rules;
use conformance::fleet::{Fleet, Member};
use conformance::kinesis::{Emulator, Endpoint, KinesisHarness, Testbed, Variant};
use libtest_mimic::{Arguments, Trial};
use millstream_kinesis::{Aggregation, Retrieval};
use tokio::runtime::{Builder, Runtime};

const HOUR: i64 = 3_600;

const CASES: [(&str, Variant); 3] = [
    (
        "clock_jumps",
        Variant {
            aggregation: Aggregation::Off,
            retrieval: Retrieval::Polling,
            endpoint: Endpoint::Plain,
        },
    ),
    (
        "clock_jumps_aggregated",
        Variant {
            aggregation: Aggregation::Kpl,
            retrieval: Retrieval::Polling,
            endpoint: Endpoint::Plain,
        },
    ),
    (
        "clock_jumps_in_fan_out",
        Variant {
            aggregation: Aggregation::Off,
            retrieval: Retrieval::FanOut,
            endpoint: Endpoint::Plain,
        },
    ),
];

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    runtime.expect("a runtime")
}

fn main() -> ExitCode {
    let Some(clock) = Clock::of_this_process() else {
        return clock::start();
    };
    let clock = Arc::new(clock);
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let trials = CASES.iter().map(|(name, variant)| {
        let clock = clock.clone();
        Trial::test(*name, move || {
            runtime().block_on(async {
                let testbed = Testbed::start(Emulator::Ferrokinesis).await;
                let harness = KinesisHarness::shared(Arc::new(testbed), *variant).await;
                jumps(Arc::new(harness), &clock).await;
                Ok(())
            })
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

async fn jumps(harness: Arc<KinesisHarness>, clock: &Clock) {
    let fleet = Fleet::new(harness, 2).await;
    let load = fleet
        .test_producer()
        .await
        .send_in_background(12, Duration::from_millis(8));
    let (a, b) = (
        fleet.member("a").start().await,
        fleet.member("b").start().await,
    );
    let shared = |one: &Member, other: &Member| one.owns() == 1 && other.owns() == 1;
    fleet
        .until("each has one partition", || shared(&a, &b))
        .await;
    handles(&fleet, 100).await;

    let handovers = || fleet.verdict(Rules::default()).summary.handovers;
    let before = handovers();
    for ahead in [HOUR, -HOUR, 26 * HOUR, -26 * HOUR] {
        clock.set(ahead);
        handles(&fleet, 200).await;
    }
    assert_eq!(handovers(), before, "a lease was lost");

    // A new member uses times that were stored by another clock.
    b.close().await;
    clock.set(HOUR);
    let c = fleet.member("c").start().await;
    fleet
        .until("each has one partition", || shared(&a, &c))
        .await;
    handles(&fleet, 100).await;
    a.close().await;
    fleet
        .until("the other one has both", || c.owns() == 2)
        .await;
    clock.set(0);
    handles(&fleet, 100).await;

    load.stop().await;
    let summary = fleet.check().await;
    fleet.caught_up().await;
    assert_eq!((summary.lost, summary.duplicates), (0, 0), "{summary:?}");
    assert_eq!(c.handle().stats().data_losses, 0);
    c.close().await;
}

/// Waits until the group has handled this many more records.
async fn handles(fleet: &Fleet, more: usize) {
    let goal = fleet.acked() + more;
    fleet
        .until("records are handled", || fleet.acked() >= goal)
        .await;
}
