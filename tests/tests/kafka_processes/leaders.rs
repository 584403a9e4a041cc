//! The effects on clients when the leader of a partition freezes, or is gone without a replacement.

use std::time::Duration;

use conformance::Events;
use conformance::kafka::{Cluster, Options};
use millstream_core::{
    Client, ConsumerGroup, Delivery, ErrorKind, Producer, Receipt, Record, Start,
};
use millstream_kafka::Config;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// The timeout of everything that must happen.
const TIMEOUT: Duration = Duration::from_secs(90);

/// The broker on which tools are run.
const TOOLS: usize = 0;

/// Returns a broker that can freeze and be stopped: neither the one on which tools are run, nor the controller, which
/// would first have to be replaced.
async fn expendable(cluster: &Cluster) -> usize {
    let args = ["describe", "--status"];
    let status = cluster
        .broker(TOOLS)
        .tool("kafka-metadata-quorum.sh", &args);
    let status = status.await.ok();
    let controller = status
        .lines()
        .find_map(|line| line.strip_prefix("LeaderId:"));
    let controller = controller.and_then(|id| id.trim().parse().ok());
    let controller: usize = controller.unwrap_or_else(|| panic!("no controller in {status}"));
    (0..3)
        .find(|n| ![TOOLS, controller].contains(n))
        .expect("there are three")
}

/// Shorter than brokers may be silent (`broker.session.timeout.ms`), and longer than most response timeouts.
const FROZEN: Duration = Duration::from_secs(7);

fn config(cluster: &Cluster) -> Config {
    let mut config = Config::default();
    config.brokers = cluster.bootstrap().split(',').map(str::to_owned).collect();
    config
}

async fn client(cluster: &Cluster) -> Client {
    let config = config(cluster);
    config.connect().await.expect("the brokers respond")
}

/// Creates a topic with these replicas of its partitions.
async fn create(cluster: &Cluster, topic: &str, replicas: &str, config: &[&str]) {
    let mut create = vec!["--create", "--topic", topic];
    create.extend(["--replica-assignment", replicas]);
    create.extend(config.iter().flat_map(|setting| ["--config", setting]));
    let created = cluster.broker(TOOLS).tool("kafka-topics.sh", &create);
    created.await.ok();
}

