//! A member that is admitted late, with a stream that its group has begun to read meanwhile.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue fails")]

use std::time::Duration;

use conformance::Events;
use millstream_core::{Client, Record, Start, StreamSpec};
use millstream_kafka::Protocol;
use tokio::time::{Instant, sleep, timeout};

use crate::{config, connect, start};

const TIMEOUT: Duration = Duration::from_secs(100);
const GROUP: &str = "late";
const RECORDS: usize = 1_000;

/// Uses KIP-848, with which a member waits for its name while another member has it.
async fn client(bootstrap: &str, instance_id: Option<&str>) -> Client {
    let mut config = config(bootstrap);
    config.consumer.protocol = Protocol::Consumer;
    config.consumer.instance_id = instance_id.map(str::to_owned);
    connect(config).await
}

async fn until_settled(client: &Client, stream: &str) {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let checkpoints = client.group(GROUP).checkpoints().await.unwrap();
        let of_stream = checkpoints
            .iter()
            .find(|checkpoint| checkpoint.partition.stream() == stream);
        if of_stream.is_some_and(|it| it.position.is_some() && it.lag.records == Some(0)) {
            return;
        }
        assert!(Instant::now() < deadline, "{checkpoints:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_that_others_made_meanwhile_stays() {
    const NAME: &str = "has-a-name";
    let events = Events::listen();
    let (broker, _) = start().await;
    let bootstrap = broker.bootstrap();
    let plain = client(&bootstrap, None).await;
    for stream in ["late-old", "late-new"] {
        let spec = StreamSpec::new(stream).partitions(1);
        plain.streams().create(spec).await.unwrap();
    }
    let producer = plain.producer("late-new").open().await.unwrap();
    for number in 0..RECORDS {
        let record = Record::new(number.to_string());
        drop(producer.send(record).await.unwrap());
    }
    producer.close().await.unwrap();

    let named = client(&bootstrap, Some(NAME)).await;
    let first = named.group(GROUP).stream("late-old").join().await.unwrap();
    let both = |client: &Client| {
        let group = client.group(GROUP).stream("late-old").stream("late-new");
        group.start(Start::Earliest)
    };
    let late = both(&client(&bootstrap, Some(NAME)).await);
    let late = tokio::spawn(async move { late.join().await });
    // By now it knows where the group would begin.
    let deadline = Instant::now() + TIMEOUT;
    while events
        .with("millstream.kafka.group.begins", "stream", "late-new")
        .is_empty()
    {
        assert!(Instant::now() < deadline, "it looks where the group begins");
        sleep(Duration::from_millis(10)).await;
    }

    let mut quick = both(&plain).join().await.unwrap();
    for _ in 0..RECORDS {
        let next = timeout(TIMEOUT, quick.next()).await.unwrap();
        next.unwrap().unwrap().ack();
    }
    until_settled(&plain, "late-new").await;
    assert!(!late.is_finished(), "it waits for its name");
    first.close().await.unwrap();
    let late = timeout(TIMEOUT, late).await.unwrap().unwrap().unwrap();
    until_settled(&plain, "late-new").await;
    late.close().await.unwrap();
    quick.close().await.unwrap();
    until_settled(&plain, "late-new").await;
}
