//! Brokers that fail while members run.

use std::time::Duration;

use conformance::fleet::Fleet;
use conformance::history::Event;
use conformance::kafka::{Cluster, Options};
use millstream_kafka::Protocol;

use crate::fixture::{Fixture, SESSION, all_handling};
use crate::process::Process;

const PAUSE: Duration = Duration::from_millis(4);
const KEYS: usize = 24;
const PARTITIONS: usize = 6;

/// Records a broker fault: it may affect every member, and every send.
fn fault(fleet: &Fleet, what: &str) {
    for group in [Some(fleet.group.as_str().into()), None] {
        fleet.history.record(Event::Fault {
            group,
            member: None,
            what: what.to_owned(),
        });
    }
}

/// Waits until `more` additional records are settled.
async fn goes_on(fleet: &Fleet, more: usize) {
    let so_far = fleet.acked();
    fleet
        .until("the group continues", || fleet.acked() >= so_far + more)
        .await;
}

async fn end(fleet: &Fleet, members: [Process; 2], what: &str) {
    let summary = fleet.check().await;
    println!("{what}: {summary:?}");
    for member in members {
        member.close().await;
    }
}

/// A killed broker returns with its data: the members continue with the stored records.
pub(crate) async fn killed(protocol: Protocol) {
    let broker = Options::new().start().await;
    let fixture = Fixture::new(broker.bootstrap(), protocol);
    let fleet = fixture.fleet(PARTITIONS).await;
    let background_load = fleet.test_producer().await.send_in_background(KEYS, PAUSE);
    let members = ["a", "b"].map(|name| fixture.start(&fleet, name));
    all_handling(&fleet, &members.each_ref()).await;
    for _ in 0..2 {
        goes_on(&fleet, 200).await;
        fault(&fleet, "the broker is killed");
        broker.kill().await;
        broker.start().await;
    }
    goes_on(&fleet, 200).await;
    background_load.stop().await;
    end(&fleet, members, "broker killed").await;
}

/// A broker that does not respond for longer than any session.
pub(crate) async fn paused(protocol: Protocol) {
    let broker = Options::new().start().await;
    let fixture = Fixture::new(broker.bootstrap(), protocol);
    let fleet = fixture.fleet(PARTITIONS).await;
    let background_load = fleet.test_producer().await.send_in_background(KEYS, PAUSE);
    let members = ["a", "b"].map(|name| fixture.start(&fleet, name));
    all_handling(&fleet, &members.each_ref()).await;
    goes_on(&fleet, 200).await;
    fault(&fleet, "the broker is paused");
    broker.pause().await;
    tokio::time::sleep(SESSION * 3).await;
    broker.unpause().await;
    goes_on(&fleet, 200).await;
    background_load.stop().await;
    end(&fleet, members, "broker paused").await;
}

/// The leader of a partition, one of three brokers, is killed while records are sent: acknowledged
/// records are not lost.
pub(crate) async fn leader_killed(protocol: Protocol) {
    let cluster = Cluster::start(|_| Options::new()).await;
    let fixture = Fixture::new(cluster.bootstrap(), protocol);
    let fleet = fixture.fleet(PARTITIONS).await;
    let background_load = fleet.test_producer().await.send_in_background(KEYS, PAUSE);
    let members = ["a", "b"].map(|name| fixture.start(&fleet, name));
    all_handling(&fleet, &members.each_ref()).await;
    for partition in [0, 1] {
        goes_on(&fleet, 200).await;
        let leader = leader(&cluster, &fleet.stream, partition).await;
        fault(&fleet, "the leader is killed");
        cluster.kill(leader).await;
        cluster.goes_on_without(leader).await;
        goes_on(&fleet, 200).await;
        cluster.restart(leader).await;
        cluster.settled().await;
    }
    background_load.stop().await;
    end(&fleet, members, "leader killed").await;
}

/// The leader of a partition, one of three brokers, is cut off from the others and from all clients, while
/// it continues to run and believes that it is the leader: acknowledged records are not lost, and everything continues.
pub(crate) async fn leader_cut_off(protocol: Protocol) {
    let cluster = Cluster::start(|_| Options::new()).await;
    let fixture = Fixture::new(cluster.bootstrap(), protocol);
    let fleet = fixture.fleet(PARTITIONS).await;
    let background_load = fleet.test_producer().await.send_in_background(KEYS, PAUSE);
    let members = ["a", "b"].map(|name| fixture.start(&fleet, name));
    all_handling(&fleet, &members.each_ref()).await;
    goes_on(&fleet, 200).await;
    let leader = leader(&cluster, &fleet.stream, 0).await;
    fault(&fleet, "the leader is cut off");
    cluster.disconnect(leader).await;
    cluster.goes_on_without(leader).await;
    goes_on(&fleet, 200).await;
    cluster.reconnect(leader).await;
    cluster.settled().await;
    goes_on(&fleet, 200).await;
    background_load.stop().await;
    end(&fleet, members, "leader cut off").await;
}

/// Returns the leader according to Kafka's own tool.
async fn leader(cluster: &Cluster, topic: &str, partition: usize) -> usize {
    let args = ["--describe", "--topic", topic];
    let described = cluster.broker(0).tool("kafka-topics.sh", &args).await.ok();
    let wanted = format!("Partition: {partition}\t");
    let line = described.lines().find(|line| line.contains(&wanted));
    let leader = line.and_then(|line| line.split("Leader: ").nth(1));
    let leader = leader.and_then(|rest| rest.split_whitespace().next());
    let leader = leader.and_then(|leader| leader.parse().ok());
    leader.unwrap_or_else(|| panic!("no leader of partition {partition} in {described}"))
}
