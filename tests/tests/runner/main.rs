//! The runner of the suite: a case ends on any driver, and says why it failed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod wrong_backend;
mod wrong_harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use conformance::{Setup, cases};

use wrong_backend::Defect;
use wrong_harness::WrongHarness;

/// Ends what spins when the test does: the runner leaves its thread behind.
#[derive(Default)]
struct Spinning(Arc<AtomicBool>);

impl Drop for Spinning {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn setup(defect: Defect) -> Setup {
    Setup::new(move |_| std::future::ready(WrongHarness::new(defect.clone()))).paused_time()
}

/// Runs a case that must fail, and returns why it did.
fn failure(setup: &Setup, case: &str) -> String {
    let result = setup.run(cases::named(case));
    result.expect_err("the driver is wrong")
}

#[test]
fn case_passes_on_a_right_driver() {
    setup(Defect::None).run(cases::named("c14_keys")).unwrap();
}

#[test]
fn case_ends_although_open_producer_never_returns() {
    let failure = failure(&setup(Defect::OpenProducerHangs), "c14_keys");
    assert!(failure.contains("did not end within"), "{failure}");
}

#[test]
fn every_case_ends_although_next_never_returns_and_says_what_it_waited_for() {
    let mut failed = 0;
    for case in cases::all().filter(|case| case.needs.is_empty()) {
        // Some cases read nothing, and pass.
        if let Err(failure) = setup(Defect::NextHangs).run(case) {
            failed += 1;
            let names_a_line = failure.contains("tests/src/cases/");
            assert!(names_a_line, "{}: {failure}", case.name);
            assert!(!failure.contains("Elapsed"), "{}: {failure}", case.name);
        }
    }
    assert!(failed > 50, "only {failed} cases read records");
}

#[test]
fn failure_names_the_lost_record_and_the_violation() {
    let failure = failure(&setup(Defect::NextLosesRecords), "c04_slow_and_quick_keys");
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
    let defect = Defect::NextSpins(spinning.0.clone());
    let setup = setup(defect).wall_limit(Duration::from_millis(500));
    let began = Instant::now();
    let failure = failure(&setup, "c14_keys");
    assert!(failure.contains("on the wall clock"), "{failure}");
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn case_ends_although_next_blocks_its_thread() {
    let spinning = Spinning::default();
    let defect = Defect::NextBlocks(spinning.0.clone());
    let setup = setup(defect).wall_limit(Duration::from_millis(500));
    let failure = failure(&setup, "c14_keys");
    assert!(failure.contains("on the wall clock"), "{failure}");
}

#[test]
fn all_mismatches_of_the_ignored_cases_are_reported_at_once() {
    let ignored = ["c14_keys", "c99_no_such_case", "c14_keys"];
    let mismatches = setup(Defect::None).ignore("a reason", ignored).check();
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
        "c13_missing_guarantee_is_unsupported needs no exactly_once",
    ] {
        assert!(reported(line), "{line}\nis not in\n{mismatches}");
    }
}
