//! Connections as AWS serves them: with TLS, and HTTP/2 with few streams each, or with many.

use std::time::Duration;

use conformance::Harness;
use conformance::fleet::{Member, TestProducer};
use conformance::history::Event;
use tokio::time::{Instant, sleep};

use crate::fixture::Fixture;

/// Enough keys for each of eight shards to have some.
const MANY_KEYS: usize = 48;

/// Longer than a subscription may be silent or without a record.
const QUIET: Duration = Duration::from_secs(40);

/// Long enough for records that share a connection with paused ones to be held up.
const SHORT: Duration = Duration::from_secs(5);

/// How long a record takes from its receipt to its handler, at most.
const SOON: Duration = Duration::from_secs(3);

/// The size of a record of a backlog that is larger than all windows and buffers.
const LARGE: usize = 100_000;

/// Starts a member that has all partitions.
async fn member_of_all(fixture: &Fixture, partitions: usize) -> Member {
    let a = fixture.member("a").await;
    let has_all = || a.owns() == partitions;
    fixture.fleet.until("it has all partitions", has_all).await;
    a
}

async fn handled_soon(fixture: &Fixture, what: &str) {
    let begun = Instant::now();
    fixture.fleet.settled().await;
    let took = begun.elapsed();
    assert!(took <= SOON, "{what}: handled after {took:?}");
}

/// Eight subscriptions, on a service that allows five streams on a connection.
pub(crate) async fn reads_more_shards_than_streams(fixture: Fixture) {
    let (a, mut producer) = reads_eight_shards(&fixture).await;
    sleep(QUIET).await;
    producer.send(MANY_KEYS, 1).await;
    handled_soon(&fixture, "after a quiet time").await;
    producer.close().await;
    fixture.fleet.check().await;
    a.close().await;
}

/// Eight subscriptions, all of which would fit on one connection.
pub(crate) async fn reads_fewer_shards_than_streams(fixture: Fixture) {
    let (a, producer) = reads_eight_shards(&fixture).await;
    producer.close().await;
    fixture.fleet.check().await;
    a.close().await;
}

async fn reads_eight_shards(fixture: &Fixture) -> (Member, TestProducer) {
    let a = member_of_all(fixture, 8).await;
    let mut producer = fixture.fleet.test_producer().await;
    producer.send(MANY_KEYS, 1).await;
    fixture.fleet.settled().await;
    for _ in 0..10 {
        producer.send(MANY_KEYS, 1).await;
        handled_soon(fixture, "under load").await;
        sleep(Duration::from_millis(500)).await;
    }
    (a, producer)
}

/// Five minutes are a subscription's life, so each is renewed.
pub(crate) async fn reads_many_shards_for_long(fixture: Fixture) {
    let a = member_of_all(&fixture, 64).await;
    let mut producer = fixture.fleet.test_producer().await;
    producer.send(MANY_KEYS * 8, 1).await;
    fixture.fleet.settled().await;
    let (begun, mut slowest) = (Instant::now(), (Duration::ZERO, Duration::ZERO));
    while begun.elapsed() < Duration::from_secs(330) {
        producer.send(MANY_KEYS * 8, 1).await;
        let sent = Instant::now();
        fixture.fleet.settled().await;
        slowest = slowest.max((sent.elapsed(), begun.elapsed()));
        sleep(Duration::from_millis(500)).await;
    }
    let (lag, at) = slowest;
    assert!(lag <= Duration::from_secs(1), "{lag:?} after {at:?}");
    producer.close().await;
    a.close().await;
}

pub(crate) async fn paused_partitions_stop_no_other(fixture: Fixture) {
    paused_for(fixture, QUIET).await;
}

/// On one connection, the paused partitions would use up the window of the other one.
pub(crate) async fn paused_partitions_stop_no_other_over_many_streams(fixture: Fixture) {
    paused_for(fixture, SHORT).await;
}

/// Three partitions are paused with a backlog, which fills their windows, and resumed.
async fn paused_for(fixture: Fixture, pause: Duration) {
    let a = member_of_all(&fixture, 4).await;
    let mut producer = fixture.fleet.test_producer().await;
    producer.send(MANY_KEYS, 1).await;
    fixture.fleet.settled().await;
    let partitions = fixture.fleet.open_partitions().await;
    let (paused, last) = partitions.split_at(3);
    let paused_at = Instant::now();
    for partition in paused {
        a.handle().pause(partition);
    }
    let mut expected = fixture.began("a");
    let mut count = async |producer: &mut TestProducer| {
        let stored = producer.receipts().await.into_iter();
        expected += stored
            .filter(|(_, stored)| stored.partition == last[0])
            .count();
        expected
    };
    for _ in 0..3 {
        for key in 0..MANY_KEYS {
            let key = format!("key-{key}");
            producer.send_padded(Some(&key), LARGE).await;
        }
        count(&mut producer).await;
    }
    while paused_at.elapsed() < pause {
        for key in 0..MANY_KEYS {
            producer.send_one(Some(&format!("key-{key}"))).await;
        }
        let expected = count(&mut producer).await;
        let stored = Instant::now();
        let handled = || fixture.began("a") >= expected;
        fixture
            .fleet
            .until("the other partition continues", handled)
            .await;
        let took = stored.elapsed();
        assert!(took <= SOON, "the other partition waited for {took:?}");
        sleep(Duration::from_secs(1)).await;
    }
    a.handle().resume_all();
    let resumed = Instant::now();
    fixture.fleet.settled().await;
    let took = resumed.elapsed();
    assert!(took <= 4 * SOON, "the resumed partitions took {took:?}");
    producer.close().await;
    fixture.fleet.check().await;
    a.close().await;
}

/// All connections of a member and of a producer die without a word.
pub(crate) async fn dead_connections_are_left(fixture: Fixture) {
    let load = fixture.load().await;
    let (a, b) = fixture.pair().await;
    let handovers = fixture.handovers();
    let network = fixture.harness.proxy().expect("all clients use a proxy");
    // A record that was stored without a response is sent again.
    fixture.fleet.history.record(Event::Fault {
        group: None,
        member: None,
        what: "connections die".into(),
    });
    network.of("a").strand();
    network.of("").strand();
    let (began, stored) = (fixture.began("a"), fixture.fleet.acked());
    let dead = Instant::now();
    let continues = || fixture.began("a") > began + 50 && fixture.fleet.acked() > stored + 100;
    fixture.fleet.until("both continue", continues).await;
    let took = dead.elapsed();
    // Enhanced fan-out: a ping after 20 s and 10 s for its response.
    assert!(took <= Duration::from_secs(45), "{took:?}");
    assert!(network.of("a").hits() > 0 && network.of("").hits() > 0);
    let summary = fixture.check(load).await;
    assert_eq!(summary.handovers, handovers, "it has kept its leases");
    a.close().await;
    b.close().await;
}

/// A service accepts subscriptions and sends nothing for them.
pub(crate) async fn mute_subscriptions_are_made_again(fixture: Fixture) {
    let stream = fixture.fleet.stream.as_str();
    fixture.faults().mute_subscriptions(stream, 2);
    let begun = Instant::now();
    let a = fixture.member("a").await;
    fixture.fleet.send(MANY_KEYS, 1).await;
    fixture.fleet.settled().await;
    let took = begun.elapsed();
    assert!(took <= QUIET, "{took:?}");
    assert_eq!(fixture.faults().hits(stream), 2);
    fixture.fleet.check().await;
    a.close().await;
}
