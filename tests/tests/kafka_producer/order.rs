//! The records of each key are stored once and in order, whatever happens to the broker.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use conformance::kafka::Options;
use futures_util::FutureExt;
use futures_util::future::join_all;
use millstream_core::driver::Backend;
use millstream_core::{Client, Record};
use millstream_kafka::Kafka;

use crate::raw_client::{
    StoredMessage, config, connect, create, numbered, read, send_all, send_and_wait, shared_broker,
};

const KEYS: u64 = 97;

/// Sends `count` numbered records with at most 10,000 in flight, one at a time, over all keys.
/// Returns the number of acknowledged records.
async fn send_numbered(client: &Client, topic: &str, numbers: std::ops::Range<u64>) -> u64 {
    let producer = client.producer(topic).open().await.unwrap();
    let records = numbers.map(|number| numbered(number, KEYS));
    let results = send_all(&producer, records).await.await;
    producer.close().await.unwrap();
    for result in &results {
        assert!(result.is_ok(), "{result:?}");
    }
    results.len() as u64
}

/// Returns the numbers of each key in stored order.
fn by_key(stored: &BTreeMap<i32, Vec<StoredMessage>>) -> BTreeMap<u64, Vec<u64>> {
    let mut keys = BTreeMap::<_, Vec<_>>::new();
    for seen in stored.values().flatten() {
        let payload = seen.payload.as_deref().unwrap();
        let number = u64::from_be_bytes(payload.try_into().unwrap());
        let key = String::from_utf8(seen.key.clone().unwrap()).unwrap();
        keys.entry(key.parse().unwrap()).or_default().push(number);
    }
    keys
}

/// Returns those of the first `count` numbers that belong to a key.
fn of_key(key: u64, count: u64) -> impl Iterator<Item = u64> {
    (0..count).filter(move |number| number % KEYS == key)
}

