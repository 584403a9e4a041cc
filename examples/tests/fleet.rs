//! Runs the fleet program as a user would.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Long enough for any run here on a busy machine; no run should need it.
const DEADLINE: Duration = Duration::from_secs(120);

fn fleet(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // The environment of the person who runs the tests must not affect them.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MILLSTREAM_") {
            command.env_remove(name);
        }
    }
    command
}

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Returns the summary of a successful run.
    fn good(&self) -> Value {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        let summary = self.summary();
        assert_eq!(summary["lost"], 0, "{summary}");
        assert_eq!(summary["out_of_order"], 0, "{summary}");
        summary
    }

    fn summary(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{}", self.out);
        serde_json::from_str(&self.out).unwrap()
    }
}

fn run(arguments: &[&str]) -> Ended {
    Ended::new(fleet(arguments).output().unwrap())
}

/// Runs with `input` as standard input.
fn run_with(arguments: &[&str], input: &[u8]) -> Ended {
    let mut child = fleet(arguments).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let ended = Ended::new(child.wait_with_output().unwrap());
    writer.join().unwrap().unwrap();
    ended
}

/// Returns `count` reports of seven vehicles.
fn reports(count: usize) -> String {
    let report = |n: usize| {
        format!(
            "{{\"vehicleId\":\"v{}\",\"latitude\":46.5,\"longitude\":8.1,\"altitude\":{},\"speed\":300,\"timestamp\":\"2018-08-01T05:{:02}:{:02}Z\"}}\n",
            n % 7,
            9_000 + n % 100,
            n / 60 % 60,
            n % 60
        )
    };
    (0..count).map(report).collect()
}

fn file(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_plain_run_ends_good_with_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let input = file(folder.path(), "in.jsonl", reports(2_000));
    let summary = run(&["--input", input.to_str().unwrap(), "--json"]).good();
    assert_eq!(summary["sent"], 2_000);
    assert_eq!(summary["handled"], 2_000);
    assert_eq!(summary["duplicates"], 0);
    assert_eq!(summary["crashes"], 0);
    assert_eq!(summary["vehicles"], 7);
    assert!(summary["rebalances"].is_u64() && summary["max_stall_ms"].is_u64());
    assert_eq!(summary["groups"].as_array().unwrap().len(), 7);
}

#[test]
fn the_text_names_every_number_and_progress_goes_to_standard_error() {
    let ended = run_with(&["--input", "-"], reports(100).as_bytes());
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let names = [
        "sent",
        "handled",
        "lost",
        "out of order",
        "altered",
        "duplicates",
        "rebalances",
    ];
    for name in names
        .into_iter()
        .chain(["longest stall", "bad lines", "analytics"])
    {
        assert!(ended.out.contains(name), "{name} in {}", ended.out);
    }
    assert!(!ended.out.contains('\u{1b}') && !ended.err.contains('\u{1b}'));
}

#[test]
fn chaos_loses_and_reorders_nothing() {
    for seed in ["1", "2", "3"] {
        let arguments = [
            "--chaos",
            "--seed",
            seed,
            "--rate",
            "8000",
            "--json",
            "--members",
            "3",
        ];
        let ended = run(&arguments);
        let summary = ended.good();
        assert_eq!(summary["sent"], 20_000, "seed {seed}");
        assert_eq!(summary["handled"], 20_000, "seed {seed}");
        assert!(summary["crashes"].as_u64().unwrap() > 0, "seed {seed}");
        assert!(summary["rebalances"].as_u64().unwrap() > 7, "seed {seed}");
        assert!(ended.err.contains("crashes"), "{}", ended.err);
    }
}

#[test]
fn a_reshard_in_the_middle_loses_and_reorders_nothing() {
    let ended = run(&["--reshard", "--chaos", "--seed", "4", "--json"]);
    let summary = ended.good();
    assert_eq!(summary["handled"], 20_000);
    for done in ["is split", "are merged"] {
        assert_eq!(ended.err.matches(done).count(), 2, "{}", ended.err);
    }
    let short = run_with(&["--reshard", "--input", "-"], reports(100).as_bytes());
    assert_eq!(short.code, Some(1), "{}", short.err);
    assert!(short.err.contains("10000 records"), "{}", short.err);
}

#[test]
fn tombstones_reach_every_group_as_tombstones() {
    let ended = run(&["--chaos", "--tombstones", "5", "--rate", "8000", "--json"]);
    let summary = ended.good();
    let tombstones = summary["tombstones"].as_u64().unwrap();
    assert!(tombstones > 4_000, "{summary}");
    assert_eq!(summary["sent"], 20_000 + tombstones);
    assert_eq!(summary["handled"], 20_000 + tombstones);
    assert_eq!(summary["altered"], 0);
    assert_eq!(summary["dead_lettered"], 0);
}

