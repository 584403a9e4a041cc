//! Members on Amazon's own Java library and ours share groups: its versions 2 and 3 are the other side, in
//! containers, on emulators of Kinesis and DynamoDB. What is sent by its producer library is read by both,
//! and what ours sends by it.
//!
//! This program starts itself again for each member of ours, which is then killed and stopped as Java's are.

mod aggregate;
mod balance;
mod crash;
mod election;
mod flow;
mod ground;
mod judge;
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
use conformance::kinesis::{Emulator, Site};
use futures_util::future::LocalBoxFuture;
use ground::Ground;
use libtest_mimic::{Arguments, Trial};
use member::Side;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::OnceCell;

/// Cases that are run at once, unless the command line says otherwise. Each has several processes, which
/// wait for each other most of the time.
const AT_ONCE: usize = 3;

const LIBRARIES: [(&str, Library); 2] = [("kcl2", Library::Kcl2), ("kcl3", Library::Kcl3)];

type Run = fn(Ground) -> LocalBoxFuture<'static, ()>;

struct Case {
    name: &'static str,
    shards: usize,
    run: Run,
}

const fn case(name: &'static str, shards: usize, run: Run) -> Case {
    Case { name, shards, run }
}

/// With both versions of the library.
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

/// With the second phase of version 3, which keeps more in the table than leases.
const SECOND_PHASE: Case = case("second_phase_goes_on_beside_ours", 4, |g| {
    Box::pin(balance::second_phase(g))
});

/// On an emulator that speaks TLS.
const TLS: Case = case("both_read_what_javas_producer_sends", 2, |g| {
    Box::pin(producers::javas(g))
});

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    runtime.expect("a runtime")
}

/// The emulators, each started by the first case that takes place there. They have clients whose
/// connections are of one runtime, so that it is the one of all cases.
struct Sites {
    runtime: Runtime,
    ferrokinesis: OnceCell<Arc<Site>>,
    kinesis_mock: OnceCell<Arc<Site>>,
}

impl Sites {
    async fn site(&self, emulator: Emulator) -> Arc<Site> {
        let site = match emulator {
            Emulator::Ferrokinesis => &self.ferrokinesis,
            Emulator::KinesisMock => &self.kinesis_mock,
        };
        let start = || async { Arc::new(Site::start(emulator).await.expect("the site starts")) };
        site.get_or_init(start).await.clone()
    }
}

fn trial(sites: &Arc<Sites>, emulator: Emulator, version: (&str, Library), case: &Case) -> Trial {
    let (sites, (prefix, library)) = (sites.clone(), version);
    let (shards, run) = (case.shards, case.run);
    Trial::test(format!("{prefix}::{}", case.name), move || {
        sites.runtime.block_on(async {
            let site = sites.site(emulator).await;
            run(Ground::new(site, library, shards).await).await;
        });
        Ok(())
    })
}

fn main() -> ExitCode {
    if let Ok(orders) = std::env::var(program::VARIABLE) {
        return program::run(&orders);
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let sites = Arc::new(Sites {
        runtime: runtime(),
        ferrokinesis: OnceCell::new(),
        kinesis_mock: OnceCell::new(),
    });
    let judge = Trial::test("the_judge_finds_what_is_wrong", || {
        judge::finds_what_is_wrong();
        Ok(())
    });
    let mut trials = vec![judge];
    for version in LIBRARIES {
        for case in CASES {
            trials.push(trial(&sites, Emulator::Ferrokinesis, version, case));
        }
        trials.push(trial(&sites, Emulator::KinesisMock, version, &TLS));
    }
    let [_, third] = LIBRARIES;
    trials.push(trial(&sites, Emulator::Ferrokinesis, third, &SECOND_PHASE));
    let conclusion = libtest_mimic::run(&arguments, trials);
    let sites = Arc::into_inner(sites).expect("no case runs any more");
    // The containers are removed by the runtime that made them.
    sites
        .runtime
        .block_on(async { drop((sites.ferrokinesis, sites.kinesis_mock)) });
    conclusion.exit_code()
}
