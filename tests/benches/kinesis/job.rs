//! The jobs, each measured in a process of its own, and how one is passed to its process.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::{Result, fan_out, member, poll, put, put_java, watchdog};

/// The first argument of a process that does a [`Task`].
pub(crate) const CHILD: &str = "child";

/// A process that has not ended by then hangs.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Values by the name of what was measured.
pub(crate) type Measured = BTreeMap<String, f64>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Job {
    /// `limited`: as a shard is.
    Put {
        by: PutClient,
        limited: bool,
    },
    /// By the Kinesis Producer Library itself, as limited as a shard.
    PutJava,
    Poll,
    FanOut {
        by: Side,
    },
    Takeover,
    Requests {
        by: Library,
        failover: Duration,
    },
}

impl Job {
    /// How many rounds it is measured in, if nothing else is asked for.
    pub(crate) const fn rounds(self) -> usize {
        match self {
            // It takes minutes, and what is counted follows clocks: chance has little part in it.
            Self::Requests { .. } => 1,
            _ => crate::ROUNDS,
        }
    }
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum PutClient {
    /// Ours, with the aggregation of the Kinesis Producer Library.
    Kpl,
    /// Ours, each record one of Kinesis.
    Off,
    /// `PutRecords` by hand.
    Loop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Side {
    Ours,
    Raw,
}

/// Whose members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Library {
    Ours,
    /// The Kinesis Client Library 2.7.2.
    Kcl2,
    /// 3.5.1, in the phase that goes with version 2.
    Kcl3,
}

/// Where a job is done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Target {
    /// Perhaps by way of a proxy.
    pub(crate) kinesis: String,
    /// The file with the certificate to trust for it, where it asks for TLS.
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) dynamodb: String,
    /// Past any proxy.
    pub(crate) kinesis_itself: String,
    /// Past any proxy.
    pub(crate) dynamodb_itself: String,
    pub(crate) stream: String,
    /// None has joined it before.
    pub(crate) group: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    Measure(Job, Target),
    /// Handles what comes until standard input is closed, and reports each record.
    Member {
        target: Target,
        failover: Duration,
    },
}

impl Task {
    /// The command that does it, in a process of its own. Its error output is shown.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(CHILD).arg(serde_json::to_string(self)?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.kill_on_drop(true);
        let (Self::Measure(_, target) | Self::Member { target, .. }) = self;
        if let Some(certificate) = &target.certificate {
            // The clients have no setting of their own for it: they trust what the machine does.
            command.env("SSL_CERT_FILE", certificate);
        }
        Ok(command)
    }

    /// Runs in the process that [`command`](Self::command) has started.
    pub(crate) fn run(task: &str) -> Result<()> {
        match serde_json::from_str(task)? {
            Self::Measure(job, target) => {
                watchdog::watch(TIMEOUT, format!("{job:?}"));
                let measured = match job {
                    Job::Put { by, limited } => put::run(by, limited, &target)?,
                    Job::PutJava => put_java::run(&target)?,
                    Job::Poll => poll::run(&target)?,
                    Job::FanOut { by } => fan_out::run(by, &target)?,
                    Job::Takeover | Job::Requests { .. } => {
                        return Err("it takes several processes".into());
                    }
                };
                let mut out = io::stdout().lock();
                Ok(writeln!(out, "{}", serde_json::to_string(&measured)?)?)
            }
            Self::Member { target, failover } => member::run(&target, failover),
        }
    }

    /// Runs it elsewhere, and waits for what it measures.
    pub(crate) async fn measure(&self) -> Result<Measured> {
        let output = self.command()?.spawn()?.wait_with_output().await?;
        if !output.status.success() {
            return Err(format!("{self:?}: {}", output.status).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}
