//! The lease table of Java workers that read another stream under the same name.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use conformance::{Harness, eventually};
use millstream_core::{Error, ErrorKind, Record, Start, StreamSpec};
use tokio::time::timeout;

use crate::fixture::Fixture;

const RECORDS: usize = 20;

/// The table is refused for a stream that is older than the one it is of, and is taken over for its own.
pub(crate) async fn of_java_is_refused(fixture: Fixture) {
    let (fleet, harness) = (&fixture.fleet, &fixture.harness);
    let testbed = harness.testbed();
    let table = format!("{}-java", fleet.group);
    let younger = format!("{}-younger", fleet.stream);
    fleet.send(8, 10).await;
    create_later(&fixture, &younger).await;
    let producer = fleet
        .client
        .producer(&younger)
        .open()
        .await
        .expect("it opens");
    for index in 0..RECORDS {
        let record = Record::new("x").key(format!("key-{index}"));
        let receipt = producer.send(record).await.expect("it is sent");
        receipt.await.expect("it is stored");
    }
    let patience = harness.timing().timeout;
    let handle_all = async |records: usize| {
        let group = fleet.client.group(&table).stream(younger.as_str());
        let mut consumer = group.start(Start::Earliest).join().await.expect("it joins");
        for handled in 0..records {
            let next = timeout(patience, consumer.next()).await;
            let next = next.unwrap_or_else(|_| panic!("only {handled} of {records} come"));
            next.expect("it continues").expect("it has not ended").ack();
        }
        consumer.close().await.expect("it closes");
    };
    handle_all(RECORDS).await;
    forget_millstream(testbed.dynamodb(), &table).await;

    let group = fleet.client.group(&table).stream(fleet.stream.as_str());
    let group = group.start(Start::Earliest);
    expect_refusal(group.join().await.expect_err("it is of another stream"));
    let reset = group.reset(&fleet.stream, Start::Earliest);
    expect_refusal(reset.await.expect_err("it is of another stream"));

    let record = Record::new("one more").key("key-0");
    let receipt = producer.send(record).await.expect("it is sent");
    receipt.await.expect("it is stored");
    // A group that began again would have all records.
    handle_all(1).await;
    let left = eventually(harness.timing(), "all are settled", || async {
        let checkpoints = fleet.client.group(&table).checkpoints().await.ok()?;
        let is_settled = checkpoints.iter().all(|c| c.lag.records == Some(0));
        is_settled.then_some(checkpoints.len())
    });
    assert_eq!(left.await, 2, "both shards have their progress");
}

/// Creates a stream in a later second than that of the fixture: sequence numbers show no more of their stream, and an
/// emulator's times differ by up to two seconds.
async fn create_later(fixture: &Fixture, name: &str) {
    let fleet = &fixture.fleet;
    let streams = fleet.client.streams();
    let first = fixture.harness.testbed().kinesis();
    eventually(fixture.harness.timing(), "seconds have passed", || async {
        let described = first.describe_stream_summary().stream_name(&fleet.stream);
        let described = timeout(Duration::from_secs(5), described.send()).await;
        let summary = described.ok()?.ok()?.stream_description_summary?;
        let created = summary.stream_creation_timestamp.secs();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        (now.ok()?.as_secs() > u64::try_from(created).ok()? + 3).then_some(())
    })
    .await;
    let spec = StreamSpec::new(name).partitions(2);
    streams.create(spec).await.expect("it is created");
}

/// Leaves what a Java worker would have written.
async fn forget_millstream(dynamodb: &Client, table: &str) {
    let scanned = dynamodb.scan().table_name(table).consistent_read(true);
    let scanned = scanned.send().await.expect("the group has its table");
    for mut row in scanned.items.unwrap_or_default() {
        row.retain(|name, _| !name.starts_with("millstream"));
        let put = dynamodb.put_item().table_name(table).set_item(Some(row));
        put.send().await.expect("it is stored");
    }
}

fn expect_refusal(error: Error) {
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.message().contains("another stream"), "{error}");
}
