//! The runner of the suite: a case ends on any driver, and reports why it failed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod failed_step;
mod wrong_backend;
mod wrong_harness;

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use conformance::{BrokerScope, Disturbed, LazyBroker, OwnFault, Setup, cases};
use tokio::runtime::Handle;

use wrong_backend::Behavior;
use wrong_harness::WrongHarness;

/// Ends spinning tasks when the test ends, because the runner leaves their thread behind.
#[derive(Default)]
struct Spinning(Arc<AtomicBool>);

impl Drop for Spinning {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn setup(behavior: Behavior) -> Setup {
    Setup::new(move |_| ready(WrongHarness::new(behavior.clone()))).paused_time()
}

/// Runs a case that must fail, and returns the reason.
fn failure(setup: &Setup, case: &str) -> String {
    let result = setup.run(cases::named(case));
    result.expect_err("the driver is wrong")
}

#[test]
fn case_passes_on_a_right_driver() {
    setup(Behavior::Right)
        .run(cases::named("c14_keys"))
        .unwrap();
}

#[test]
fn no_case_relies_on_the_order_in_which_keys_are_stored() {
    let mut failures = Vec::new();
    for case in cases::all().filter(|case| case.needs.is_empty()) {
        if let Err(failure) = setup(Behavior::StoresKeyByKey).run(case) {
            failures.push(format!("{}: {failure}", case.name));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn next_may_await_as_often_as_it_likes() {
    setup(Behavior::NextAwaitsOften)
        .run(cases::named("c02_dropped_next_loses_no_event"))
        .unwrap();
}

#[test]
fn case_ends_although_open_producer_never_returns() {
    let failure = failure(&setup(Behavior::OpenProducerHangs), "c14_keys");
    let stuck_at_once = "did not end within 200s: it passed no wait";
    assert!(failure.contains(stuck_at_once), "{failure}");
}

#[test]
fn every_case_ends_although_next_never_returns_and_says_what_it_waited_for() {
    let mut failed = 0;
    for case in cases::all().filter(|case| case.needs.is_empty()) {
        // Some cases read nothing, and pass.
        if let Err(failure) = setup(Behavior::NextHangs).run(case) {
            failed += 1;
            let names_a_line = failure.contains("tests/src/cases/");
            assert!(names_a_line, "{}: {failure}", case.name);
            // A backtrace may name the type.
            assert!(!failure.contains("Elapsed(())"), "{}: {failure}", case.name);
        }
    }
    assert!(failed > 50, "only {failed} cases read records");
}

#[test]
fn failure_names_the_lost_record_and_the_violation() {
    let failure = failure(
        &setup(Behavior::NextLosesRecords),
        "c04_slow_and_quick_keys",
    );
    let lines: Vec<&str> = failure.lines().collect();
    let caller = "(tests/src/cases/c04_contiguous_checkpoint.rs:";
    assert!(
        lines[0].starts_with("waited 20s for: ") && lines[0].contains(caller),
        "{failure}"
    );
    for part in ["violations", "are not settled", "checkpoints, as last read"] {
        assert!(failure.contains(part), "{part}: {failure}");
    }
}

#[test]
fn case_ends_although_next_spins() {
    let spinning = Spinning::default();
    let behavior = Behavior::NextSpins(spinning.0.clone());
    let setup = setup(behavior).wall_limit(Duration::from_millis(500));
    let began = Instant::now();
    let failure = failure(&setup, "c14_keys");
    assert!(failure.contains("on the wall clock"), "{failure}");
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn case_ends_although_next_blocks_its_thread() {
    let spinning = Spinning::default();
    let behavior = Behavior::NextBlocks(spinning.0.clone());
    let setup = setup(behavior).wall_limit(Duration::from_millis(500));
    let failure = failure(&setup, "c14_keys");
    assert!(failure.contains("on the wall clock"), "{failure}");
}

#[test]
fn all_mismatches_of_the_ignored_cases_are_reported_at_once() {
    let ignored = ["c14_keys", "c99_no_such_case", "c14_keys"];
    let mismatches = setup(Behavior::Right).ignore("a reason", ignored).check();
    let mismatches = mismatches.unwrap_err();
    let reported = |line: &str| {
        mismatches
            .lines()
            .any(|reported| reported.starts_with(line))
    };
    for line in [
        "c14_keys is ignored, although its needs are met",
        "c14_keys is ignored twice",
        "c99_no_such_case is ignored, but there is no such case",
        "c07_zombie_is_fenced needs freeze, which this backend does not have",
        "c11_split_and_merge_are_unsupported needs no ordered_reshard",
    ] {
        assert!(reported(line), "{line}\nis not in\n{mismatches}");
    }
}

#[test]
fn checker_allows_what_a_declared_fault_of_the_harness_causes() {
    let case = cases::named("c01_order_of_many_keys");
    let undeclared = Setup::new(|_| ready(WrongHarness::losing_responses())).paused_time();
    let failure = undeclared.run(case).unwrap_err();
    assert!(failure.contains("no send was faulted"), "{failure}");
    let declared = Setup::new(|_| {
        ready(WrongHarness::losing_responses().declares(OwnFault {
            disturbs: Disturbed::Sends,
            what: "responses are lost".to_owned(),
        }))
    });
    declared.paused_time().run(case).unwrap();
}

/// Counts its starts and ends. It ends on a runtime, like an object that removes a container.
struct Server(Arc<AtomicUsize>);

impl Drop for Server {
    fn drop(&mut self) {
        assert!(Handle::try_current().is_ok(), "it ends on its runtime");
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn shared_broker_starts_with_the_first_case_and_ends_with_its_last_user() {
    let (started, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let count = || (started.load(Relaxed), ended.load(Relaxed));
    let (starts, ends) = (started.clone(), ended.clone());
    let broker = LazyBroker::new(move || {
        starts.fetch_add(1, Relaxed);
        ready(Server(ends.clone()))
    });
    let shared = broker.clone();
    let setup = Setup::new(move |scope: BrokerScope| {
        let shared = shared.clone();
        async move {
            assert_eq!(scope, BrokerScope::Shared, "these cases restart nothing");
            let _server = shared.get();
            WrongHarness::new(Behavior::Right)
        }
    });
    assert_eq!(count(), (0, 0));
    for case in ["c14_keys", "c14_headers"] {
        setup.run(cases::named(case)).unwrap();
        assert_eq!(count(), (1, 0));
    }
    drop(setup);
    drop(broker);
    assert_eq!(count(), (1, 1));
}