/// Asserts that nothing is lost, repeated or out of order.
fn assert_each_once_in_order(stored: &BTreeMap<i32, Vec<StoredMessage>>, count: u64) {
    let keys = by_key(stored);
    assert_eq!(keys.len() as u64, KEYS);
    for (key, numbers) in keys {
        let sent: Vec<_> = of_key(key, count).collect();
        assert!(numbers == sent, "key {key}: {numbers:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_and_comes_back_costs_nothing() {
    const COUNT: u64 = 300_000;
    let broker = Options::new().start().await;
    let bootstrap = broker.bootstrap();
    create(&bootstrap, "killed", 4, &[]).await;
    let client = connect(&bootstrap).await;

    let sending = tokio::spawn(async move { send_numbered(&client, "killed", 0..COUNT).await });
    let begun = |stored: &BTreeMap<i32, Vec<StoredMessage>>| stored.values().any(|p| !p.is_empty());
    while !begun(&read(&bootstrap, "killed").await) {}
    broker.kill().await;
    assert!(!sending.is_finished(), "the broker was killed too late");
    broker.start().await;

    assert_eq!(sending.await.unwrap(), COUNT);
    assert_each_once_in_order(&read(&bootstrap, "killed").await, COUNT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_freezes_is_waited_for() {
    const COUNT: u64 = 50_000;
    let broker = Options::new().start().await;
    let bootstrap = broker.bootstrap();
    create(&bootstrap, "frozen", 4, &[]).await;
    let client = connect(&bootstrap).await;
    let producer = client.producer("frozen").open().await.unwrap();
    // The connections are open when the broker freezes.
    send_and_wait(&producer, Record::new("first"))
        .await
        .unwrap();

    broker.pause().await;
    let waiting = producer.send(Record::new("second")).await.unwrap();
    let more = tokio::spawn({
        let client = client.clone();
        async move { client.producer("frozen").open().await.map(drop) }
    });
    let mut waiting = Box::pin(waiting);
    let early = tokio::time::timeout(Duration::from_secs(2), &mut waiting).await;
    assert!(early.is_err(), "acknowledged by a frozen broker: {early:?}");
    broker.unpause().await;
    waiting.await.unwrap();
    more.await.unwrap().unwrap();
    producer.close().await.unwrap();

    create(&bootstrap, "thawed", 4, &[]).await;
    send_numbered(&client, "thawed", 0..COUNT).await;
    assert_each_once_in_order(&read(&bootstrap, "thawed").await, COUNT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_clients_at_once_keep_their_own_order() {
    const EACH: u64 = 20_000;
    let bootstrap = shared_broker().await;
    create(&bootstrap, "five", 4, &[]).await;

    let sending = (0..5).map(|client| {
        let bootstrap = bootstrap.clone();
        tokio::spawn(async move {
            let own = connect(&bootstrap).await;
            send_numbered(&own, "five", client * EACH..(client + 1) * EACH).await
        })
    });
    let sent: u64 = join_all(sending)
        .await
        .into_iter()
        .map(Result::unwrap)
        .sum();
    assert_eq!(sent, 5 * EACH);

    for (key, mut numbers) in by_key(&read(&bootstrap, "five").await) {
        // Those of one client are in order, interleaved with those of the others.
        numbers.sort_by_key(|number| number / EACH);
        let all: Vec<_> = of_key(key, 5 * EACH).collect();
        assert!(numbers == all, "key {key}: {numbers:?}");
    }
}

/// More than librdkafka's queue accepts by default: a producer's own setting bounds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_flight_has_one_bound() {
    const COUNT: u64 = 250_000;
    let broker = Options::new().start().await;
    let bootstrap = broker.bootstrap();
    create(&bootstrap, "many", 4, &[]).await;
    let client = connect(&bootstrap).await;
    let producer = client.producer("many").in_flight_records(COUNT as usize);
    let producer = producer.open().await.unwrap();

    broker.pause().await;
    let records = (0..COUNT).map(|number| numbered(number, KEYS));
    let results = send_all(&producer, records).await;
    let full = tokio::time::timeout(Duration::from_millis(500), producer.send(Record::new("")));
    assert!(full.await.is_err(), "there is room beyond the bound");
    broker.unpause().await;

    for result in results.await {
        result.unwrap();
    }
    producer.close().await.unwrap();
    assert_each_once_in_order(&read(&bootstrap, "many").await, COUNT);
}

/// The driver's own calls: each is dropped right after its first poll, or somewhat later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_calls_store_each_record_once_or_not_at_all() {
    const CALLS: u64 = 400;
    const EACH: u64 = 50;
    let bootstrap = shared_broker().await;
    create(&bootstrap, "dropped", 4, &[]).await;
    let kafka = Kafka::connect(config(&bootstrap)).await.unwrap();
    let producer = kafka.open_producer("dropped", &[]).await.unwrap();
    let mut random = fastrand::Rng::new();

    for call in 0..CALLS {
        let records = (call * EACH..(call + 1) * EACH).map(|number| numbered(number, KEYS));
        let patience = Duration::from_micros(random.u64(..5_000));
        let sending = producer.send(records.collect());
        match call % 4 {
            0 => drop(sending),
            1 => assert!(sending.now_or_never().is_none(), "finished at once"),
            2 => _ = tokio::time::timeout(patience, sending).await,
            _ => assert!(sending.await.iter().all(Result::is_ok)),
        }
    }
    // One more for every key, after all other records of that key.
    let last =
        (0..KEYS).map(|key| Record::new(u64::MAX.to_be_bytes().to_vec()).key(format!("{key}")));
    assert!(
        producer
            .send(last.collect())
            .await
            .iter()
            .all(Result::is_ok)
    );
    producer.close().await.unwrap();

    for (key, mut numbers) in by_key(&read(&bootstrap, "dropped").await) {
        assert_eq!(numbers.pop(), Some(u64::MAX), "key {key:?}");
        let in_order = numbers.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(in_order, "key {key:?}: {numbers:?}");
        // A call that was never polled has not begun.
        assert!(
            numbers.iter().all(|number| number / EACH % 4 != 0),
            "{numbers:?}"
        );
        let awaited = |number: &u64| number / EACH % 4 == 3;
        let expected: Vec<_> = of_key(key, CALLS * EACH).filter(awaited).collect();
        let kept: Vec<_> = numbers
            .into_iter()
            .filter(|number| awaited(number))
            .collect();
        assert_eq!(kept, expected);
    }
}

/// Dropping a producer ends its threads and connections, also with dropped calls in flight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_producer_leaves_nothing_behind() {
    let bootstrap = shared_broker().await;
    create(&bootstrap, "left", 1, &[]).await;
    let kafka = Kafka::connect(config(&bootstrap)).await.unwrap();
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names = tasks
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.trim() == "kafka-left").count()
    };
    for _ in 0..5 {
        let producer = kafka.open_producer("left", &[]).await.unwrap();
        assert!(
            producer
                .send(vec![Record::new("x"); 100])
                .now_or_never()
                .is_none()
        );
        let begun = Instant::now();
        drop(producer);
        assert!(
            begun.elapsed() < Duration::from_millis(50),
            "{:?}",
            begun.elapsed()
        );
    }
    let begun = Instant::now();
    while threads() > 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{} threads live on",
            threads()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
