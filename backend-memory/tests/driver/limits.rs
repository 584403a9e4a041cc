//! What streams refuse when another broker is imitated.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream_core::driver::{Backend, CheckpointUpdate};
use millstream_core::{ErrorKind, Position, Record};
use millstream_memory::Imitation;

use crate::fixture::{Fixture, partition};

const KAFKA: Option<Imitation> = Some(Imitation::Kafka);
const KINESIS: Option<Imitation> = Some(Imitation::Kinesis);

async fn like(broker: Option<Imitation>) -> Fixture {
    let fixture = Fixture::with(|config| config.like = broker);
    fixture.create("s", 1).await;
    fixture
}

/// Sends a record to the driver, and to the runtime above it: both must agree.
async fn send(fixture: &Fixture, record: Record) -> Option<ErrorKind> {
    let driver = fixture.producer("s").await;
    let result = driver.send(vec![record.clone()]).await.remove(0);
    let by_driver = result.err().map(|rejected| rejected.error.kind());
    let producer = fixture.memory.client().producer("s").open().await.unwrap();
    let by_runtime = match producer.send(record).await {
        Ok(receipt) => receipt.await.err().map(|error| error.kind()),
        Err(error) => Some(error.kind()),
    };
    assert_eq!(by_driver, by_runtime);
    by_driver
}

async fn results(broker: Option<Imitation>, records: &[Record]) -> Vec<Option<ErrorKind>> {
    let fixture = like(broker).await;
    let mut results = Vec::new();
    for record in records {
        results.push(send(&fixture, record.clone()).await);
    }
    results
}

const INVALID: Option<ErrorKind> = Some(ErrorKind::Invalid);
const TOO_LARGE: Option<ErrorKind> = Some(ErrorKind::TooLarge);

#[tokio::test(start_paused = true)]
async fn keys() {
    let keys = [
        vec![b'k'; 256],
        vec![b'k'; 257],
        vec![0xff],
        vec![],
        b"millstream:-:7".to_vec(),
    ];
    let records = keys.map(|key| Record::new("x").key(key));
    let none = results(None, &records).await;
    assert_eq!(none, [None, INVALID, None, None, None]);
    let kafka = results(KAFKA, &records).await;
    assert_eq!(kafka, [None; 5]);
    let kinesis = results(KINESIS, &records).await;
    assert_eq!(kinesis, [None, INVALID, INVALID, INVALID, INVALID]);
}

#[tokio::test(start_paused = true)]
async fn headers() {
    let records = ["a", "a\0b", "\0a"].map(|name| Record::new("x").header(name, "1"));
    assert_eq!(results(None, &records).await, [None; 3]);
    assert_eq!(results(KAFKA, &records).await, [None, INVALID, INVALID]);
    assert_eq!(results(KINESIS, &records).await, [None, None, INVALID]);
}

#[tokio::test(start_paused = true)]
async fn timestamps() {
    let times: [SystemTime; 3] = [
        UNIX_EPOCH - Duration::from_secs(1),
        UNIX_EPOCH + Duration::from_micros(999),
        UNIX_EPOCH + Duration::from_millis(1),
    ];
    let records = times.map(|at| Record::new("x").timestamp(at));
    assert_eq!(results(None, &records).await, [None; 3]);
    assert_eq!(results(KAFKA, &records).await, [INVALID, INVALID, None]);
    assert_eq!(results(KINESIS, &records).await, [None; 3]);
}

