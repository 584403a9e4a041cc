use std::time::{Duration, Instant, SystemTime};

use conformance::kafka::Broker;
use millstream_core::{Client, ErrorKind, Partition, Position, StreamSpec};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};

use crate::{config, connect, impatient, raw_client, start};

#[tokio::test]
async fn topics_are_administered() {
    let (broker, client) = start().await;
    a_stream_can_be_used_as_soon_as_it_is_created(&broker, &client).await;
    settings_of_topics_are_kept(&broker).await;
    positions_are_those_of_the_records_that_are_left(&broker, &client).await;
    names_are_listed_without_the_clusters_own(&broker, &client).await;
    partitions_are_added(&broker, &client).await;
    a_deleted_stream_is_gone_and_its_name_free(&client).await;
    partitions_are_neither_split_nor_merged(&client).await;
    a_thousand_partitions_are_described_quickly(&broker).await;
    a_silent_broker_is_told_in_time(&broker).await;
}

async fn a_stream_can_be_used_as_soon_as_it_is_created(broker: &Broker, client: &Client) {
    for turn in 0..5 {
        let name = format!("created-{turn}");
        let spec = StreamSpec::new(&*name).partitions(3);
        client.streams().create(spec).await.expect("it is new");
        for partition in 0..3 {
            raw_client::send(&broker.bootstrap(), &name, partition, 1, SystemTime::now());
        }
    }
    let again = client.streams().create(StreamSpec::new("created-0")).await;
    let again = again.expect_err("it is there");
    assert_eq!(
        (again.kind(), again.stream()),
        (ErrorKind::AlreadyExists, Some("created-0"))
    );
}

async fn settings_of_topics_are_kept(broker: &Broker) {
    let mut settings = config(&broker.bootstrap());
    settings.topics.replication_factor = Some(1);
    let retention = ("retention.ms".to_owned(), "123456789".to_owned());
    settings.topics.config = [retention].into();
    let streams = connect(settings.clone()).await.streams();
    let spec = StreamSpec::new("set");
    streams.create(spec).await.expect("the settings are right");
    let output = broker.tool(
        "kafka-configs.sh",
        &[
            "--entity-type",
            "topics",
            "--entity-name",
            "set",
            "--describe",
        ],
    );
    let output = output.await.ok();
    assert!(output.contains("retention.ms=123456789"), "{output}");

    settings.topics.config = [("no.such.setting".to_owned(), "1".to_owned())].into();
    let streams = connect(settings.clone()).await.streams();
    let refused = streams.create(StreamSpec::new("unset")).await;
    assert_eq!(
        refused.expect_err("there is none").kind(),
        ErrorKind::Invalid
    );
    settings.topics.config.clear();
    settings.topics.replication_factor = Some(2);
    let streams = connect(settings).await.streams();
    let refused = streams.create(StreamSpec::new("unset")).await;
    let refused = refused.expect_err("there is one broker");
    assert_eq!(
        (refused.kind(), refused.stream()),
        (ErrorKind::Invalid, Some("unset"))
    );
}

pub(crate) async fn cut(broker: &Broker, topic: &str, partition: i32, before: Offset) {
    let admin = raw_client::settings(&broker.bootstrap()).create();
    let admin: AdminClient<DefaultClientContext> = admin.expect("the settings are right");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, before)
        .expect("it is an offset");
    let cut = admin.delete_records(&list, &AdminOptions::new()).await;
    let cut = cut.expect("the broker responds");
    cut.elements()[0].error().expect("they are removed");
}

async fn positions_are_those_of_the_records_that_are_left(broker: &Broker, client: &Client) {
    let streams = client.streams();
    let spec = StreamSpec::new("positions").partitions(4);
    streams.create(spec).await.expect("it is new");
    for partition in 1..4 {
        let bootstrap = broker.bootstrap();
        raw_client::send(&bootstrap, "positions", partition, 10, SystemTime::now());
    }
    cut(broker, "positions", 2, Offset::Offset(4)).await;
    cut(broker, "positions", 3, Offset::End).await;
    let described = streams.describe("positions").await.expect("it is there");
    assert_eq!(described.name, "positions");
    let at = |offset: u64| Some(Position::from(offset));
    let expected = [(None, None), (at(0), at(9)), (at(4), at(9)), (None, None)];
    for (id, (partition, (earliest, latest))) in
        described.partitions.iter().zip(expected).enumerate()
    {
        assert_eq!(
            partition.partition,
            Partition::new("positions", id.to_string())
        );
        assert!(partition.open && partition.parents.is_empty());
        assert_eq!((partition.earliest, partition.latest), (earliest, latest));
    }
    assert_eq!(described.partitions.len(), 4);
}

