//! Tests in a process of their own, for its environment variables: those of the test process are shared by all tests
//! that run at the same time.

use std::process::Command;

/// A process that has it is the child of a test.
const VARIABLE: &str = "MILLSTREAM_TEST_CHILD";

/// Returns whether this process was started by [`run`].
pub(crate) fn is_child() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Runs a test of this crate in a process that has only these variables, and waits for it.
///
/// # Panics
/// If it fails, or if there is no such test.
pub(crate) async fn run(test: &str, variables: &[(&str, &str)]) {
    let itself = std::env::current_exe().unwrap();
    let mut child = Command::new(itself);
    child
        .args(["--exact", test, "--nocapture"])
        .env_clear()
        .env(VARIABLE, "1")
        .envs(variables.iter().copied());
    // The parent serves the requests of the child meanwhile.
    let output = tokio::task::spawn_blocking(move || child.output()).await;
    let output = output.unwrap().unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains("1 passed"), "there is no {test}: {out}");
}
