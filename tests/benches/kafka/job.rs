//! The jobs, each measured in a process of its own, and how one is passed to its process.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Result, chain, consume, latency, member, produce, watchdog};

/// The first argument of a process that does a [`Task`].
pub(crate) const CHILD: &str = "child";

/// A process that has not ended by then hangs.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Values by the name of what was measured.
pub(crate) type Measured = BTreeMap<String, f64>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Job {
    Consume {
        by: Consumer,
        bytes: usize,
        /// What is added to each round trip.
        round_trip_ms: u32,
    },
    Produce {
        by: Producer,
        linger_ms: u32,
        /// What is added to each round trip.
        round_trip_ms: u32,
    },
    Chain(Chain),
    Latency {
        by: Side,
        linger_ms: u32,
    },
    Rebalance {
        by: Side,
        protocol: Protocol,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Side {
    Ours,
    Raw,
}

/// Who consumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Consumer {
    Ours,
    /// With `concurrency(64)`.
    OursKeyed,
    /// The same job: headers read, the payload owned, progress stored.
    Stream,
    /// The same job, at the settings that librdkafka has by default.
    StreamAtDefaults,
    /// Neither headers nor progress, and the payload is only borrowed.
    StreamBare,
}

/// Who sends, and how its receipts are awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Producer {
    Ours,
    /// Without the throttle.
    OursUnthrottled,
    /// In the order of sending, as ours are.
    Future,
    /// Whichever is there first, by `FuturesUnordered`.
    FutureUnordered,
}

/// Who runs an exactly-once chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Chain {
    Ours,
    /// A transactional loop of plain clients.
    Loop(Flush),
}

/// How the loop waits until its records are stored, before a transaction is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Flush {
    /// In `commit_transaction`. There rdkafka (0.39) waits in steps of 100 ms.
    ByCommit,
    /// It polls the producer itself before.
    ByPolling,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Protocol {
    Cooperative,
    /// KIP-848.
    Consumer,
}

/// Where a job is done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) brokers: String,
    pub(crate) topic: String,
    /// None has joined it before.
    pub(crate) group: String,
    /// The topic of the results of a chain. It is empty.
    pub(crate) output: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    Measure(Job, Target),
    /// Handles what comes until standard input is closed, and reports each record.
    Member(Side, Protocol, Target),
}

impl Task {
    /// The command that does it, in a process of its own. Its error output is shown.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(CHILD).arg(serde_json::to_string(self)?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(command)
    }

    /// Runs in the process that [`command`](Self::command) has started.
    pub(crate) fn run(task: &str) -> Result<()> {
        match serde_json::from_str(task)? {
            Self::Measure(job, target) => {
                watchdog::watch(TIMEOUT, format!("{job:?}"));
                let measured = match job {
                    Job::Consume { by, .. } => consume::run(by, &target)?,
                    Job::Produce { by, linger_ms, .. } => produce::run(by, linger_ms, &target)?,
                    Job::Chain(by) => chain::run(by, &target)?,
                    Job::Latency { by, linger_ms } => latency::run(by, linger_ms, &target)?,
                    Job::Rebalance { .. } => return Err("it takes several processes".into()),
                };
                let mut out = io::stdout().lock();
                Ok(writeln!(out, "{}", serde_json::to_string(&measured)?)?)
            }
            Self::Member(side, protocol, target) => member::run(side, protocol, &target),
        }
    }

    /// Runs it elsewhere, and waits for what it measures.
    pub(crate) fn measure(&self) -> Result<Measured> {
        let output = self.command()?.stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("{self:?}: {}", output.status).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}