#[test]
fn a_stream_that_is_created_again_is_read_from_its_beginning() {
    let arguments = [
        "--recreate",
        "--chaos",
        "--tombstones",
        "7",
        "--rate",
        "8000",
        "--json",
    ];
    let ended = run(&arguments);
    let summary = ended.good();
    assert_eq!(summary["handled"], summary["sent"]);
    let done = "car-raw-events is deleted and created again";
    assert_eq!(ended.err.matches(done).count(), 1, "{}", ended.err);
    // At least one member noticed the deletion, and was replaced.
    for done in [" ended", " joins"] {
        let line = |line: &str| line.starts_with("recreate: cleaner-") && line.ends_with(done);
        assert!(ended.err.lines().any(line), "{done}: {}", ended.err);
    }
    let short = run_with(&["--recreate", "--input", "-"], reports(100).as_bytes());
    assert_eq!(short.code, Some(1), "{}", short.err);
    assert!(short.err.contains("8000 records"), "{}", short.err);
}

#[test]
fn bad_lines_are_shown_with_their_numbers_and_stop_nothing() {
    let mut text = reports(10);
    text.push_str("this is no JSON\n"); // 11
    text.push_str("{\"vehicleId\":null}\n"); // 12
    text.push('\n');
    text.push_str("{\"vehicle\":\"v1\"}\n"); // 14
    text.push_str("{\"vehicleId\":\"v1\",\"speed\":1,\"speed\":2}\n"); // 15: the cleaner refuses it
    text.push_str(&format!("{{\"vehicleId\":\"{}\"}}\n", "k".repeat(300))); // 16: no such long key
    text.push_str(&reports(10));
    let ended = run_with(&["--input", "-", "--json"], text.as_bytes());
    let summary = ended.good();
    assert_eq!(summary["bad_lines"], 5);
    assert_eq!(summary["sent"], 21, "line 15 can be sent");
    assert_eq!(summary["handled"], 20);
    assert_eq!(summary["dead_lettered"], 1);
    for line in [11, 12, 14, 15, 16] {
        assert!(
            ended.err.contains(&format!("bad line {line}:")),
            "{}",
            ended.err
        );
    }
    let groups = summary["groups"].as_array().unwrap();
    let dead = groups.iter().find(|group| group["group"] == "dead-letters");
    assert_eq!(
        dead.unwrap()["handled"],
        4,
        "beside the one from the cleaner"
    );
}

#[test]
fn gzip_comes_through_standard_input_too() {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(reports(50).as_bytes()).unwrap();
    let ended = run_with(&["--input", "-", "--json"], &packed.finish().unwrap());
    assert_eq!(ended.good()["sent"], 50);
}

#[test]
fn an_empty_input_is_no_error() {
    let ended = run_with(&["--input", "-", "--json"], b"");
    assert_eq!(ended.good()["sent"], 0);
}

#[test]
fn an_input_of_bad_lines_only_is_not_good() {
    let ended = run_with(
        &["--input", "-", "--json", "--key", "vehicle"],
        reports(3).as_bytes(),
    );
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    let summary = ended.summary();
    assert_eq!(
        (&summary["sent"], &summary["bad_lines"]),
        (&0.into(), &3.into())
    );
    assert!(ended.err.contains("no field `vehicle`"), "{}", ended.err);
}

#[test]
fn streams_of_an_earlier_run_do_not_disturb() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "backend = 'memory'\npersist = {:?}",
        folder.path().join("streams")
    );
    let config = file(folder.path(), "fleet.toml", text);
    for _ in 0..2 {
        let arguments = [
            "--input",
            "-",
            "--json",
            "--config",
            config.to_str().unwrap(),
        ];
        let summary = run_with(&arguments, reports(50).as_bytes()).good();
        assert_eq!(
            (&summary["sent"], &summary["handled"]),
            (&50.into(), &50.into())
        );
        assert_eq!(summary["duplicates"], 0);
    }
}

#[test]
fn any_field_may_be_the_key_and_each_repeat_has_records_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let input = file(
        folder.path(),
        "in.jsonl",
        "{\"id\":1}\n{\"id\":\"b\"}\n{\"id\":1}\n",
    );
    let input = input.to_str().unwrap();
    let summary = run(&["--input", input, "--key", "id", "--repeat", "20", "--json"]).good();
    assert_eq!(summary["sent"], 60);
    assert_eq!(summary["handled"], 60);
    assert_eq!(summary["duplicates"], 0);
}

