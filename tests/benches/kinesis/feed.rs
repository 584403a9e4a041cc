//! Records at a steady rate, one to each shard at a time, sent by plain requests.

use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use tokio::task::{JoinHandle, JoinSet};

use crate::job::Target;
use crate::keys::{BYTES, SHARDS, keys};
use crate::{Result, clock, raw};

/// Dropping it ends the feed.
pub(crate) struct Feed {
    task: JoinHandle<Result<()>>,
}

impl Feed {
    /// Sends a record to each shard at the interval `every`. Each contains the time when it was due.
    pub(crate) fn start(target: &Target, every: Duration) -> Self {
        let target = target.clone();
        Self {
            task: tokio::spawn(async move { feed(&target, every).await }),
        }
    }

    /// Ends the feed. Returns an error if it has ended before.
    pub(crate) async fn stop(mut self) -> Result<()> {
        match self.task.is_finished() {
            true => (&mut self.task).await?,
            false => Ok(()),
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn feed(target: &Target, every: Duration) -> Result<()> {
    let kinesis = raw::kinesis(&target.kinesis_itself);
    let keys = keys();
    let begun = clock::monotonic();
    let mut requests = JoinSet::new();
    for (tick, keys) in (0..).zip(keys.chunks(SHARDS).cycle()) {
        let due = begun + every * tick;
        tokio::time::sleep(due.saturating_sub(clock::monotonic())).await;
        let mut payload = vec![b'x'; BYTES];
        let nanos = u64::try_from(due.as_nanos())?;
        payload[..8].copy_from_slice(&nanos.to_be_bytes());
        let entry = |key| {
            let entry = PutRecordsRequestEntry::builder().partition_key(key);
            entry.data(Blob::new(payload.clone())).build()
        };
        let entries = keys.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        let request = kinesis.put_records().stream_name(&target.stream);
        let request = request.set_records(Some(entries));
        // Not awaited here: a slow response must not delay due records.
        requests.spawn(request.send());
        while let Some(response) = requests.try_join_next() {
            if response??.failed_record_count() != Some(0) {
                return Err("a record of the feed was refused".into());
            }
        }
    }
    Ok(())
}
