//! Each side reads what the producer of the other one sends.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use conformance::kinesis::java;
use conformance::kinesis::told::Record as Handled;
use millstream::{Position, Record};
use millstream_kinesis::Aggregation;

use crate::ground::Ground;
use crate::leases;
use crate::member::{Member, Side};

/// A record and its place: shard, position, key, payload with each byte as a character.
type Place = (String, Position, Option<String>, String);

fn place(record: &Handled) -> Place {
    let (shard, payload) = (record.shard.clone(), record.payload.clone());
    (shard, record.position(), record.key.clone(), payload)
}

/// Both sides, each as a group of its own, read the same records at the same places.
pub(crate) async fn javas(ground: Ground) {
    const COUNT: usize = 200;
    const KEYS: usize = 7;
    let sent = java::produce(&ground.site.tls_endpoint().await, &ground.name, COUNT, KEYS).await;
    assert_eq!(sent.len(), COUNT);

    let application = format!("{}-java", ground.name);
    leases::create(ground.site.dynamodb(), &application, &ground.shards().await).await;
    let apart = [("application", &*application)];
    let theirs = Member::java(&ground, "java", &apart).await;
    let ours = Member::start(&ground, Side::Rust, "ours").await;
    ground
        .until("both have read it", || async {
            let read = |member: &str| ground.log.records(member).len() >= COUNT;
            (read("java") && read("ours")).then_some(())
        })
        .await;
    theirs.stop().await;
    ours.stop().await;

    let read = |member: &str| -> BTreeSet<Place> {
        ground.log.records(member).iter().map(place).collect()
    };
    let (theirs, ours) = (read("java"), read("ours"));
    assert_eq!(ours, theirs);
    let expected: BTreeSet<_> = sent
        .iter()
        .map(|sent| {
            (
                sent.shard.clone(),
                sent.seq.clone(),
                format!("record-{}", sent.n),
            )
        })
        .collect();
    let told = ours.iter().map(|(shard, position, _, payload)| {
        (
            shard.clone(),
            position.within(0).to_string(),
            payload.clone(),
        )
    });
    assert_eq!(BTreeSet::from_iter(told), expected);
    let carriers = BTreeSet::from_iter(sent.iter().map(|sent| &sent.seq));
    ground.print(&format!(
        "{COUNT} records of the KPL in {} of Kinesis",
        carriers.len()
    ));
    assert!(carriers.len() < COUNT / 2, "they were not aggregated");
}

/// Java reads the same records at the places that our receipts told, whatever else they have.
pub(crate) async fn ours(ground: Ground) {
    let mut placed: Vec<Place> = Vec::new();
    let mut keyless = 0;
    for aggregation in [Aggregation::Off, Aggregation::Kpl] {
        let mut config = ground.config();
        config.producer.aggregation = aggregation;
        let client = config.connect().await.expect("the site answers");
        let producer = client.producer(ground.name.as_str()).open().await;
        let producer = producer.expect("the producer opens");
        let mut receipts = Vec::new();
        for record in records() {
            let (key, payload) = (record.key.clone(), record.payload.clone());
            let receipt = producer.send(record).await.expect("it is taken");
            receipts.push((key, payload, receipt));
        }
        for (key, payload, receipt) in receipts {
            let at = receipt.await.expect("it is stored");
            let text = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
            let key = key.map(|key| String::from_utf8(key.to_vec()).expect("it is text"));
            keyless += usize::from(key.is_none());
            placed.push((
                at.partition.id().to_owned(),
                at.position,
                key,
                text(&payload),
            ));
        }
        producer.close().await.expect("it closes");
    }

    ground.create_leases().await;
    let java = Member::start(&ground, Side::Java, "java").await;
    ground
        .until("Java has read it", || async {
            (ground.log.records("java").len() >= placed.len()).then_some(())
        })
        .await;
    java.stop().await;
    let records = ground.log.records("java");
    let is_keyless = |key: &str| key.starts_with("millstream:-:");
    let without = records
        .iter()
        .filter(|record| record.key.as_deref().is_some_and(is_keyless));
    assert_eq!(without.count(), keyless);
    let mut read: Vec<Place> = records.iter().map(place).collect();
    for (_, _, key, _) in &mut read {
        // Kinesis knows no record without a key.
        *key = key.take().filter(|key| !is_keyless(key));
    }
    read.sort();
    placed.sort();
    assert_eq!(read, placed);
    assert!(
        records
            .iter()
            .all(|record| record.explicit_hash_key.is_none())
    );
    let aggregated = records
        .iter()
        .filter(|record| record.aggregated == Some(true));
    let (aggregated, all) = (aggregated.count(), records.len());
    ground.print(&format!(
        "{all} records of ours, {aggregated} of them in aggregates"
    ));
    assert!(aggregated > all / 2 && aggregated < all);
}

/// With and without key, headers of text and of bytes, and a time of their own; and payloads of all bytes.
fn records() -> Vec<Record> {
    let all_bytes = Vec::from_iter(0..=u8::MAX);
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let mut records = Vec::new();
    for n in 0..10 {
        let mut payload = all_bytes.clone();
        payload.push(n);
        let bare = Record::new(payload).key(format!("clé-{n}"));
        let header = bare.clone().header("traceparent", "00-1-1-01");
        let headers = header
            .clone()
            .header("id", all_bytes.clone())
            .header("none", "");
        records.extend([bare.clone(), header, headers, bare.timestamp(at)]);
        records.push(Record::new(vec![n]));
        records.push(Record::new(vec![]).key("empty"));
    }
    records
}
