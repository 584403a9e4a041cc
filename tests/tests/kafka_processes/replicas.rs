//! The effects on members when replicas of a cluster die: the coordinator of their group, and replicas
//! with records that the others lack.

use std::time::Duration;

use conformance::kafka::{Cluster, Options};
use millstream_core::{Client, Consumer, ErrorKind, Record, Start};
use millstream_kafka::Config;
use tokio::time::{Instant, sleep, timeout};

/// The timeout of everything that must happen.
const TIMEOUT: Duration = Duration::from_secs(120);

const GROUP: &str = "readers";

/// Returns a client with the defaults of the backend.
async fn client(cluster: &Cluster) -> Client {
    let mut config = Config::default();
    config.brokers = cluster.bootstrap().split(',').map(str::to_owned).collect();
    config.connect().await.expect("the brokers respond")
}

async fn join(client: &Client, stream: &str) -> Consumer {
    let group = client.group(GROUP).stream(stream);
    let group = group.checkpoint_interval(Duration::from_millis(100));
    group.join().await.expect("it joins")
}

async fn send(client: &Client, stream: &str, count: usize) {
    let producer = client.producer(stream).open().await.expect("it opens");
    for number in 0..count {
        let record = Record::new(format!("{number}")).key(format!("key-{number}"));
        drop(producer.send(record).await.expect("there is room"));
    }
    producer.close().await.expect("all are stored");
}

/// Settles this many records.
async fn settle(consumers: &mut [Consumer], count: usize) {
    let mut settled = 0;
    let deadline = Instant::now() + TIMEOUT;
    while settled < count {
        for consumer in &mut *consumers {
            // Each in turn, because it is not known which of them has the next record.
            let next = timeout(Duration::from_millis(20), consumer.next()).await;
            if let Ok(next) = next {
                let delivery = next.expect("it continues").expect("it is not closed");
                delivery.ack();
                settled += 1;
            }
        }
        assert!(
            Instant::now() < deadline,
            "{settled} of {count} were settled"
        );
    }
}

/// Waits until the group's progress is after this many records.
async fn until_stored(client: &Client, records: u64) {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        // The coordinator may be unavailable for a while.
        let checkpoints = client.group(GROUP).checkpoints().await;
        let positions = checkpoints.iter().flatten();
        let stored = positions.filter_map(|checkpoint| checkpoint.position?.offset());
        let stored: u64 = stored.map(|last| last + 1).sum();
        if stored >= records {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{stored} of {records} are stored: {checkpoints:?}"
        );
        sleep(Duration::from_millis(100)).await;
    }
}

/// Returns the coordinator according to Kafka's own tool, which prints the broker's number last, in parentheses.
async fn coordinator(cluster: &Cluster) -> usize {
    let args = ["--describe", "--group", GROUP, "--state"];
    let described = cluster
        .broker(0)
        .tool("kafka-consumer-groups.sh", &args)
        .await
        .ok();
    let last = described.rsplit('(').next();
    let number = last.and_then(|last| last.split(')').next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no coordinator in {described}"))
}

/// The brokers detect a dead one as late as by default: no member of the group may be evicted meanwhile.
pub(crate) async fn coordinator_killed() {
    let by_default = |_| {
        Options::new()
            .property("broker.session.timeout.ms", "9000")
            .property("broker.heartbeat.interval.ms", "2000")
    };
    let cluster = Cluster::start(by_default).await;
    let client = client(&cluster).await;
    let stream = "watched";
    let spec = millstream_core::StreamSpec::new(stream).partitions(4);
    client.streams().create(spec).await.expect("it is new");
    let mut members = [join(&client, stream).await, join(&client, stream).await];
    let handles = members.each_ref().map(Consumer::handle);
    send(&client, stream, 100).await;
    settle(&mut members, 100).await;
    until_stored(&client, 100).await;

    cluster.kill(coordinator(&cluster).await).await;
    send(&client, stream, 100).await;
    settle(&mut members, 100).await;
    until_stored(&client, 200).await;
    for handle in &handles {
        assert_eq!(handle.stats().lost, 0, "a member has lost partitions");
    }
    for member in members {
        member.close().await.expect("it closes");
    }
}

/// The only replica with the last records dies, and one without them becomes the leader. A running member gets
/// the error, and so does each later one, until the group is reset.
pub(crate) async fn unclean_election() {
    const LEADER: usize = 0;
    const FOLLOWER: usize = 1;
    let cluster = Cluster::start(|_| Options::new()).await;
    let stream = "cut-back";
    let create = [
        "--create",
        "--topic",
        stream,
        "--replica-assignment",
        "0:1",
        "--config",
        "unclean.leader.election.enable=true",
        "--config",
        "min.insync.replicas=1",
    ];
    cluster
        .broker(LEADER)
        .tool("kafka-topics.sh", &create)
        .await
        .ok();
    let client = client(&cluster).await;
    send(&client, stream, 900).await;
    let mut members = [join(&client, stream).await];
    settle(&mut members, 900).await;

    cluster.kill(FOLLOWER).await;
    cluster.goes_on_without(FOLLOWER).await;
    send(&client, stream, 100).await;
    settle(&mut members, 100).await;
    until_stored(&client, 1_000).await;

    cluster.kill(LEADER).await;
    cluster.restart(FOLLOWER).await;
    // They are stored at the offsets of the lost records and after them.
    send(&client, stream, 400).await;
    let [mut reading] = members;
    assert_is_told(&mut reading).await;
    drop(reading);

    let mut next = join(&client, stream).await;
    assert_is_told(&mut next).await;
    drop(next);

    let group = client.group(GROUP);
    group
        .reset(stream, Start::Earliest)
        .await
        .expect("it has no members");
    let mut members = [join(&client, stream).await];
    settle(&mut members, 1_300).await;
    let [member] = members;
    member.close().await.expect("it closes");
}

async fn assert_is_told(consumer: &mut Consumer) {
    let next = timeout(TIMEOUT, consumer.next()).await;
    let next = next
        .expect("it is told")
        .map(|next| next.map(|delivery| format!("{delivery:?}")));
    let error = next.expect_err("records were replaced that it has not read");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
}
