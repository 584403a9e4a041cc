//! One member of a group, in a separate process, so that it can be killed.
//!
//! It reports each record that it handles, on a line of standard output, and leaves cleanly when
//! standard input is closed.

use std::io::{self, Read as _, Write as _};
use std::thread;
use std::time::Duration;

use millstream_core::Delivery;
use millstream_kinesis::Retrieval;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::environment::runtime;
use crate::job::Target;
use crate::{Result, clock, ours};

/// The report of a handled record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HandledRecord {
    pub(crate) partition: String,
    /// The time by the machine's clock.
    pub(crate) at: Duration,
}

fn report(partition: &str) -> io::Result<()> {
    let reported = serde_json::to_vec(&HandledRecord {
        partition: partition.to_owned(),
        at: clock::monotonic(),
    })?;
    // Each line is flushed at once: data that is only in memory is lost with the process.
    let mut out = io::stdout().lock();
    out.write_all(&reported)?;
    out.write_all(b"\n")?;
    out.flush()
}

pub(crate) fn run(target: &Target, failover: Duration, retrieval: Retrieval) -> Result<()> {
    let (close, closed) = oneshot::channel();
    thread::spawn(move || {
        // Closed and broken have the same meaning: the parent process is gone.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        let _ = close.send(());
    });
    runtime()?.block_on(async {
        let mut config = ours::config(target);
        config.consumer.session_timeout = failover;
        config.consumer.retrieval = retrieval;
        let client = config.connect().await?;
        let group = client.group(target.group.as_str()).stream(&*target.stream);
        let handle = |delivery: Delivery| async move { report(delivery.partition().id()) };
        let ended = async {
            let _ = closed.await;
        };
        Ok(group.run(handle, ended).await?)
    })
}