async fn until(what: &str, is_met: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !is_met() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn store(producer: &Producer, record: Record) -> usize {
    let receipt = producer.send(record).await.expect("there is room");
    let stored = receipt.await.expect("it is stored");
    stored.partition.id().parse().expect("it is a number")
}

/// Returns a key of each partition.
async fn keys(producer: &Producer) -> [String; 3] {
    let mut keys = [None, None, None];
    for number in 0.. {
        let key = format!("key-{number}");
        let partition = store(producer, Record::new("first").key(key.clone())).await;
        keys[partition].get_or_insert(key);
        if let [Some(a), Some(b), Some(c)] = &keys {
            return [a.clone(), b.clone(), c.clone()];
        }
    }
    unreachable!("there are keys of each partition")
}

/// One cluster for both, because it takes long to start.
pub(crate) async fn frozen_and_gone() {
    let by_default = |_| {
        Options::new()
            .property("broker.session.timeout.ms", "9000")
            .property("broker.heartbeat.interval.ms", "2000")
    };
    let cluster = Cluster::start(by_default).await;
    let leader = expendable(&cluster).await;
    frozen_while_its_client_is_replaced(&cluster, leader).await;
    gone(&cluster, leader).await;
}

/// A rejected record causes the replacement of the client, while the leader of another partition is frozen with a
/// request in its sockets. Later records of that partition wait until it has responded.
async fn frozen_while_its_client_is_replaced(cluster: &Cluster, leader: usize) {
    let stream = "frozen";
    let config = [
        "min.insync.replicas=1",
        "message.timestamp.before.max.ms=3600000",
    ];
    create(cluster, stream, "0,1,2", &config).await;
    let client = client(cluster).await;
    let producer = client.producer(stream).open().await.expect("it opens");
    let keys = keys(&producer).await;
    let (refused, frozen) = (keys[TOOLS].clone(), keys[leader].clone());

    let events = Events::listen();
    cluster.broker(leader).pause().await;
    let thaws = Instant::now() + FROZEN;
    let in_flight = producer.send(Record::new("in flight").key(frozen.clone()));
    let in_flight = in_flight.await.expect("there is room");
    let mut old = Record::new("too old").key(refused);
    old.timestamp = Some(std::time::SystemTime::now() - Duration::from_secs(86_400));
    let old = producer.send(old).await.expect("there is room");
    until("the client is replaced", || {
        let replaced = events.with("millstream.kafka.producer.replaced", "stream", stream);
        !replaced.is_empty()
    })
    .await;
    assert!(Instant::now() < thaws, "while the leader is frozen");
    let later = producer.send(Record::new("later").key(frozen)).await;
    let later = later.expect("there is room");
    sleep_until(thaws).await;
    cluster.broker(leader).unpause().await;

    let in_flight = timeout(TIMEOUT, in_flight).await.expect("it is answered");
    let in_flight = in_flight.expect("what was in flight is waited for");
    let refused = timeout(TIMEOUT, old).await.expect("it is answered");
    let refused = refused.expect_err("the topic takes no old records");
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    let later = timeout(TIMEOUT, later).await.expect("it is answered");
    let later = later.expect("it is stored");
    assert!(in_flight.position < later.position, "in their order");
    producer.close().await.expect("it closes");
}

/// Waits until the cluster has detected that a partition of the topic has no leader.
async fn until_leaderless(cluster: &Cluster, topic: &str) {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let args = ["--describe", "--topic", topic];
        let described = cluster.broker(TOOLS).tool("kafka-topics.sh", &args);
        let described = described.await.ok();
        if described.contains("Leader: none") {
            return;
        }
        assert!(Instant::now() < deadline, "{described}");
    }
}

/// A record that times out because of missing replicas reports that.
async fn too_few_replicas(cluster: &Cluster, stream: &str) {
    let mut config = config(cluster);
    config.producer.timeout = Duration::from_secs(3);
    let client = config.connect().await.expect("the brokers respond");
    let producer = client.producer(stream).open().await.expect("it opens");
    let sent = producer.send(Record::new("x").key("k")).await;
    let error = sent
        .expect("there is room")
        .await
        .expect_err("a replica is missing");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    let reason = "partition 0 has 1 replicas in sync, and its topic needs 2 (min.insync.replicas)";
    assert!(error.message().contains(reason), "{error}");
    producer.close().await.expect("it closes");
}

fn group(client: &Client, name: &str, stream: &str, start: Start) -> ConsumerGroup {
    let group = client.group(name).stream(stream).start(start);
    group.checkpoint_interval(Duration::from_millis(100))
}

/// Joins, and returns the partitions of this many records.
async fn handle(group: &ConsumerGroup, records: usize) -> (millstream_core::Consumer, Vec<usize>) {
    let joined = timeout(TIMEOUT, group.join()).await.expect("it joins");
    let mut consumer = joined.expect("it joins");
    let mut partitions = Vec::new();
    while partitions.len() < records {
        let next = timeout(TIMEOUT, consumer.next()).await;
        let next = next.unwrap_or_else(|_| panic!("{partitions:?} of {records}"));
        let delivery = next.expect("it continues").expect("it is open");
        partitions.push(partition(&delivery));
        delivery.ack();
    }
    partitions.sort_unstable();
    (consumer, partitions)
}

fn partition(delivery: &Delivery) -> usize {
    let id = delivery.partition().id();
    id.parse().expect("it is a number")
}

