//! A member in the middle of a drain: it holds the records that it has pulled, and another member has joined.

use std::collections::BTreeSet;
use std::time::Duration;

use conformance::{Connections, Events};
use millstream_core::{Client, Consumer, Delivery, PendingDelivery};
use millstream_kafka::Config;

use crate::fixture::{Fixture, KEYS, PARTITIONS, QUICK, TIMEOUT, pull, stream, unique, until};
use crate::threads::Threads;

/// The number of records of each key that are settled and stored before the drain.
pub(crate) const SETTLED: usize = 1;
/// The number of records of each key.
pub(crate) const PER_KEY: usize = 4;
/// The number of records that are left to others.
pub(crate) const LEFT: usize = KEYS * (PER_KEY - SETTLED);

/// The draining member.
pub(crate) struct Drain {
    pub(crate) client: Client,
    pub(crate) connections: Connections,
    pub(crate) consumer: Consumer,
    /// One record of each key, some of each partition.
    pub(crate) held: Vec<PendingDelivery>,
    /// The partition that is being revoked.
    pub(crate) revoked: String,
    /// Its threads.
    pub(crate) threads: Threads,
}

/// The member that waits for the drain.
pub(crate) struct NextOwner {
    pub(crate) client: Client,
    pub(crate) consumer: Consumer,
    pub(crate) stream: String,
    pub(crate) group: String,
}

/// The name of the member that drains.
const MEMBER: &str = "drains";

/// Starts a drain. The next owner learns of a rebalance after `heartbeat` at the latest.
pub(crate) async fn begin(
    fixture: &Fixture,
    drain: Duration,
    heartbeat: Duration,
) -> (Drain, NextOwner) {
    begin_within(fixture, drain, drain, heartbeat).await
}

/// Like [`begin`], with a different limit for rebalances than for the close.
pub(crate) async fn begin_within(
    fixture: &Fixture,
    drain: Duration,
    rebalance_drain: Duration,
    heartbeat: Duration,
) -> (Drain, NextOwner) {
    let client = fixture.client_with_heartbeat(heartbeat).await;
    let (stream, group) = (stream(&client, PER_KEY).await, unique("group"));
    let others = Threads::of_clients();

    let id = unique("client");
    let network = fixture.testbed.network();
    let address = network.address(&id).to_string();
    let own_port = |config: &mut Config| {
        config.brokers = vec![address];
        config.consumer.heartbeat_interval = Some(QUICK);
        config.consumer.rebalance_drain_timeout = rebalance_drain;
    };
    let draining = fixture.client_with(id.clone(), own_port).await;
    let member = draining.group(group.as_str()).stream(stream.as_str());
    let member = member.member(MEMBER).drain_timeout(drain);
    let member = member.checkpoint_interval(Duration::from_millis(50));
    let mut consumer = member.join().await.expect("it joins");
    for settled in pull(&mut consumer, KEYS * SETTLED).await {
        settled.ack();
    }
    let held = pull(&mut consumer, KEYS).await;
    let partitions = held.iter().map(|held| held.partition().clone());
    let partitions: BTreeSet<_> = partitions.collect();
    assert_eq!(partitions.len(), PARTITIONS, "some of each are held");
    let control = consumer.handle();
    until("progress is stored in each partition", || {
        let owned = control.partitions();
        control.stats().checkpoints >= PARTITIONS as u64
            && owned.values().all(|owned| owned.settled.is_some())
    })
    .await;
    let threads = Threads::of_clients().without(&others);

    let next_owner = client.group(group.as_str()).stream(stream.as_str());
    let next_owner = next_owner.drain_timeout(TIMEOUT).join().await;
    let next_owner = next_owner.expect("it is let in while another drains");
    let reported = || Events::listen().with("millstream.consumer.revoking", "group", &group);
    until("the drain begins", || !reported().is_empty()).await;
    let reported = reported();
    assert_eq!(
        reported.len(),
        1,
        "one of two partitions goes: {reported:?}"
    );
    let revoked = reported[0]
        .field("partition")
        .expect("it is named")
        .to_owned();
    let drain = Drain {
        client: draining,
        connections: network.of(&id),
        consumer,
        held,
        revoked,
        threads,
    };
    let next_owner = NextOwner {
        client,
        consumer: next_owner,
        stream,
        group,
    };
    (drain, next_owner)
}

impl NextOwner {
    /// Pulls and settles all remaining records.
    pub(crate) async fn takes_all(&mut self) {
        let mut numbers = BTreeSet::new();
        while numbers.len() < LEFT {
            for record in pull(&mut self.consumer, 1).await {
                assert!(numbers.insert(text(&record)), "{record:?} came twice");
                record.ack();
            }
        }
        assert!(numbers.iter().all(|number| !number.ends_with("/0")));
    }

    pub(crate) async fn close(self) {
        self.consumer.close().await.expect("it closes");
        let group = self.client.group(self.group.as_str());
        let stored = group.checkpoints().await.expect("there are some");
        let lags: Vec<_> = stored.iter().map(|stored| stored.lag.records).collect();
        assert_eq!(lags, [Some(0); PARTITIONS], "{stored:?}");
    }
}

pub(crate) fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.payload()).into_owned()
}
