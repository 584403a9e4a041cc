//! Splits and merges partitions while records are sent.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use millstream::{Guarantee, Partition};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::fleet::{Fleet, PROCESSED, RAW};

/// The number of stored reports at which a partition of each stream is split.
const SPLIT_AT: u64 = 4_000;

/// The number of stored reports at which its two children are merged.
const MERGE_AT: u64 = 10_000;

const TICK: Duration = Duration::from_millis(20);

/// The split and merge in progress, if requested.
#[derive(Debug, Default)]
pub(crate) struct Reshard(Option<JoinHandle<anyhow::Result<()>>>);

impl Reshard {
    /// Waits in the background for the time to split.
    ///
    /// # Errors
    /// The backend cannot split partitions and keep the order of keys.
    pub(crate) fn begin(fleet: &Arc<Fleet>) -> anyhow::Result<Self> {
        if !fleet.client.guarantees().has(Guarantee::OrderedReshard) {
            bail!("this backend cannot split and merge partitions: leave --reshard out");
        }
        Ok(Self(Some(tokio::spawn(run(fleet.clone())))))
    }

    /// Waits for a reshard in progress. Fails if it has not started when all records are sent.
    pub(crate) async fn end(self, fleet: &Fleet) -> anyhow::Result<()> {
        let Some(task) = self.0 else { return Ok(()) };
        if fleet.reports.expected() < MERGE_AT {
            task.abort();
            bail!("--reshard takes an input of {MERGE_AT} records or more");
        }
        task.await.context("the reshard ended")?
    }
}

async fn run(fleet: Arc<Fleet>) -> anyhow::Result<()> {
    let streams = fleet.client.streams();
    stored(&fleet, SPLIT_AT).await;
    let mut halves = Vec::new();
    for stream in [RAW, PROCESSED] {
        let whole = open(&fleet, stream, |_| true).await?.remove(0);
        streams.split(&whole).await?;
        let children = open(&fleet, stream, |parents| parents.contains(&whole)).await?;
        fleet.notes.say(format!("reshard: {whole} is split"));
        halves.push(children);
    }
    stored(&fleet, MERGE_AT).await;
    for children in halves {
        let [one, other] = &children[..] else {
            bail!("a partition was split into {}", children.len());
        };
        streams.merge(one, other).await?;
        fleet
            .notes
            .say(format!("reshard: {one} and {other} are merged"));
    }
    Ok(())
}

async fn stored(fleet: &Fleet, count: u64) {
    while fleet.reports.expected() < count {
        sleep(TICK).await;
    }
}

/// Returns the open partitions whose parents are `wanted`.
async fn open(
    fleet: &Fleet,
    stream: &str,
    wanted: impl Fn(&[Partition]) -> bool,
) -> anyhow::Result<Vec<Partition>> {
    let described = fleet.client.streams().describe(stream).await?;
    let open = described.partitions.into_iter().filter(|p| p.open);
    Ok(open
        .filter(|p| wanted(&p.parents))
        .map(|p| p.partition)
        .collect())
}
