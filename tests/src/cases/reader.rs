use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use millstream_core::{Consumer, Delivery, PendingDelivery};

use crate::harness::note_wait;
use crate::history::id_of;
use crate::{Harness, Timing};

/// Returns the next delivery, which must arrive.
#[track_caller]
pub(super) fn pull(
    timing: Timing,
    consumer: &mut Consumer,
) -> impl Future<Output = PendingDelivery> {
    let caller = std::panic::Location::caller();
    async move {
        let next = tokio::time::timeout(timing.timeout, consumer.next()).await;
        let next = next.unwrap_or_else(|_| {
            let partitions = consumer.handle().partitions();
            panic!("timed out waiting for a delivery ({caller}): {partitions:#?}")
        });
        note_wait(caller);
        let next = next.unwrap_or_else(|error| panic!("the consumer failed: {error:?} ({caller})"));
        next.unwrap_or_else(|| panic!("the consumer was closed ({caller})"))
    }
}

/// Returns whether nothing arrives for a while.
pub(super) async fn nothing_comes(timing: Timing, consumer: &mut Consumer) -> bool {
    tokio::time::timeout(timing.handover, consumer.next())
        .await
        .is_err()
}

/// Reads `count` records from the beginning of a stream, with its own group.
pub(super) async fn read(harness: &dyn Harness, stream: &str, count: usize) -> Vec<Delivery> {
    read_those(harness, stream, count, |_| true).await
}

/// Reads from the beginning of a stream until `count` records were accepted, with its own group.
async fn read_those(
    harness: &dyn Harness,
    stream: &str,
    count: usize,
    mut keeps: impl FnMut(&Delivery) -> bool,
) -> Vec<Delivery> {
    let client = harness.client().await;
    let group = client.group(harness.unique("reader")).stream(stream);
    let mut consumer = group.join().await.expect("the reader joins");
    let mut read = Vec::new();
    while read.len() < count {
        let next = pull(harness.timing(), &mut consumer).await;
        if keeps(&next) {
            read.push((*next).clone());
        }
        next.ack();
    }
    consumer.close().await.expect("the reader closes");
    read
}

/// Reads the dead letters of `count` records, each once: a letter whose receipt was lost is sent again, and is then
/// stored twice.
pub(super) async fn letters(harness: &dyn Harness, stream: &str, count: usize) -> Vec<Delivery> {
    let mut positions = BTreeSet::new();
    let is_new = |letter: &Delivery| {
        let of = ["stream", "partition", "position"].map(|name| {
            let value = letter.headers().get_str(&format!("millstream-dead-{name}"));
            value.map(str::to_owned)
        });
        positions.insert(of)
    };
    read_those(harness, stream, count, is_new).await
}

/// Returns the ids of each key's records in the order of their arrival.
pub(super) fn ids_by_key(read: &[Delivery]) -> BTreeMap<Option<Bytes>, Vec<u64>> {
    let mut ids: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for delivery in read {
        let id = id_of(delivery.payload()).expect("the payload has its id");
        ids.entry(delivery.key().cloned()).or_default().push(id);
    }
    ids
}
