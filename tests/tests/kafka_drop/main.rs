//! Situations in which librdkafka can wait forever: members, producers and clients that are dropped or closed during
//! a rebalance, with records still held, or after their broker is gone; clients that received an empty list of brokers,
//! or did not find their topic for a while. Also session losses during a drain, which librdkafka does not report, and
//! delays of librdkafka in a rebalance, during which partitions are not consumed.
//!
//! One case at a time, because each inspects the threads of this process: a client has ended when its
//! threads have.

mod brokerless;
mod deadline;
mod drain;
mod failed_fetch;
mod fixture;
mod held;
mod latency;
mod leaving;
mod loss;
mod pipeline;
mod rebalance_limit;
mod recreated;
mod silence;
mod stale;
mod stale_coordinator;
mod threads;

use std::process::ExitCode;
use std::sync::Arc;

use conformance::Events;
use conformance::kafka::Testbed;
use fixture::{Fixture, options, runtime};
use futures_util::future::LocalBoxFuture;
use libtest_mimic::{Arguments, Trial};
use millstream_kafka::Protocol;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

const PROTOCOLS: [(&str, Protocol); 2] = [
    ("cooperative", Protocol::Cooperative),
    ("consumer", Protocol::Consumer),
];

type Case = fn(Arc<Fixture>) -> LocalBoxFuture<'static, ()>;

/// Cases on the shared broker.
const SHARED: &[(&str, Case)] = &[
    ("dropped_in_a_drain", |g| Box::pin(leaving::dropped(g))),
    ("closed_in_a_drain", |g| Box::pin(leaving::closed(g))),
    ("runtime_dropped_in_a_drain", |g| {
        Box::pin(leaving::runtime_dropped(g))
    }),
    ("dropped_with_deliveries_held", |g| Box::pin(held::kept(g))),
    ("failed_fetch_is_no_progress", |g| {
        Box::pin(failed_fetch::is_no_progress(g))
    }),
    ("record_behind_a_failed_fetch_and_a_rebalance", |g| {
        Box::pin(failed_fetch::before_a_rebalance(g))
    }),
    ("stream_created_again_under_an_idle_member", |g| {
        Box::pin(recreated::under_an_idle_member(g))
    }),
    ("stream_created_again_under_a_paused_member", |g| {
        Box::pin(recreated::under_a_paused_member(g))
    }),
    ("stream_created_again_under_a_member_that_dies", |g| {
        Box::pin(recreated::under_a_member_that_dies(g))
    }),
    ("stream_created_again_while_nobody_reads", |g| {
        Box::pin(recreated::while_nobody_reads(g))
    }),
    ("coordinator_that_does_not_know_the_topic", |g| {
        Box::pin(stale_coordinator::refuses_commits(g))
    }),
    ("pipeline_commits_in_transactions_alone", |g| {
        Box::pin(pipeline::commits_in_transactions_alone(g))
    }),
    ("log_that_was_cut_back_ends_the_member", |g| {
        Box::pin(failed_fetch::of_a_log_that_was_cut_back(g))
    }),
    ("stuck_key_and_a_rebalance", |g| {
        Box::pin(rebalance_limit::of_a_stuck_key(g))
    }),
    ("frozen_in_a_drain", |g| Box::pin(loss::frozen(g))),
    ("put_out_in_a_drain", |g| Box::pin(loss::put_out(g))),
    ("put_out_of_a_drain_and_back", |g| {
        Box::pin(loss::put_out_and_back(g))
    }),
    ("clients_told_of_no_brokers", |g| {
        Box::pin(brokerless::clients(g))
    }),
    ("topic_unknown_to_a_stale_broker", |g| {
        Box::pin(stale::topic(g))
    }),
    ("longest_drain", |g| Box::pin(deadline::longest(g))),
    ("drain_that_is_too_long", |g| {
        Box::pin(deadline::too_long(g))
    }),
];

/// Cases on the shared broker about librdkafka's behavior in classic groups only.
const CLASSIC: &[(&str, Case)] = &[
    ("heartbeats_of_a_quiet_member", |g| {
        Box::pin(latency::heartbeats(g))
    }),
    ("rounds_of_a_newcomer", |g| Box::pin(latency::rounds(g))),
    ("refused_checkpoint", |g| Box::pin(latency::refused(g))),
    ("checkpoint_between_generations", |g| {
        Box::pin(latency::between_generations(g))
    }),
];

type AloneCase = fn(Protocol) -> LocalBoxFuture<'static, ()>;

/// Cases on separate brokers, which they silence.
const ALONE: &[(&str, AloneCase)] = &[
    ("members_of_a_dead_broker", |p| {
        Box::pin(silence::members(p, silence::BrokerOutage::Dead))
    }),
    ("members_of_a_paused_broker", |p| {
        Box::pin(silence::members(p, silence::BrokerOutage::Paused))
    }),
];

type CaseWithoutGroup = fn() -> LocalBoxFuture<'static, ()>;

/// Cases on separate brokers for clients without a group.
const WITHOUT_GROUP: &[(&str, CaseWithoutGroup)] = &[
    ("producers_of_a_dead_broker", || {
        Box::pin(silence::producers(silence::BrokerOutage::Dead))
    }),
    ("producers_of_a_paused_broker", || {
        Box::pin(silence::producers(silence::BrokerOutage::Paused))
    }),
    ("questions_to_a_dead_broker", || {
        Box::pin(silence::questions(silence::BrokerOutage::Dead))
    }),
    ("questions_to_a_paused_broker", || {
        Box::pin(silence::questions(silence::BrokerOutage::Paused))
    }),
];

struct Shared {
    runtime: Runtime,
    testbed: OnceCell<Arc<Testbed>>,
}

impl Shared {
    fn testbed(&self) -> Arc<Testbed> {
        let start = async || Arc::new(Testbed::start(options()).await);
        self.runtime
            .block_on(self.testbed.get_or_init(start))
            .clone()
    }
}

/// Runs a case to its end, and waits for everything it leaves running.
fn run(case: LocalBoxFuture<'static, ()>) {
    let runtime = runtime();
    runtime.block_on(case);
    threads::in_time("the runtime of the case", || drop(runtime));
}

fn trials(shared: &Arc<Shared>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (kind, protocol) in PROTOCOLS {
        let classic = CLASSIC.iter().filter(|_| protocol == Protocol::Cooperative);
        for (name, case) in SHARED.iter().chain(classic) {
            let shared = shared.clone();
            let trial = move || {
                run(case(Arc::new(Fixture::new(shared.testbed(), protocol))));
                Ok(())
            };
            trials.push(Trial::test(format!("{kind}::{name}"), trial));
        }
        for (name, case) in ALONE {
            let trial = move || {
                run(case(protocol));
                Ok(())
            };
            trials.push(Trial::test(format!("{kind}::{name}"), trial));
        }
    }
    for (name, case) in WITHOUT_GROUP {
        let trial = move || {
            run(case());
            Ok(())
        };
        trials.push(Trial::test(*name, trial));
    }
    trials
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    Events::listen();
    let shared = Arc::new(Shared {
        runtime: runtime(),
        testbed: OnceCell::new(),
    });
    let conclusion = libtest_mimic::run(&arguments, trials(&shared));
    let shared = Arc::into_inner(shared).expect("no case runs any more");
    // The container is removed by the runtime that created it.
    shared.runtime.block_on(async { drop(shared.testbed) });
    conclusion.exit_code()
}