async fn names_are_listed_without_the_clusters_own(broker: &Broker, client: &Client) {
    let spec = StreamSpec::new("__foreign");
    client.streams().create(spec).await.expect("it is new");
    // Creates the cluster's own topic for offsets.
    raw_client::OffsetClient::new(&broker.bootstrap(), "somebody").commit(
        "created-0",
        &[(0, 1)],
        "",
    );
    let output = broker.tool("kafka-topics.sh", &["--list"]).await.ok();
    assert!(output.contains("__consumer_offsets"), "{output}");
    let mut expected: Vec<_> = output
        .lines()
        .filter(|name| *name != "__consumer_offsets")
        .collect();
    expected.sort_unstable();
    let names = client.streams().list().await.expect("they are listed");
    assert_eq!(names, expected);
}

async fn partitions_are_added(broker: &Broker, client: &Client) {
    let streams = client.streams();
    let spec = StreamSpec::new("grows").partitions(2);
    streams.create(spec).await.expect("it is new");
    for (turn, count) in [3_usize, 7, 20].into_iter().enumerate() {
        let added = streams.add_partitions("grows", count).await;
        added.expect("they are more");
        let last = count as i32 - 1;
        raw_client::send(&broker.bootstrap(), "grows", last, 1, SystemTime::now());
        let described = streams.describe("grows").await.expect("it is there");
        let filled = described.partitions.iter().filter(|p| p.latest.is_some());
        assert_eq!(
            (described.partitions.len(), filled.count()),
            (count, turn + 1)
        );
    }
    for wrong in [0, 19, 20] {
        let refused = streams.add_partitions("grows", wrong).await;
        let refused = refused.expect_err("there are as many already");
        assert_eq!(
            (refused.kind(), refused.stream()),
            (ErrorKind::Invalid, Some("grows"))
        );
        assert!(refused.message().contains("20"), "{refused}");
    }
    let refused = streams.add_partitions("nowhere", 3).await;
    let refused = refused.expect_err("there is none");
    assert_eq!(
        (refused.kind(), refused.stream()),
        (ErrorKind::NotFound, Some("nowhere"))
    );
}

async fn a_deleted_stream_is_gone_and_its_name_free(client: &Client) {
    let streams = client.streams();
    for partitions in 1..=5 {
        let spec = StreamSpec::new("goes").partitions(partitions);
        streams.create(spec).await.expect("the name is free");
        let described = streams.describe("goes").await.expect("it is there");
        assert_eq!(described.partitions.len(), partitions);
        streams.delete("goes").await.expect("it is there");
        let listed = streams.list().await.expect("they are listed");
        assert!(!listed.contains(&"goes".to_owned()));
        let gone = [
            streams.describe("goes").await.map(drop),
            streams.delete("goes").await,
        ];
        for gone in gone {
            let gone = gone.expect_err("it is gone");
            assert_eq!(
                (gone.kind(), gone.stream()),
                (ErrorKind::NotFound, Some("goes"))
            );
        }
    }
}

async fn partitions_are_neither_split_nor_merged(client: &Client) {
    let (one, two) = (Partition::new("grows", "0"), Partition::new("grows", "1"));
    let streams = client.streams();
    for refused in [streams.split(&one).await, streams.merge(&one, &two).await] {
        let refused = refused.expect_err("it cannot");
        assert_eq!(
            (refused.kind(), refused.partition()),
            (ErrorKind::Unsupported, Some(&one))
        );
        assert!(refused.message().contains("add_partitions"), "{refused}");
    }
}

async fn a_thousand_partitions_are_described_quickly(broker: &Broker) {
    let mut config = config(&broker.bootstrap());
    // A small broker takes 10 s to create that many.
    config.request_timeout = Duration::from_secs(180);
    let streams = connect(config).await.streams();
    let spec = StreamSpec::new("wide").partitions(1_000);
    streams.create(spec).await.expect("it is new");
    let begun = Instant::now();
    let described = streams.describe("wide").await.expect("it is there");
    // One request for each partition would take ten times as long.
    assert!(begun.elapsed() < Duration::from_secs(3), "{begun:?}");
    assert_eq!(described.partitions.len(), 1_000);
    assert!(
        described
            .partitions
            .is_sorted_by_key(|p| p.partition.clone())
    );
    streams.delete("wide").await.expect("it is there");
}

async fn a_silent_broker_is_told_in_time(broker: &Broker) {
    let streams = connect(impatient(&broker.bootstrap())).await.streams();
    broker.pause().await;
    let begun = Instant::now();
    let results = [
        streams.list().await.map(drop),
        streams.describe("grows").await.map(drop),
        streams.create(StreamSpec::new("late")).await,
        streams.delete("grows").await,
        streams.add_partitions("grows", 30).await,
    ];
    let taken = begun.elapsed();
    broker.unpause().await;
    for error in results.map(|result| result.expect_err("nobody responds")) {
        assert!(error.is_retryable(), "{error}");
    }
    // Five calls of three seconds each.
    assert!(taken < Duration::from_secs(25), "{taken:?}");
    streams.list().await.expect("it responds again");
}
