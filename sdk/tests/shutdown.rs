//! Signals to a process of its own: this test binary, run again with `ROLE` set.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use millstream::shutdown_signal;

const ROLE: &str = "SHUTDOWN_TEST_ROLE";

/// Longer than any step takes; none waits for it.
const DEADLINE: Duration = Duration::from_secs(60);

struct Process {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Process {
    fn start(role: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut process = Self { child, out };
        process.wait_for("ready");
        process
    }

    fn wait_for(&mut self, word: &str) {
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            let read = self.out.read_line(&mut line).unwrap();
            assert_ne!(read, 0, "the process ended without {word}");
        }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &id]).status().unwrap();
        assert!(sent.success());
    }

    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

/// What the other process does. Passes at once in this one.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let first = shutdown_signal();
        let second = shutdown_signal();
        println!("ready");
        first.await;
        second.await;
        println!("draining");
        match &*role {
            "drains" => {
                shutdown_signal().await;
                println!("drained");
            }
            // A handler that blocks the only thread of the runtime.
            "blocks" => std::thread::sleep(DEADLINE),
            other => panic!("{other}"),
        }
    });
}

#[test]
fn the_first_signal_completes_all_futures() {
    for signal in ["-TERM", "-INT"] {
        let process = Process::start("drains");
        process.signal(signal);
        let (code, rest) = process.end();
        assert_eq!(code, Some(0), "{signal}");
        assert!(rest.contains("drained"), "{rest}");
    }
}

#[test]
fn the_second_signal_ends_a_blocked_process_at_once() {
    for (signals, expected) in [
        (["-TERM", "-INT"], 130),
        (["-INT", "-INT"], 130),
        (["-INT", "-TERM"], 143),
        (["-TERM", "-TERM"], 143),
    ] {
        let mut process = Process::start("blocks");
        process.signal(signals[0]);
        process.wait_for("draining");
        process.signal(signals[1]);
        let (code, _) = process.end();
        assert_eq!(code, Some(expected), "{signals:?}");
    }
}
