//! The jobs, each measured in a separate process, and how a job is passed to its process.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use millstream_kinesis::Retrieval;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::{Result, fan_out, member, poll, put, put_java, watchdog};

/// The first argument of a process that runs a [`Task`].
pub(crate) const CHILD: &str = "child";

/// A process that has not ended after this time hangs.
const TIMEOUT: Duration = Duration::from_secs(300);

/// The measured values, by name.
pub(crate) type Measured = BTreeMap<String, f64>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Job {
    /// `limited`: with the limits of a shard.
    Put {
        by: PutClient,
        limited: bool,
        link: Link,
    },
    /// Sends with the Kinesis Producer Library itself, with the limits of a shard.
    PutJava,
    Poll,
    FanOut {
        by: Side,
        link: Link,
    },
    Takeover,
    Requests {
        by: Library,
        failover: Duration,
    },
    /// The requests of members that join and of members that are at work.
    Membership,
}

impl Job {
    /// Returns the default number of rounds.
    pub(crate) const fn rounds(self) -> usize {
        match self {
            // It takes minutes, and the counts follow timers: chance has little influence on it.
            Self::Requests { .. } | Self::Membership => 1,
            _ => crate::ROUNDS,
        }
    }
}

/// The way from clients to Kinesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Link {
    /// Without latency. With TLS by HTTP/1.1 if shards have limits, otherwise without TLS.
    Local,
    /// Like `Local`, with [`LATENCY`](crate::environment::LATENCY).
    Distant,
    /// As AWS serves Kinesis within a region: TLS, HTTP/2 with 5 streams per connection for clients that offer it, and
    /// 10 ms of latency.
    AwsLike,
}

/// The sender of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum PutClient {
    /// Millstream's producer, with the aggregation of the Kinesis Producer Library.
    Kpl,
    /// Millstream's producer, with one Kinesis record for each record.
    Off,
    /// A loop of `PutRecords`.
    Loop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Side {
    Ours,
    Raw,
}

/// The library of the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Library {
    Ours,
    /// The Kinesis Client Library 2.7.2.
    Kcl2,
    /// The Kinesis Client Library 3.5.1, in the phase that is compatible with version 2.
    Kcl3,
}

/// The target of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Target {
    /// The address of Kinesis, perhaps through a proxy.
    pub(crate) kinesis: String,
    /// The file with the certificate to trust for it, if it requires TLS.
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) dynamodb: String,
    /// The address of Kinesis without a proxy.
    pub(crate) kinesis_itself: String,
    /// The address of DynamoDB without a proxy.
    pub(crate) dynamodb_itself: String,
    pub(crate) stream: String,
    /// No member has joined it before.
    pub(crate) group: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    Measure(Job, Target),
    /// Handles records until standard input is closed, and reports each record.
    Member {
        target: Target,
        failover: Duration,
        retrieval: Retrieval,
    },
}

impl Task {
    /// Returns the command that runs it in a separate process. Its error output is shown.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(CHILD).arg(serde_json::to_string(self)?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.kill_on_drop(true);
        let (Self::Measure(_, target) | Self::Member { target, .. }) = self;
        if let Some(certificate) = &target.certificate {
            // The clients have no setting for it: they trust the machine's certificates.
            command.env("SSL_CERT_FILE", certificate);
        }
        Ok(command)
    }

    /// Runs a task in the process that [`command`](Self::command) has started.
    pub(crate) fn run(task: &str) -> Result<()> {
        match serde_json::from_str(task)? {
            Self::Measure(job, target) => {
                watchdog::watch(TIMEOUT, format!("{job:?}"));
                let measured = match job {
                    Job::Put { by, limited, .. } => put::run(by, limited, &target)?,
                    Job::PutJava => put_java::run(&target)?,
                    Job::Poll => poll::run(&target)?,
                    Job::FanOut { by, .. } => fan_out::run(by, &target)?,
                    Job::Takeover | Job::Requests { .. } | Job::Membership => {
                        return Err("it takes several processes".into());
                    }
                };
                let mut out = io::stdout().lock();
                Ok(writeln!(out, "{}", serde_json::to_string(&measured)?)?)
            }
            Self::Member {
                target,
                failover,
                retrieval,
            } => member::run(&target, failover, retrieval),
        }
    }

    /// Runs it in a separate process, and waits for the measured values.
    pub(crate) async fn measure(&self) -> Result<Measured> {
        let output = self.command()?.spawn()?.wait_with_output().await?;
        if !output.status.success() {
            return Err(format!("{self:?}: {}", output.status).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}
