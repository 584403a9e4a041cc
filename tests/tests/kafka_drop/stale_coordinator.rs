//! A coordinator that does not know a topic, or not yet: commits wait for it, and no member ends.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::PendingDelivery;

use crate::fixture::{Fixture, KEYS, PARTITIONS, pull, stream, unique, until};

const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;

/// More than librdkafka's own retries.
const REFUSALS: u32 = 10;

pub(crate) async fn refuses_commits(fixture: Arc<Fixture>) {
    let client = fixture.client().await;
    let (stream, group) = (stream(&client, 2).await, unique("group"));
    let joining = client.group(&group).stream(stream.as_str());
    let joining = joining.checkpoint_interval(Duration::from_millis(10));
    let mut consumer = joining.join().await.expect("it joins");
    let faults = fixture.testbed.faults();
    faults.refuse_commits_with(&group, UNKNOWN_TOPIC_OR_PARTITION, REFUSALS);
    let deliveries = pull(&mut consumer, KEYS).await;
    deliveries.into_iter().for_each(PendingDelivery::ack);
    // The second record of each key.
    let later = pull(&mut consumer, KEYS).await;
    until("commits are refused", || {
        faults.hits(&group) == u64::from(REFUSALS)
    })
    .await;
    // They are still held, and their settling counts.
    later.into_iter().for_each(PendingDelivery::ack);
    let handle = consumer.handle();
    until("all is stored", || {
        let partitions = handle.partitions();
        let settled = partitions.values().filter(|stats| stats.unsettled == 0);
        settled.count() == PARTITIONS
    })
    .await;
    consumer.close().await.expect("it closes");
    let checkpoints = client.group(&group).checkpoints().await;
    let checkpoints = checkpoints.expect("the group has progress");
    let left = checkpoints.iter().map(|checkpoint| checkpoint.lag.records);
    assert!(left.clone().all(|left| left == Some(0)), "{checkpoints:?}");
}
