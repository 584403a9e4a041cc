//! Processes of a group's members, and the events that they report.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millstream_kinesis::Retrieval;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::Result;
use crate::job::{Target, Task};
use crate::member::HandledRecord;

/// A process, which is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: Log,
}

/// The records that a member has handled, in its order.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<HandledRecord>>>);

impl Process {
    /// Starts a member that joins.
    pub(crate) fn join(target: &Target, failover: Duration, retrieval: Retrieval) -> Result<Self> {
        let task = Task::Member {
            target: target.clone(),
            failover,
            retrieval,
        };
        let mut child = task.command()?.spawn()?;
        let out = child.stdout.take().ok_or("no standard output")?;
        let log = Log::default();
        let adds = log.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(out).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                // The last line of a killed process may be incomplete.
                let Ok(reported) = serde_json::from_str(&line) else {
                    break;
                };
                adds.with(|log| log.push(reported));
            }
        });
        Ok(Self { child, log })
    }

    /// Starts to leave, without waiting for the end: it drains meanwhile.
    pub(crate) fn leave(&mut self) {
        drop(self.child.stdin.take());
    }

    pub(crate) async fn left(mut self) -> Result<()> {
        self.leave();
        let status = self.child.wait().await?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("a member ended with {status}").into()),
        }
    }

    pub(crate) async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Fails if the process has ended.
    pub(crate) fn is_there(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("a member ended with {status}").into()),
        }
    }

    /// Returns the partitions whose records it has handled since then, each with the time of the first record.
    pub(crate) fn handled_since(&self, since: Duration) -> Vec<HandledRecord> {
        let mut first = Vec::<HandledRecord>::new();
        self.log.with(|log| {
            for reported in log.iter().filter(|reported| reported.at >= since) {
                if first
                    .iter()
                    .all(|known| known.partition != reported.partition)
                {
                    first.push(reported.clone());
                }
            }
        });
        first
    }
}

impl Log {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<HandledRecord>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