#[tokio::test(start_paused = true)]
async fn sizes() {
    let record = |bytes: usize| Record::new(vec![b'x'; bytes]);
    let mib = 1 << 20;
    let none = results(None, &[record(mib), record(mib + 1)]).await;
    assert_eq!(none, [None, TOO_LARGE]);

    let largest = 1_000_000 - 36;
    let records = [
        record(largest),
        record(largest + 1),
        // Three bytes of header, and one for each of its lengths.
        record(largest - 5).header("ab", "c"),
        record(largest - 4).header("ab", "c"),
        record(mib),
    ];
    let kafka = results(KAFKA, &records).await;
    assert_eq!(kafka, [None, TOO_LARGE, None, TOO_LARGE, TOO_LARGE]);

    let records = [
        record(mib - 3).key("key"),
        record(mib - 2).key("key"),
        // A keyless record has a key of 16 bytes.
        record(mib - 16),
        record(mib - 15),
        // 3 of key, 20 of frame, 5 of the key table; 4 + 2 + 4 around key index and payload, 9 of tag.
        record(mib - 47).key("key").header("ab", "c"),
        record(mib - 46).key("key").header("ab", "c"),
    ];
    let kinesis = results(KINESIS, &records).await;
    assert_eq!(kinesis, [None, TOO_LARGE, None, TOO_LARGE, None, TOO_LARGE]);
}

#[tokio::test(start_paused = true)]
async fn explicit_limits_win() {
    let fixture = Fixture::with(|config| {
        config.like = KAFKA;
        config.limits.record_bytes = Some(2 << 20);
        config.limits.key_bytes = Some(3);
    });
    fixture.create("s", 1).await;
    let large = Record::new(vec![0; 1 << 20]);
    assert_eq!(send(&fixture, large).await, None);
    assert_eq!(send(&fixture, Record::new("x").key("long")).await, INVALID);
}

#[tokio::test(start_paused = true)]
async fn streams_and_reshards() {
    let kind = |result: millstream_core::Result<()>| result.err().map(|error| error.kind());
    let unsupported = Some(ErrorKind::Unsupported);
    for (broker, name, reshard, add) in [
        (None, None, None, None),
        (KAFKA, None, unsupported, None),
        (KINESIS, INVALID, None, unsupported),
    ] {
        let fixture = Fixture::with(|config| config.like = broker);
        let streams = fixture.streams();
        fixture.create("s", 2).await;
        let spec = millstream_core::StreamSpec::new("n".repeat(129));
        assert_eq!(kind(streams.create(&spec).await), name);
        assert_eq!(kind(streams.add_partitions("s", 3).await), add);
        let merged = streams.merge(&partition(0), &partition(1)).await;
        assert_eq!(kind(merged), reshard);
        fixture.create("t", 1).await;
        let other = millstream_core::Partition::new("t", "0");
        assert_eq!(kind(streams.split(&other).await), reshard);
    }
}

#[tokio::test(start_paused = true)]
async fn guarantees_and_batches() {
    let fixture = like(KAFKA).await;
    let guarantees = fixture.memory.guarantees();
    assert!(guarantees.exactly_once && guarantees.add_partitions);
    assert!(!guarantees.ordered_reshard);
    let limits = fixture.producer("s").await.limits();
    assert_eq!((limits.batch_records, limits.batch_bytes), (1_000, 1 << 20));

    let fixture = like(KINESIS).await;
    let guarantees = fixture.memory.guarantees();
    assert!(!guarantees.exactly_once && !guarantees.add_partitions);
    assert!(guarantees.ordered_reshard);
    let limits = fixture.producer("s").await.limits();
    assert_eq!((limits.batch_records, limits.batch_bytes), (100, 5 << 20));
    fixture.fill(1, 1).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    let update = CheckpointUpdate {
        partition: partition(0),
        epoch: member.epoch(0),
        position: Position::from(0),
    };
    let published = member.membership.publish("s", &[], &[update]).await;
    assert_eq!(published.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn a_publish_is_checked_like_a_send() {
    let fixture = like(KAFKA).await;
    fixture.fill(1, 1).await;
    let mut member = fixture.join("a").await;
    member.settle().await;
    let update = CheckpointUpdate {
        partition: partition(0),
        epoch: member.epoch(0),
        position: Position::from(0),
    };
    let record = Record::new("x").header("a\0b", "1");
    let published = member.membership.publish("s", &[record], &[update]).await;
    assert_eq!(published.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(fixture.progress("g").await[0].position, None);
}
