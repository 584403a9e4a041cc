//! `tests/run` ends with the reason of a failed step, which is also printed above, between the lines of backtraces.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use conformance::cases;
use libtest_mimic::{Arguments, Trial};

use crate::setup;
use crate::wrong_backend::Behavior;

/// The variable of the processes that must fail.
const FAILS: &str = "MILLSTREAM_TEST_FAILS";

/// The output of a failed `tests/run`.
struct FailedRun {
    /// The output before the end.
    log: String,
    /// Its last lines, with the reason.
    end: String,
}

/// Runs `tests/run` with a step that runs one test of this binary, which fails in that process.
fn run_failing(test: &str, more: &str) -> FailedRun {
    let folder = tempfile::tempdir().unwrap();
    let stub = |name: &str, body: String| {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let this = env::current_exe().unwrap();
    stub(
        "cargo",
        format!("exec '{}' --exact {test} {more}", this.display()),
    );
    // The run removes remaining containers as it ends, which is not tested here.
    stub("docker", "exit 1".to_owned());

    let path = env::var_os("PATH").unwrap();
    let paths = [folder.path().to_owned()].into_iter();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let run = Command::new(root.join("tests/run"))
        .arg("--quick")
        .env(
            "PATH",
            env::join_paths(paths.chain(env::split_paths(&path))).unwrap(),
        )
        .env("RUST_BACKTRACE", "1")
        .env(FAILS, "yes")
        .output()
        .unwrap();
    assert!(!run.status.success());
    FailedRun {
        log: String::from_utf8(run.stdout).unwrap(),
        end: String::from_utf8(run.stderr).unwrap(),
    }
}

fn is_backtrace(line: &str) -> bool {
    line.contains("core::panicking::") || line.contains("stack backtrace")
}

fn is_to_fail() -> bool {
    env::var_os(FAILS).is_some()
}

#[test]
fn run_ends_with_the_panics_of_a_failed_test() {
    if is_to_fail() {
        panic!("the first line\nthe second line");
    }
    let test = "failed_step::run_ends_with_the_panics_of_a_failed_test";
    let FailedRun { log, end } = run_failing(test, "");
    assert!(log.lines().any(is_backtrace), "{log}");
    let reason = end.rsplit_once(" formatting (failed)\n").unwrap().1;
    let lines: Vec<&str> = reason.lines().collect();
    let [
        "",
        name,
        place,
        "  the first line",
        "  the second line",
        summary,
    ] = lines[..]
    else {
        panic!("{end}")
    };
    assert_eq!(name, test);
    assert!(place.contains(" panicked at tests/tests/runner/failed_step.rs:"));
    assert_eq!(summary, "0 passed, 1 failed, 0 skipped");
}

#[test]
fn run_ends_with_the_reason_of_a_failed_case() {
    const CASE: &str = "c04_slow_and_quick_keys";
    if is_to_fail() {
        let run = || Ok(setup(Behavior::NextLosesRecords).run(cases::named(CASE))?);
        let trials = vec![Trial::test(CASE, run)];
        libtest_mimic::run(&Arguments::default(), trials).exit();
    }
    let test = "failed_step::run_ends_with_the_reason_of_a_failed_case";
    let FailedRun { log, end } = run_failing(test, "--nocapture");
    assert!(log.lines().any(is_backtrace), "{log}");
    let reason = end.rsplit_once(" formatting (failed)\n").unwrap().1;
    let mut lines = reason.lines();
    assert_eq!((lines.next(), lines.next()), (Some(""), Some(CASE)));
    assert!(
        lines.next().unwrap().starts_with("  waited 20s for: "),
        "{end}"
    );
    assert!(!reason.lines().any(is_backtrace), "{end}");
    assert!(lines.count() < 30, "it is short:\n{end}");
}
