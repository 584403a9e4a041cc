//! A millstream member in a child process, as its parent sees it.

use std::process::Stdio;

use conformance::kinesis::consumer_events::{TimedEvent, listen};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;

use crate::program::{MemberConfig, VARIABLE};

/// Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: ChildStdin,
    output_reader: JoinHandle<()>,
}

impl Process {
    pub(crate) fn start(
        member_config: &MemberConfig,
        on_event: impl Fn(TimedEvent) + Send + 'static,
    ) -> Self {
        let itself = std::env::current_exe().expect("a process knows its program");
        let member_config = serde_json::to_string(member_config).expect("orders can be written");
        let mut child = Command::new(itself)
            .env(VARIABLE, member_config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program can be started again");
        let output = child.stdout.take().expect("it is piped");
        Self {
            stdin: child.stdin.take().expect("it is piped"),
            child,
            output_reader: tokio::spawn(listen(output, on_event)),
        }
    }

    /// Shuts it down cleanly, and waits until it has left.
    pub(crate) async fn stop(mut self) {
        let requested = self.stdin.write_all(b"stop\n").await;
        requested.expect("it reads its standard input");
        let status = self.child.wait().await.expect("it can be waited for");
        self.output_reader.await.expect("its output is read");
        assert!(status.success(), "a member ended with {status}");
    }

    /// Kills it by a signal that no process can catch.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("it runs");
        self.output_reader.await.expect("its output is read");
    }

    /// Freezes the process: all threads and timers stop.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Resumes the frozen process.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("it was not waited for");
        let id = i32::try_from(id).ok().and_then(Pid::from_raw);
        kill_process(id.expect("an id of a process"), signal).expect("it runs");
    }
}
