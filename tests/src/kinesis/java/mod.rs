//! Java programs on Amazon's own libraries, in containers: consumers on the Kinesis Client Library, and
//! producers on the Kinesis Producer Library. Their sources are in `tests/java`.

use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::consumer_events::{TimedEvent, listen};
use crate::containers;

mod kpl;

pub use kpl::{Counted, Load, Sent, load, produce};

const IMAGE: &str = "millstream/kcl:local";

/// The variable with Java options, in place of the image's defaults for a small machine.
const JVM: &str = "MILLSTREAM_JVM";

/// The timeout of a program's clean end.
const TIMEOUT: Duration = Duration::from_secs(90);

/// The number of last log lines that are kept for a failed test.
const LOG_TAIL_LINES: usize = 150;

/// A version of the Kinesis Client Library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// Version 2.7.2.
    Kcl2,
    /// Version 3.5.1; by default in the first of the phases that are compatible with version 2.
    Kcl3,
}

impl Library {
    const fn name(self) -> &'static str {
        match self {
            Self::Kcl2 => "kcl2",
            Self::Kcl3 => "kcl3",
        }
    }
}

/// A consumer in a container, which is removed when this is dropped. It can reach 127.0.0.1 of this machine.
#[derive(Debug)]
#[must_use = "stop or kill it"]
pub struct Worker {
    container: String,
    /// The engine's command, which is connected to the container's standard input and output.
    command: Child,
    orders: ChildStdin,
    /// Ends when the program's output is read to its end.
    output_reader: JoinHandle<()>,
    log: Log,
}

impl Worker {
    /// Starts a consumer with options of `tests/java`, without their dashes, and forwards its events.
    ///
    /// # Panics
    /// If the engine cannot be used.
    pub async fn start(
        library: Library,
        options: &[(&str, &str)],
        on_event: impl Fn(TimedEvent) + Send + 'static,
    ) -> Self {
        containers::ready("kcl").await;
        let container = unique(library.name());
        let mut command = run(&container, library.name(), options);
        let mut command = command.spawn().expect("the docker command can be run");
        let output = command.stdout.take().expect("it is piped");
        let words = command.stderr.take().expect("it is piped");
        let log = Log::default();
        tokio::spawn(log.clone().keep(words));
        Self {
            container,
            orders: command.stdin.take().expect("it is piped"),
            command,
            output_reader: tokio::spawn(listen(output, on_event)),
            log,
        }
    }

    /// Makes it checkpoint everything that it has handled.
    pub async fn checkpoint(&mut self) {
        self.order("checkpoint\n").await;
    }

    /// Shuts it down cleanly, and waits until it has ended.
    pub async fn stop(mut self) {
        self.order("stop\n").await;
        self.ended().await;
    }

    /// Kills it by a signal that no program can catch.
    pub async fn kill(mut self) {
        self.signal("KILL").await;
        self.ended().await;
    }

    /// Freezes the program: all threads and timers stop.
    pub async fn freeze(&self) {
        self.signal("STOP").await;
    }

    /// Resumes the frozen program.
    pub async fn thaw(&self) {
        self.signal("CONT").await;
    }

    async fn order(&mut self, order: &str) {
        let written = self.orders.write_all(order.as_bytes()).await;
        let written = match written {
            Ok(()) => self.orders.flush().await,
            error => error,
        };
        written.unwrap_or_else(|error| panic!("{} takes no order: {error}", self.container));
    }

    async fn signal(&self, signal: &str) {
        containers::docker(&["kill", "--signal", signal, &self.container]).await;
    }

    async fn ended(&mut self) {
        let ended = timeout(TIMEOUT, self.command.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{} does not end", self.container));
        ended.expect("it can be waited for");
        (&mut self.output_reader).await.expect("its output is read");
    }
}

/// A failed test prints its program's output.
impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (name, log) = (&self.container, self.log.text());
            eprintln!("{name} logged\n{log}");
        }
    }
}

/// Returns a unique name for a container.
fn unique(kind: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Relaxed);
    format!("millstream-{}-{kind}-{count}", containers::owner())
}

fn run(container: &str, program: &str, options: &[(&str, &str)]) -> Command {
    let label = format!("{}={}", containers::OWNER, containers::owner());
    let mut command = Command::new("docker");
    command.args(["run", "--rm", "--interactive", "--network", "host"]);
    command.args(["--name", container, "--label", &label]);
    // The value is taken from the command's own environment, if it is set.
    command.args(["--env", JVM, IMAGE, program]);
    for (name, value) in options {
        command.args([&format!("--{name}"), *value]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    // When the command ends, the engine closes the program's standard input, which ends the program.
    command.stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// The last lines of a program's log.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<VecDeque<String>>>);

impl Log {
    async fn keep(self, words: impl AsyncRead + Unpin) {
        let mut lines = BufReader::new(words).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == LOG_TAIL_LINES {
                kept.pop_front();
            }
            kept.push_back(line);
        }
    }

    fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Vec::from_iter(kept.iter().map(String::as_str)).join("\n")
    }
}
