//! A member of one side is killed in the middle of an aggregate that it has partly checkpointed.

use conformance::kinesis::consumer_events::Record as Handled;
use millstream_core::Record;
use millstream_kinesis::Aggregation;

use crate::fixture::Fixture;
use crate::member::{Member, Side};

const RECORDS: u64 = 10;

/// The index of the last record that the first member handles.
const INSIDE: u64 = 3;

pub(crate) async fn inside(fixture: Fixture, side: Side) {
    if side == Side::Java {
        fixture.create_leases().await;
    }
    let first = Member::inside(&fixture, side, "first", INSIDE).await;
    let number = send(&fixture).await;
    let stored = |sub: u64| {
        let (fixture, number) = (&fixture, &number);
        fixture.until("progress is stored in the aggregate", move || async move {
            let leases = fixture.leases().await;
            let mut leases = leases.values();
            let is_there = leases.any(|lease| lease.checkpoint == *number && lease.sub == sub);
            is_there.then_some(())
        })
    };
    stored(INSIDE).await;
    first.kill().await;

    let second = Member::start(&fixture, side.other(), "second").await;
    stored(RECORDS - 1).await;
    second.stop().await;
    let places = |member: &str| {
        let records = fixture.log.records(member).into_iter();
        let places = records.map(
            |Handled {
                 seq, sub, payload, ..
             }| (seq, sub, payload),
        );
        Vec::from_iter(places)
    };
    let expected = |subs: std::ops::Range<u64>| {
        let places = subs.map(|sub| (number.clone(), sub, format!("record-{sub}")));
        Vec::from_iter(places)
    };
    assert_eq!(places("first"), expected(0..INSIDE + 1));
    assert_eq!(places("second"), expected(INSIDE + 1..RECORDS));
    fixture.print(&format!(
        "{side:?} died inside an aggregate, the other side went on"
    ));
}

/// Sends one aggregate, and returns its number.
async fn send(fixture: &Fixture) -> String {
    let mut config = fixture.config();
    config.producer.aggregation = Aggregation::Kpl;
    config.producer.linger = std::time::Duration::from_millis(500);
    let client = config.connect().await.expect("the emulator responds");
    let producer = client.producer(fixture.name.as_str()).open().await;
    let producer = producer.expect("the producer opens");
    let mut receipts = Vec::new();
    for n in 0..RECORDS {
        let record = Record::new(format!("record-{n}")).key("key");
        receipts.push(producer.send(record).await.expect("it is taken"));
    }
    let mut numbers = Vec::new();
    for (n, receipt) in receipts.into_iter().enumerate() {
        let metadata = receipt.await.expect("it is stored");
        assert_eq!(metadata.position.sub(), n as u64);
        numbers.push(metadata.position.with_sub_sequence(0).to_string());
    }
    producer.close().await.expect("it closes");
    numbers.dedup();
    assert_eq!(numbers.len(), 1, "it is more than one aggregate");
    numbers.remove(0)
}