/// Sends a record to each partition. Those to partitions with a leader are stored, whatever waits beside them. Returns
/// the receipts of the others.
async fn store_beside(producer: &Producer, keys: &[String; 3], leader: usize) -> Vec<Receipt> {
    let record = |partition: usize| Record::new("second").key(keys[partition].clone());
    let first = producer.send(record(leader)).await;
    let mut first = first.expect("there is room");
    let early = timeout(Duration::from_secs(1), &mut first).await;
    assert!(early.is_err(), "nobody can store it: {early:?}");
    let mut waiting = vec![first];
    let mut stored = Vec::new();
    for partition in 0..keys.len() {
        let sent = producer.send(record(partition)).await;
        let receipt = sent.expect("there is room");
        match partition == leader {
            true => waiting.push(receipt),
            false => stored.push(receipt),
        }
    }
    for receipt in stored {
        let stored = timeout(TIMEOUT, receipt).await;
        stored
            .expect("it waits for no other")
            .expect("it is stored");
    }
    waiting
}

/// The other partitions are read, and so are their checkpoints. The one without a leader is named.
async fn gone(cluster: &Cluster, leader: usize) {
    let stream = "leaderless";
    create(cluster, stream, "0,1,2", &["min.insync.replicas=1"]).await;
    let replicated = "too-few-replicas";
    let replicas = format!("{TOOLS}:{leader}");
    create(cluster, replicated, &replicas, &["min.insync.replicas=2"]).await;
    let client = client(cluster).await;
    let producer = client.producer(stream).open().await.expect("it opens");
    let keys = keys(&producer).await;
    producer.close().await.expect("it closes");
    let has_joined = group(&client, "has-joined", stream, Start::Earliest);
    let (consumer, _) = handle(&has_joined, 1).await;
    consumer.close().await.expect("it closes");

    cluster.kill(leader).await;
    until_leaderless(cluster, stream).await;
    too_few_replicas(cluster, replicated).await;
    let begun = Instant::now();
    let consumer = has_joined.join().await.expect("it joins");
    println!("a group that has joined before: {:?}", begun.elapsed());
    consumer.close().await.expect("it closes");
    let events = Events::listen();
    let latest = group(&client, "latest", stream, Start::Latest);
    let (consumer, _) = handle(&latest, 0).await;
    let early = events.with("millstream.kafka.group.begins_early", "group", "latest");
    assert_eq!(early.len(), 1, "{early:?}");
    assert!(early[0].has("partition", &leader.to_string()), "{early:?}");

    let producer = client.producer(stream).open().await.expect("it opens");
    let waiting = store_beside(&producer, &keys, leader).await;
    let mut consumer = consumer;
    for _ in 1..keys.len() {
        let next = timeout(TIMEOUT, consumer.next()).await.expect("it comes");
        let delivery = next.expect("it continues").expect("it is open");
        assert_eq!(*delivery.payload(), "second");
        delivery.ack();
    }
    let streams = client.streams();
    for refused in [
        streams.describe(stream).await.expect_err("no leader knows"),
        latest
            .reset(stream, Start::Earliest)
            .await
            .expect_err("no leader knows"),
    ] {
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused:?}");
        let named = refused.partition().map(|partition| partition.id());
        assert_eq!(named, Some(&*leader.to_string()), "{refused:?}");
    }
    let read = timeout(TIMEOUT, latest.checkpoints()).await;
    let checkpoints = read.expect("in time").expect("they are read");
    let known: Vec<_> = checkpoints
        .iter()
        .map(|c| c.lag.records.is_some())
        .collect();
    let expected: Vec<_> = (0..3).map(|partition| partition != leader).collect();
    assert_eq!(known, expected, "{checkpoints:?}");
    let reported = || {
        let events = events.with("millstream.kafka.partition.stalled", "group", "latest");
        events
            .iter()
            .any(|e| e.has("partition", &leader.to_string()))
    };
    until("it is reported", reported).await;

    cluster.restart(leader).await;
    let next = timeout(TIMEOUT, consumer.next()).await.expect("it comes");
    let delivery = next.expect("it continues").expect("it is open");
    assert_eq!(partition(&delivery), leader, "from its beginning");
    assert_eq!(*delivery.payload(), "first");
    delivery.ack();
    consumer.close().await.expect("it closes");
    for receipt in waiting {
        receipt.await.expect("it is stored when the leader is back");
    }
    producer.close().await.expect("it closes");
}
