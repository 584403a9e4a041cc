//! The reports of running members and producers: lag, and the health of their brokers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use conformance::kafka::Options;
use conformance::{Events, Timing, eventually};
use millstream_core::{Client, Delivery, Lag, Partition, Record, Start, StreamSpec};
use tokio::sync::Semaphore;

use crate::{config, connect};

const TIMING: Timing = Timing {
    session: Duration::from_secs(10),
    handover: Duration::from_secs(2),
    timeout: Duration::from_secs(60),
    poll_interval: Duration::from_millis(50),
    timestamps: Duration::from_millis(1),
};

const NONE: Lag = Lag {
    records: Some(0),
    time: Some(Duration::ZERO),
};

/// Returns a client with frequent statistics.
async fn watched(bootstrap: &str) -> Client {
    let mut settings = config(bootstrap);
    settings.statistics_interval = Duration::from_millis(200);
    connect(settings).await
}

async fn send(client: &Client, stream: &str, count: usize) {
    let producer = client.producer(stream).open().await.expect("it is there");
    for _ in 0..count {
        let record = Record::new("x").key("k");
        // The flush awaits it.
        drop(producer.send(record).await.expect("there is room"));
    }
    producer.flush().await.expect("all are stored");
    producer.close().await.expect("nothing is left");
}

async fn create(client: &Client, stream: &str) {
    let spec = StreamSpec::new(stream).partitions(1);
    client.streams().create(spec).await.expect("it is new");
}

#[tokio::test]
async fn lag_is_told_where_nothing_is_delivered() {
    let broker = Options::new().start().await;
    let client = watched(&broker.bootstrap()).await;
    let only = |stream: &str| Partition::new(stream.to_owned(), "0");

    // Nothing was ever sent.
    create(&client, "empty").await;
    let run = client.group("waiting").stream("empty").run(
        async |_: Delivery| Ok::<_, Infallible>(()),
        std::future::pending(),
    );
    let control = run.handle();
    let waiting = tokio::spawn(run);
    eventually(
        TIMING,
        "a member at the end knows that it is there",
        || async {
            let partitions = control.partitions();
            (partitions.get(&only("empty"))?.lag == NONE).then_some(())
        },
    )
    .await;
    control.shutdown();
    waiting.await.expect("no panic").expect("it leaves");

    // The handler is stuck: its partition is paused, and the producer continues sending.
    create(&client, "stuck").await;
    send(&client, "stuck", 20).await;
    let gate = Arc::new(Semaphore::new(0));
    let behind = client
        .group("behind")
        .stream("stuck")
        .start(Start::Earliest);
    let run = behind.max_unsettled_per_partition(5).run(
        {
            let gate = gate.clone();
            move |_: Delivery| {
                let gate = gate.clone();
                async move {
                    gate.acquire().await.expect("it is not closed").forget();
                    Ok::<_, Infallible>(())
                }
            }
        },
        std::future::pending(),
    );
    let control = run.handle();
    let behind = tokio::spawn(run);
    let lag = || async { Some(control.partitions().get(&only("stuck"))?.lag) };
    eventually(TIMING, "its window is full", || async {
        (control.stats().received >= 5).then_some(())
    })
    .await;
    send(&client, "stuck", 100).await;
    let first = eventually(TIMING, "it knows how far it is behind", || async {
        let lag = lag().await?;
        (lag.records? == 120 - control.stats().received).then_some(lag)
    })
    .await;
    eventually(TIMING, "what waits grows older", || async {
        (lag().await?.time > first.time).then_some(())
    })
    .await;
    gate.add_permits(120);
    eventually(TIMING, "it has caught up", || async {
        (control.stats().settled == 120 && lag().await? == NONE).then_some(())
    })
    .await;
    control.shutdown();
    behind.await.expect("no panic").expect("it leaves");
}

#[tokio::test]
async fn a_broker_is_told_down_and_up_again() {
    let events = Events::listen();
    let broker = Options::new().start().await;
    let bootstrap = broker.bootstrap();
    let client = watched(&bootstrap).await;
    create(&client, "watched").await;
    let producer = client
        .producer("watched")
        .open()
        .await
        .expect("it is there");
    let run = client.group("watching").stream("watched").run(
        async |_: Delivery| Ok::<_, Infallible>(()),
        std::future::pending(),
    );
    let control = run.handle();
    let member = tokio::spawn(run);
    let first = producer.send(Record::new("x")).await;
    let first = first.expect("there is room");
    first.await.expect("it is stored");
    let reported = |name: &str, who: (&str, &str)| {
        let of_broker = events.with(name, "broker", &bootstrap).into_iter();
        of_broker
            .filter(|reported| reported.has(who.0, who.1))
            .count()
    };
    let both = [("group", "watching"), ("stream", "watched")];
    let each = |name: &str| both.map(|who| reported(name, who));
    eventually(TIMING, "both report how fast it responds", || async {
        let reported = each("millstream.kafka.broker.statistics");
        reported.iter().all(|count| *count > 0).then_some(())
    })
    .await;
    assert_eq!(each("millstream.kafka.broker.down"), [0, 0]);

    broker.kill().await;
    let receipt = producer.send(Record::new("x")).await;
    let receipt = receipt.expect("there is room");
    eventually(TIMING, "both report that it is down", || async {
        (each("millstream.kafka.broker.down") == [1, 1]).then_some(())
    })
    .await;
    eventually(TIMING, "the producer reports what waits", || async {
        let name = "millstream.kafka.client.statistics";
        let of_producer = events.with(name, "stream", "watched");
        let waits = of_producer.iter().any(|reported| {
            reported.has("queued_records", "1")
                && reported.has("brokers_down", "1")
                && reported.has("brokers_up", "0")
        });
        waits.then_some(())
    })
    .await;

    broker.start().await;
    receipt.await.expect("it is stored when the broker is back");
    eventually(TIMING, "both report that it is up", || async {
        (each("millstream.kafka.broker.up") == [1, 1]).then_some(())
    })
    .await;
    // Once, regardless of the number of other attempts.
    assert_eq!(each("millstream.kafka.broker.down"), [1, 1]);
    control.shutdown();
    member.await.expect("no panic").expect("it leaves");
    producer.close().await.expect("nothing is left");
}
