//! A member in a child process, as its parent sees it.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use conformance::history::{Event, History};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::member_config::{MemberConfig, VARIABLE};

/// Killed when dropped.
#[derive(Debug)]
#[must_use = "close or kill it"]
pub(crate) struct Process {
    pub(crate) member: Arc<str>,
    group: Arc<str>,
    history: History,
    child: Child,
    /// The process ends itself when this closes. Waiting for the child would close it.
    lifeline: Option<ChildStdin>,
    /// Ends when the whole output of the process is read.
    output_reader: JoinHandle<()>,
}

impl Process {
    pub(crate) fn start(member_config: &MemberConfig, history: &History) -> Self {
        let itself = std::env::current_exe().expect("a process knows its program");
        let orders_text = serde_json::to_string(member_config).expect("orders can be written");
        let mut child = Command::new(itself)
            .env(VARIABLE, orders_text)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program can be started again");
        let lines = child.stdout.take().expect("it is piped");
        let lines = BufReader::new(lines).lines();
        Self {
            member: member_config.member.as_str().into(),
            group: member_config.group.as_str().into(),
            history: history.clone(),
            lifeline: child.stdin.take(),
            child,
            output_reader: tokio::spawn(collect_events(lines, history.clone())),
        }
    }

    /// Kills it by a signal that no process can catch.
    pub(crate) async fn kill(mut self) {
        self.history.record(Event::Crashed {
            group: self.group.clone(),
            member: self.member.clone(),
        });
        self.child.kill().await.expect("it runs");
        self.output_reader.await.expect("its output is read");
    }

    /// Freezes it: all threads and timers stop.
    pub(crate) fn freeze(&self) {
        self.history.record(Event::Fault {
            group: Some(self.group.clone()),
            member: Some(self.member.clone()),
            what: "SIGSTOP".to_owned(),
        });
        self.signal(Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits until it ends by itself, with an error.
    pub(crate) async fn ended(mut self, within: Duration) {
        let lifeline = self.lifeline.take();
        let ended = timeout(within, self.child.wait()).await;
        let status = ended.expect("it ends").expect("it can be waited for");
        drop(lifeline);
        self.output_reader.await.expect("its output is read");
        assert!(!status.success(), "{} ended well", self.member);
    }

    /// Asks it to end, and waits until it has ended.
    pub(crate) async fn close(mut self) {
        self.signal(Signal::TERM);
        let status = self.child.wait().await.expect("it can be waited for");
        drop(self.lifeline);
        self.output_reader.await.expect("its output is read");
        let member = self.member;
        assert!(status.success(), "{member} ended with {status}");
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.id().expect("it was not waited for");
        let id = i32::try_from(id).ok().and_then(Pid::from_raw);
        kill_process(id.expect("an id of a process"), signal).expect("it runs");
    }
}

async fn collect_events(mut lines: Lines<BufReader<ChildStdout>>, history: History) {
    while let Some(line) = lines.next_line().await.expect("its output is text") {
        let entry = serde_json::from_str(&line);
        history.add(entry.unwrap_or_else(|error| panic!("{line:?} is no event: {error}")));
    }
}
