//! How quick members are in what others wait for.

use std::sync::Arc;
use std::time::Duration;

use conformance::kafka::Asked;
use millstream::{Client, Consumer};

use crate::ground::{Ground, PARTITIONS, stream, unique, until};

/// A client, with the id by which the site knows its member.
async fn client(ground: &Ground, beats: Duration) -> (String, Client) {
    let id = unique("member");
    let client = ground.client_of(id.clone(), beats).await;
    (id, client)
}

async fn join(client: &Client, group: &str, stream: &str) -> Consumer {
    let group = client.group(group).stream(stream);
    let group = group.checkpoint_interval(Duration::from_millis(10));
    group.join().await.expect("it joins")
}

async fn owns(consumer: &Consumer, partitions: usize) {
    let control = consumer.control();
    until("the partitions are shared", || {
        control.partitions().len() == partitions
    })
    .await;
}

/// Without us librdkafka is awake three times too rarely for so many in that time.
pub(crate) async fn heartbeats(ground: Arc<Ground>) {
    const EVERY: Duration = Duration::from_millis(100);
    const COUNT: usize = 20;
    let within = 2 * EVERY * COUNT as u32;
    let (id, client) = client(&ground, EVERY).await;
    let stream = stream(&client, 0).await;
    let consumer = join(&client, &unique("group"), &stream).await;
    owns(&consumer, PARTITIONS).await;

    let spans = || {
        let beats = ground.site.asked(&id, Asked::Heartbeat);
        let spans = beats.windows(COUNT + 1).map(|all| all[COUNT] - all[0]);
        spans.collect::<Vec<_>>()
    };
    until("heartbeats come in time", || {
        spans().iter().any(|span| *span < within)
    })
    .await;
    println!("{COUNT} heartbeats took {:?}", spans());
    consumer.close().await.expect("it closes");
}
