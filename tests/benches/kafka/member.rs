//! One member of a group, in a process of its own, so that it can be killed.
//!
//! It reports each record that it handles, on a line of standard output, and leaves cleanly when
//! standard input is closed.

use std::io::{self, Read as _, Write as _};
use std::thread;

use futures_util::StreamExt;
use millstream_core::Delivery;
use rdkafka::message::Message as _;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::environment::runtime;
use crate::job::{Protocol, Side, Target};
use crate::{Result, clock, ours, raw};

/// A record was handled.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct HandledRecord {
    pub(crate) partition: usize,
    /// By the machine's clock.
    pub(crate) nanos: u128,
}

fn report(partition: usize) -> io::Result<()> {
    let nanos = clock::monotonic().as_nanos();
    let reported = serde_json::to_vec(&HandledRecord { partition, nanos })?;
    // Each at once: what is only in memory dies with the process.
    let mut out = io::stdout().lock();
    out.write_all(&reported)?;
    out.write_all(b"\n")?;
    out.flush()
}

pub(crate) fn run(by: Side, protocol: Protocol, target: &Target) -> Result<()> {
    let (close, closed) = oneshot::channel();
    thread::spawn(move || {
        // Closed and broken are alike: who has started this is gone.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        let _ = close.send(());
    });
    runtime()?.block_on(async {
        match by {
            Side::Ours => ours(protocol, target, closed).await,
            Side::Raw => raw(protocol, target, closed).await,
        }
    })
}

async fn ours(protocol: Protocol, target: &Target, closed: oneshot::Receiver<()>) -> Result<()> {
    let client = ours::connect_by(target, protocol).await?;
    let group = client.group(target.group.as_str()).stream(&*target.topic);
    let handle = |delivery: Delivery| async move {
        let partition = delivery.partition().id().parse()?;
        report(partition)?;
        Result::<_>::Ok(())
    };
    let ended = async {
        let _ = closed.await;
    };
    Ok(group.run(handle, ended).await?)
}

/// At the defaults of librdkafka but for the protocol: its own is the eager one, which stops all
/// partitions each time.
async fn raw(protocol: Protocol, target: &Target, mut closed: oneshot::Receiver<()>) -> Result<()> {
    let mut config = raw::consumer(target);
    match protocol {
        Protocol::Cooperative => config.set("partition.assignment.strategy", "cooperative-sticky"),
        Protocol::Consumer => config.set("group.protocol", "consumer"),
    };
    let consumer = raw::subscribe(&config, target)?;
    let mut records = consumer.stream();
    loop {
        tokio::select! {
            _ = &mut closed => return Ok(()),
            Some(record) = records.next() => report(usize::try_from(record?.partition())?)?,
        }
    }
}
