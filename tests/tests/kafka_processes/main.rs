//! Members in separate processes: killed, stopped and asked to end by signals, as machines and
//! operators do, while their handlings are checked as one history.
//!
//! This program starts itself again for each member.

mod brokers;
mod fixture;
mod leaders;
mod member;
mod member_config;
mod members;
mod names;
mod pipeline;
mod process;
mod replicas;
mod width;

use std::process::ExitCode;
use std::sync::Arc;

use conformance::kafka::{Broker, Options};
use fixture::Fixture;
use futures_util::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Trial};
use millstream_kafka::Protocol;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::OnceCell;

/// The number of cases that run concurrently, unless set on the command line. Each has several processes.
const AT_ONCE: usize = 2;

const PROTOCOLS: [(&str, Protocol); 2] = [
    ("cooperative", Protocol::Cooperative),
    ("consumer", Protocol::Consumer),
];

type Case = fn(Arc<Fixture>) -> LocalBoxFuture<'static, ()>;

/// Cases on the shared broker.
const SHARED: &[(&str, Case)] = &[
    ("kill_of_one_of_three", |g| Box::pin(members::kill(g))),
    ("zombie_that_goes_on", |g| Box::pin(members::zombie(g))),
    ("rolling_restart", |g| Box::pin(members::rolling_restart(g))),
    ("pipeline_survives_fifty_kills", |g| {
        Box::pin(pipeline::kills(g))
    }),
    ("a_thousand_partitions", |g| Box::pin(width::thousand(g))),
];

type AloneCase = fn(Protocol) -> LocalBoxFuture<'static, ()>;

/// Cases on separate brokers, into which they inject faults.
const ALONE: &[(&str, AloneCase)] = &[
    ("broker_killed", |p| Box::pin(brokers::killed(p))),
    ("broker_paused", |p| Box::pin(brokers::paused(p))),
    ("leader_killed", |p| Box::pin(brokers::leader_killed(p))),
    ("names_that_stay", |p| Box::pin(names::names(p))),
    ("leader_cut_off", |p| Box::pin(brokers::leader_cut_off(p))),
];

type ReplicasCase = fn() -> LocalBoxFuture<'static, ()>;

/// Cases on separate clusters, for any protocol.
const REPLICAS: &[(&str, ReplicasCase)] = &[
    ("coordinator_killed", || {
        Box::pin(replicas::coordinator_killed())
    }),
    ("leader_that_freezes_or_is_gone", || {
        Box::pin(leaders::frozen_and_gone())
    }),
    (
        "unclean_election",
        || Box::pin(replicas::unclean_election()),
    ),
];

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build();
    runtime.expect("a runtime")
}

struct Shared {
    runtime: Runtime,
    broker: OnceCell<Broker>,
}

impl Shared {
    fn bootstrap(&self) -> String {
        let start = || Options::new().start();
        let broker = self.broker.get_or_init(start);
        self.runtime.block_on(broker).bootstrap()
    }
}

fn trials(shared: &Arc<Shared>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (kind, protocol) in PROTOCOLS {
        for (name, case) in SHARED {
            let shared = shared.clone();
            let run = move || {
                let fixture = Fixture::new(shared.bootstrap(), protocol);
                runtime().block_on(case(fixture));
                Ok(())
            };
            trials.push(Trial::test(format!("{kind}::{name}"), run));
        }
        for (name, case) in ALONE {
            let run = move || {
                runtime().block_on(case(protocol));
                Ok(())
            };
            trials.push(Trial::test(format!("{kind}::{name}"), run));
        }
    }
    for (name, case) in REPLICAS {
        let run = move || {
            runtime().block_on(case());
            Ok(())
        };
        trials.push(Trial::test(*name, run));
    }
    trials
}

fn main() -> ExitCode {
    if let Ok(member_config) = std::env::var(member_config::VARIABLE) {
        return member::run(&member_config);
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let shared = Arc::new(Shared {
        runtime: runtime(),
        broker: OnceCell::new(),
    });
    let conclusion = libtest_mimic::run(&arguments, trials(&shared));
    let shared = Arc::into_inner(shared).expect("no case runs any more");
    // The container is removed by the runtime that created it.
    shared.runtime.block_on(async { drop(shared.broker) });
    conclusion.exit_code()
}
