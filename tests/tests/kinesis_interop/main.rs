//! Members on Amazon's Kinesis Client Library for Java (versions 2 and 3, in containers) share groups with millstream
//! members, on emulators of Kinesis and DynamoDB. Both sides read records of the Kinesis Producer Library, and of
//! millstream's producer.
//!
//! This program starts itself again for each millstream member, so that it can be killed and stopped like a Java
//! member.

mod aggregate;
mod background_load;
mod balance;
mod checks;
mod crash;
mod election;
mod fixture;
mod leases;
mod log;
mod member;
mod process;
mod producers;
mod program;
mod reshard;
mod rolling;

use std::process::ExitCode;
use std::sync::Arc;

use conformance::kinesis::java::Library;
use conformance::kinesis::{Emulator, Testbed};
use fixture::Fixture;
use futures_util::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Trial};
use member::Side;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::OnceCell;

/// The number of cases that run concurrently, unless set on the command line. Each has several processes, which
/// wait for each other most of the time.
const AT_ONCE: usize = 3;

const LIBRARIES: [(&str, Library); 2] = [("kcl2", Library::Kcl2), ("kcl3", Library::Kcl3)];

type Run = fn(Fixture) -> LocalBoxFuture<'static, ()>;

struct Case {
    name: &'static str,
    shards: usize,
    run: Run,
}

const fn case(name: &'static str, shards: usize, run: Run) -> Case {
    Case { name, shards, run }
}

/// Cases that run with both versions of the library.
#[rustfmt::skip]
const CASES: &[Case] = &[
    case("leases_are_shared_evenly", 6, |g| Box::pin(balance::evenly(g))),
    case("java_is_killed", 4, |g| Box::pin(crash::kill(g, Side::Java))),
    case("ours_is_killed", 4, |g| Box::pin(crash::kill(g, Side::Rust))),
    case("java_dies_inside_an_aggregate", 1, |g| Box::pin(aggregate::inside(g, Side::Java))),
    case("ours_dies_inside_an_aggregate", 1, |g| Box::pin(aggregate::inside(g, Side::Rust))),
    case("java_reads_a_parent_and_ours_the_children", 2, |g| Box::pin(reshard::generations(g, Side::Java))),
    case("ours_reads_a_parent_and_java_the_children", 2, |g| Box::pin(reshard::generations(g, Side::Rust))),
    case("shards_split_and_merge_under_both", 4, |g| Box::pin(reshard::under_both(g))),
    case("a_fleet_moves_from_java_to_ours", 4, |g| Box::pin(rolling::replace(g, Side::Java))),
    case("a_fleet_moves_from_ours_to_java", 4, |g| Box::pin(rolling::replace(g, Side::Rust))),
    case("java_is_elected_and_heals_a_hole", 4, |g| Box::pin(election::hole(g, Side::Java))),
    case("ours_is_elected_and_heals_a_hole", 4, |g| Box::pin(election::hole(g, Side::Rust))),
    case("both_read_what_ours_sends", 2, |g| Box::pin(producers::ours(g))),
];

/// Cases that run with version 3 in its second phase, in which the table contains more than leases.
const SECOND_PHASE: Case = case("second_phase_goes_on_beside_ours", 4, |g| {
    Box::pin(balance::second_phase(g))
});

/// Cases that run on an emulator with TLS.
const TLS: Case = case("both_read_what_javas_producer_sends", 2, |g| {
    Box::pin(producers::javas(g))
});

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    runtime.expect("a runtime")
}

/// The emulators, each started by the first case that needs it. Their clients' connections belong to one runtime,
/// so all cases run on it.
struct Testbeds {
    runtime: Runtime,
    ferrokinesis: OnceCell<Arc<Testbed>>,
    kinesis_mock: OnceCell<Arc<Testbed>>,
}

impl Testbeds {
    async fn testbed(&self, emulator: Emulator) -> Arc<Testbed> {
        let testbed = match emulator {
            Emulator::Ferrokinesis => &self.ferrokinesis,
            Emulator::KinesisMock => &self.kinesis_mock,
        };
        let start = || async { Arc::new(Testbed::start(emulator).await) };
        testbed.get_or_init(start).await.clone()
    }
}

fn trial(
    testbeds: &Arc<Testbeds>,
    emulator: Emulator,
    version: (&str, Library),
    case: &Case,
) -> Trial {
    let (testbeds, (prefix, library)) = (testbeds.clone(), version);
    let (shards, run) = (case.shards, case.run);
    Trial::test(format!("{prefix}::{}", case.name), move || {
        testbeds.runtime.block_on(async {
            let testbed = testbeds.testbed(emulator).await;
            run(Fixture::new(testbed, library, shards).await).await;
        });
        Ok(())
    })
}

fn main() -> ExitCode {
    if let Ok(member_config) = std::env::var(program::VARIABLE) {
        return program::run(&member_config);
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let testbeds = Arc::new(Testbeds {
        runtime: runtime(),
        ferrokinesis: OnceCell::new(),
        kinesis_mock: OnceCell::new(),
    });
    let checker = Trial::test("the_checker_finds_violations", || {
        checks::finds_violations();
        Ok(())
    });
    let mut trials = vec![checker];
    for version in LIBRARIES {
        for case in CASES {
            trials.push(trial(&testbeds, Emulator::Ferrokinesis, version, case));
        }
        trials.push(trial(&testbeds, Emulator::KinesisMock, version, &TLS));
    }
    let [_, third] = LIBRARIES;
    trials.push(trial(
        &testbeds,
        Emulator::Ferrokinesis,
        third,
        &SECOND_PHASE,
    ));
    let conclusion = libtest_mimic::run(&arguments, trials);
    let testbeds = Arc::into_inner(testbeds).expect("no case runs any more");
    // The containers are removed by the runtime that created them.
    testbeds
        .runtime
        .block_on(async { drop((testbeds.ferrokinesis, testbeds.kinesis_mock)) });
    conclusion.exit_code()
}
