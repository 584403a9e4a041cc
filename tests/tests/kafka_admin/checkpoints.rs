use std::time::{Duration, SystemTime};

use conformance::kafka::Broker;
use millstream_core::{Checkpoint, Client, Epoch, ErrorKind, Lag, Partition, Position, StreamSpec};

use crate::raw_client::{self, OffsetClient};
use crate::start;

#[tokio::test]
async fn progress_is_read() {
    let (broker, client) = start().await;
    a_group_without_progress_is_unknown(&client).await;
    every_partition_of_every_stream_is_told(&broker, &client).await;
    what_this_sdk_stored_is_told_as_it_was_meant(&broker, &client).await;
    a_mark_of_a_transaction_is_no_record(&broker, &client).await;
    what_is_gone_is_no_lag(&broker, &client).await;
    a_deleted_stream_is_left_out(&broker, &client).await;
}

async fn read(client: &Client, group: &str) -> Vec<Checkpoint> {
    let read = client.group(group).checkpoints().await;
    read.expect("the group has progress")
}

async fn create(client: &Client, name: &str, partitions: usize) {
    let spec = StreamSpec::new(name).partitions(partitions);
    client.streams().create(spec).await.expect("it is new");
}

const NONE: Lag = Lag {
    records: Some(0),
    time: Some(Duration::ZERO),
};

async fn a_group_without_progress_is_unknown(client: &Client) {
    let unknown = client.group("nobody").checkpoints().await;
    let unknown = unknown.expect_err("there is no such group");
    assert_eq!(
        (unknown.kind(), unknown.group()),
        (ErrorKind::NotFound, Some("nobody"))
    );
}

async fn every_partition_of_every_stream_is_told(broker: &Broker, client: &Client) {
    let bootstrap = broker.bootstrap();
    create(client, "few", 1).await;
    create(client, "many", 12).await;
    let an_hour_ago = SystemTime::now() - Duration::from_secs(3_600);
    for partition in [0, 1, 2, 11] {
        raw_client::send(&bootstrap, "many", partition, 3, an_hour_ago);
        raw_client::send(&bootstrap, "many", partition, 7, SystemTime::now());
    }
    let group = OffsetClient::new(&bootstrap, "reader");
    group.commit("few", &[(0, 0)], "");
    group.commit("many", &[(0, 1), (1, 3), (2, 10)], "another client's note");

    let read = read(client, "reader").await;
    assert_eq!(read.len(), 13);
    assert!(read.is_sorted_by_key(|checkpoint| checkpoint.partition.clone()));
    assert!(read.iter().all(|c| c.epoch.is_none() && !c.completed));
    let of = |id: &str| {
        let partition = Partition::new("many", id);
        let found = read
            .iter()
            .find(|checkpoint| checkpoint.partition == partition);
        found.expect("it learns of it")
    };
    let progress = |id: &str| (of(id).position, of(id).lag.records);
    let at = |offset: u64| Some(Position::from(offset));
    assert_eq!(progress("0"), (at(0), Some(9)));
    assert_eq!(progress("1"), (at(2), Some(7)));
    assert_eq!(progress("2"), (at(9), Some(0)));
    assert_eq!(progress("3"), (None, Some(0)));
    // Nothing is stored for it; the group will read it from its beginning.
    assert_eq!(progress("11"), (None, Some(10)));
    let age = |id: &str| of(id).lag.time.expect("one record was looked at").as_secs();
    assert!((3_600..3_700).contains(&age("0")), "{}", age("0"));
    assert!((3_600..3_700).contains(&age("11")), "{}", age("11"));
    assert!((0..100).contains(&age("1")), "{}", age("1"));
    assert_eq!([of("2").lag, of("3").lag], [NONE; 2]);
    assert_eq!(
        (&read[0].partition, read[0].lag),
        (&Partition::new("few", "0"), NONE)
    );
}

async fn what_this_sdk_stored_is_told_as_it_was_meant(broker: &Broker, client: &Client) {
    let bootstrap = broker.bootstrap();
    create(client, "noted", 3).await;
    for partition in 0..3 {
        raw_client::send(&bootstrap, "noted", partition, 5, SystemTime::now());
    }
    let group = OffsetClient::new(&bootstrap, "noting");
    group.commit("noted", &[(0, 4)], "millstream epoch=7");
    group.commit("noted", &[(1, 4)], "millstream");
    group.commit("noted", &[(2, 4)], "millstream reset=3");
    let read = read(client, "noting").await;
    let progress = read.iter().map(|c| (c.position, c.epoch, c.lag.records));
    let progress: Vec<_> = progress.collect();
    // A group has settled nothing at the offset where it begins, or to which it was moved.
    assert_eq!(
        progress,
        [
            (Some(Position::from(3)), Some(Epoch(7)), Some(1)),
            (None, None, Some(1)),
            (None, None, Some(1)),
        ]
    );
}

async fn a_mark_of_a_transaction_is_no_record(broker: &Broker, client: &Client) {
    let bootstrap = broker.bootstrap();
    create(client, "transactions", 1).await;
    raw_client::send_in_a_transaction(&bootstrap, "transactions", 0);
    let group = OffsetClient::new(&bootstrap, "committed");
    group.commit("transactions", &[(0, 0)], "");
    assert!(read(client, "committed").await[0].lag.records >= Some(1));
    group.commit("transactions", &[(0, 1)], "");
    assert_eq!(read(client, "committed").await[0].lag, NONE);
}

async fn what_is_gone_is_no_lag(broker: &Broker, client: &Client) {
    let bootstrap = broker.bootstrap();
    create(client, "cut", 1).await;
    raw_client::send(&bootstrap, "cut", 0, 10, SystemTime::now());
    let group = OffsetClient::new(&bootstrap, "late");
    group.commit("cut", &[(0, 2)], "");
    crate::streams::cut(broker, "cut", 0, rdkafka::Offset::Offset(6)).await;
    let read = read(client, "late").await;
    assert_eq!(
        (read[0].position, read[0].lag.records),
        (Some(Position::from(1)), Some(4))
    );
    assert!(read[0].lag.time.is_some());
}

async fn a_deleted_stream_is_left_out(broker: &Broker, client: &Client) {
    let bootstrap = broker.bootstrap();
    create(client, "stays", 1).await;
    create(client, "goes", 1).await;
    let group = OffsetClient::new(&bootstrap, "both");
    group.commit("stays", &[(0, 0)], "");
    group.commit("goes", &[(0, 0)], "");
    assert_eq!(read(client, "both").await.len(), 2);
    client.streams().delete("goes").await.expect("it is there");
    let read = read(client, "both").await;
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].partition, Partition::new("stays", "0"));
}