#[test]
fn wrong_use_is_reported_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let config = |name: &str, text: &str| {
        let path = file(folder.path(), name, text);
        path.to_str().unwrap().to_owned()
    };
    let unknown = config("unknown.toml", "backend = 'memry'");
    let typo = config("typo.toml", "backend = 'memory'\nsesion_timeout = '1s'");
    let no_toml = config("no.toml", "backend = ");
    let cases: [(&[&str], &[&str]); 9] = [
        (&["--input", "no-such-file"], &["no-such-file"]),
        (&["--config", "no-such-file"], &["no-such-file"]),
        (
            &["--config", &unknown],
            &["memry", "`memory`", "`kafka`", "`kinesis`"],
        ),
        (
            &["--config", &typo],
            &["sesion_timeout", "`session_timeout`"],
        ),
        (&["--config", &no_toml], &["not valid TOML", "line 1"]),
        (&["--input", "-", "--repeat", "2"], &["--repeat"]),
        (&["--members", "0"], &["--members"]),
        (&["--tombstones", "1"], &["--tombstones"]),
        (&["--recreate", "--reshard"], &["--recreate", "--reshard"]),
    ];
    for (arguments, words) in cases {
        let ended = run(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.err);
        assert_eq!(ended.out, "", "{arguments:?}");
        for word in words {
            assert!(
                ended.err.contains(word),
                "{arguments:?}: no {word} in {}",
                ended.err
            );
        }
    }
}

#[test]
fn the_environment_wins_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = file(folder.path(), "fleet.toml", "backend = 'memory'");
    let mut command = fleet(&["--config", config.to_str().unwrap()]);
    command.env("MILLSTREAM_BACKEND", "memry");
    let ended = Ended::new(command.output().unwrap());
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains("memry"), "{}", ended.err);
}

#[cfg(not(feature = "kinesis"))]
#[test]
fn a_backend_that_is_not_built_names_the_feature() {
    let mut command = fleet(&[]);
    command.env("MILLSTREAM_BACKEND", "kinesis");
    let ended = Ended::new(command.output().unwrap());
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains("feature `kinesis`"), "{}", ended.err);
}

#[test]
fn a_run_that_fails_shows_the_cause_once_and_is_not_good() {
    let folder = tempfile::tempdir().unwrap();
    let config = |name: &str, text: &str| {
        let path = file(folder.path(), name, text);
        path.to_str().unwrap().to_owned()
    };
    // Records are removed before they are read; and a stream accepts no record, not even a bad line.
    let retention = config(
        "retention.toml",
        "backend = 'memory'\n[retention]\nbytes = 1",
    );
    let refused = config(
        "refused.toml",
        "backend = 'memory'\n[limits]\nrecord_bytes = 1",
    );
    for (config, cause) in [(retention, "gone by retention"), (refused, "too_large")] {
        let text = run(&["--config", &config]);
        assert_eq!(text.code, Some(1), "{}", text.err);
        assert_eq!(text.err.matches(cause).count(), 1, "{}", text.err);
        assert!(!text.err.contains("panicked"), "{}", text.err);
        assert!(!text.out.contains("good:"), "{}", text.out);
        assert!(text.out.contains("FAILED"), "{}", text.out);
        let json = run(&["--config", &config, "--json"]);
        assert_eq!(json.code, Some(1), "{}", json.err);
        assert_eq!(json.summary()["verdict"], "failed");
    }
}

#[cfg(unix)]
#[test]
fn a_signal_drains_and_sums_up() {
    for signal in ["-INT", "-TERM"] {
        drains_at(signal);
    }
}

#[cfg(unix)]
fn drains_at(signal: &str) {
    // Standard input stays open: without the signal, the program would wait forever.
    let mut child = fleet(&["--input", "-", "--json"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let process = child.id().to_string();
    let started = Instant::now();
    // It shows the status before there is anything to read.
    let mut err = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut shown = String::new();
    let mut wait_for = |text: &str| {
        while !shown.contains(text) {
            shown.clear();
            std::io::BufRead::read_line(&mut err, &mut shown).unwrap();
            assert!(started.elapsed() < DEADLINE, "it does not show {text}");
        }
    };
    wait_for("sent 0");
    stdin.write_all(reports(500).as_bytes()).unwrap();
    wait_for("sent 500");
    let reader = std::thread::spawn(move || std::io::read_to_string(err));
    let killed = Command::new("kill").args([signal, &process]).status();
    assert!(killed.unwrap().success());

    let output = child.wait_with_output().unwrap();
    let err = reader.join().unwrap().unwrap();
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(err.contains("stopping"), "{err}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["sent"], 500);
    assert_eq!(summary["handled"], 500);
    assert_eq!(summary["verdict"], "good");
    drop(stdin);
}
