//! Polling a full stream, as one member of a separate group, from the beginning until all records are handled.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use conformance::kinesis::Read;
use millstream_core::Delivery;
use tokio::sync::Notify;

use crate::environment::{STORED, runtime};
use crate::job::{Measured, Target};
use crate::{Result, clock, ours};

/// The bytes that a shard returns per second.
const SHARD_BYTES: f64 = 2_097_152.0;

#[derive(Default)]
struct Handled {
    count: AtomicUsize,
    finished: Notify,
}

pub(crate) fn run(target: &Target) -> Result<Measured> {
    let before = clock::processor();
    let runtime = runtime()?;
    let at = target.clone();
    let rate = runtime.block_on(runtime.spawn(async move { consume(&at).await }))??;
    drop(runtime);
    let spent = clock::processor() - before;
    let each = spent.as_nanos() as f64 / STORED as f64;
    Ok([("rate".into(), rate), ("cpu".into(), each)].into())
}

async fn consume(target: &Target) -> Result<f64> {
    let client = ours::config(target).connect().await?;
    let group = client.group(target.group.as_str()).stream(&*target.stream);
    let handled = Arc::new(Handled::default());
    let ends = handled.clone();
    let handle = move |delivery: Delivery| {
        let handled = handled.clone();
        async move {
            black_box(delivery.payload());
            if handled.count.fetch_add(1, Relaxed) + 1 == STORED {
                handled.finished.notify_one();
            }
            Ok::<_, Infallible>(())
        }
    };
    let begun = Instant::now();
    let (ended, end) = tokio::sync::oneshot::channel();
    let finished = async move {
        ends.finished.notified().await;
        // The receiver is dropped only together with this.
        let _ = ended.send(begun.elapsed());
    };
    group.run(handle, finished).await?;
    Ok(STORED as f64 / end.await?.as_secs_f64())
}

/// Returns the fraction of a shard's limit that was read: the responses of each shard except its last one, over the
/// time between the first and the last, of all shards. A response of a second's worth may arrive at once, and
/// the wait for the next one compensates for it.
pub(crate) fn share(reads: &BTreeMap<String, Vec<Read>>) -> Result<f64> {
    let (mut bytes, mut seconds) = (0, 0.0);
    for shard in reads.values() {
        let [first, .., last] = &**shard else {
            return Err("a shard was read at once".into());
        };
        bytes += shard.iter().map(|read| read.bytes).sum::<u64>() - last.bytes;
        seconds += (last.at - first.at).as_secs_f64();
    }
    Ok(bytes as f64 / (SHARD_BYTES * seconds))
}
