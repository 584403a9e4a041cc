//! Each side reads the records of the other side's producer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use conformance::kinesis::consumer_events::Record as Handled;
use conformance::kinesis::java;
use millstream_core::{Position, Record};
use millstream_kinesis::Aggregation;

use crate::fixture::Fixture;
use crate::leases;
use crate::member::{Member, Side};

/// A record with its shard, position and key, and its payload with each byte as a character.
type RecordLocation = (String, Position, Option<String>, String);

fn place(record: &Handled) -> RecordLocation {
    let (shard, payload) = (record.shard.clone(), record.payload.clone());
    (shard, record.position(), record.key.clone(), payload)
}

/// Reads the stream on both sides, each in its own group. Returns Java's records, and millstream's.
async fn read_by_both(fixture: &Fixture, count: usize) -> [Vec<Handled>; 2] {
    let application = format!("{}-java", fixture.name);
    leases::create(
        fixture.testbed.dynamodb(),
        &application,
        &fixture.shards().await,
    )
    .await;
    let apart = [("application", &*application)];
    let theirs = Member::java(fixture, "java", &apart).await;
    let ours = Member::start(fixture, Side::Rust, "ours").await;
    fixture
        .until("both have read it", || async {
            let read = |member: &str| fixture.log.records(member).len() >= count;
            (read("java") && read("ours")).then_some(())
        })
        .await;
    theirs.stop().await;
    ours.stop().await;
    ["java", "ours"].map(|member| fixture.log.records(member))
}

/// Returns the first hash key of each shard.
async fn first_hashes(fixture: &Fixture) -> Vec<(String, String)> {
    let shards = fixture.shards().await.into_iter();
    let shards = shards.map(|shard| {
        let range = shard.hash_key_range.expect("each has a range");
        (shard.shard_id, range.starting_hash_key)
    });
    shards.collect()
}

/// Both sides read the same records at the same positions.
pub(crate) async fn javas(fixture: Fixture) {
    const COUNT: usize = 200;
    const KEYS: usize = 7;
    let endpoint = fixture.testbed.tls_endpoint().await;
    let shards = first_hashes(&fixture).await;
    let (shard, hash) = shards.last().expect("there are some");
    let sent = java::produce(&endpoint, &fixture.name, COUNT, KEYS, hash).await;
    assert_eq!(sent.len(), COUNT);
    let mut thirds = sent.iter().filter(|sent| sent.n % 3 == 0);
    assert!(thirds.all(|sent| sent.shard == *shard));

    let [theirs, ours] = read_by_both(&fixture, COUNT).await;
    let [theirs, ours] = [theirs, ours].map(|read| BTreeSet::from_iter(read.iter().map(place)));
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
    let reported = ours.iter().map(|(shard, position, _, payload)| {
        (
            shard.clone(),
            position.with_sub_sequence(0).to_string(),
            payload.clone(),
        )
    });
    assert_eq!(BTreeSet::from_iter(reported), expected);
    let aggregates = BTreeSet::from_iter(sent.iter().map(|sent| &sent.seq));
    fixture.print(&format!(
        "{COUNT} records of the KPL in {} of Kinesis",
        aggregates.len()
    ));
    assert!(aggregates.len() < COUNT / 2, "they were not aggregated");
}

/// The header with the explicit hash key of a record.
const HASH_KEY: &str = "hash-key";

/// Both sides read the same records at the positions of millstream's receipts, whatever other data they have.
pub(crate) async fn ours(fixture: Fixture) {
    let shards = first_hashes(&fixture).await;
    let mut locations: Vec<RecordLocation> = Vec::new();
    let (mut keyless, mut explicit) = (0, 0);
    for aggregation in [Aggregation::Off, Aggregation::Kpl] {
        let mut config = fixture.config();
        config.producer.aggregation = aggregation;
        config.producer.explicit_hash_key_header = Some(HASH_KEY.into());
        let client = config.connect().await.expect("the emulator responds");
        let producer = client.producer(fixture.name.as_str()).open().await;
        let producer = producer.expect("the producer opens");
        let mut receipts = Vec::new();
        for record in records(&shards) {
            let receipt = producer.send(record.clone()).await.expect("it is taken");
            receipts.push((record, receipt));
        }
        for (record, receipt) in receipts {
            let at = receipt.await.expect("it is stored");
            let shard = at.partition.id().to_owned();
            if let Some(hash) = record.headers.get(HASH_KEY) {
                let (named, _) = shards.iter().find(|(_, first)| first == hash).expect("one");
                assert_eq!(shard, *named);
                explicit += 1;
            }
            let text = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
            let key = record.key;
            let key = key.map(|key| String::from_utf8(key.to_vec()).expect("it is text"));
            keyless += usize::from(key.is_none());
            locations.push((
                shard,
                at.position,
                key,
                text(record.payload.as_deref().expect("it has one")),
            ));
        }
        producer.close().await.expect("it closes");
    }

    let [theirs, ours] = read_by_both(&fixture, locations.len()).await;
    let is_keyless = |key: &str| key.starts_with("millstream:-:");
    let without = theirs
        .iter()
        .filter(|record| record.key.as_deref().is_some_and(is_keyless));
    assert_eq!(without.count(), keyless);
    locations.sort();
    for read in [&theirs, &ours] {
        let mut read: Vec<RecordLocation> = read.iter().map(place).collect();
        for (_, _, key, _) in &mut read {
            // Kinesis has no records without a key.
            *key = key.take().filter(|key| !is_keyless(key));
        }
        read.sort();
        assert_eq!(read, locations);
    }
    let aggregated = theirs
        .iter()
        .filter(|record| record.aggregated == Some(true));
    let (aggregated, all) = (aggregated.count(), theirs.len());
    fixture.print(&format!(
        "{all} records of ours, {aggregated} of them in aggregates"
    ));
    assert!(aggregated > all / 2 && aggregated < all);
    check_hash_keys(&shards, &theirs, explicit / 2);
}

/// Java reports the explicit hash keys in aggregates; Kinesis does not return those of bare records. Either all records of
/// an aggregate have one, or none has, as some libraries give the first one to all. Each leads to its shard.
fn check_hash_keys(shards: &[(String, String)], read: &[Handled], explicit: usize) {
    let number = |hash: &str| hash.parse::<u128>().expect("a hash key");
    let mut aggregates: BTreeMap<_, BTreeSet<bool>> = BTreeMap::new();
    let mut exact = 0;
    for record in read.iter().filter(|r| r.aggregated == Some(true)) {
        let whole = (&record.shard, record.position().with_sub_sequence(0));
        let of_it = aggregates.entry(whole).or_default();
        of_it.insert(record.explicit_hash_key.is_some());
        let Some(hash) = &record.explicit_hash_key else {
            continue;
        };
        let before = shards
            .iter()
            .filter(|(_, first)| number(first) <= number(hash));
        let shard = before.max_by_key(|(_, first)| number(first));
        let (shard, first) = shard.expect("the first shard begins at 0");
        assert_eq!(*shard, record.shard, "{hash} leads to its shard");
        exact += usize::from(first == hash);
    }
    let is_mixed = |(_, kinds): &(_, BTreeSet<bool>)| kinds.len() > 1;
    assert_eq!(aggregates.into_iter().find(is_mixed), None, "all or none");
    assert_eq!(exact, explicit, "explicit hash keys are kept");
}

/// Returns records with and without a key, with text and binary headers, a timestamp and an explicit hash key; their
/// payloads have all byte values.
fn records(shards: &[(String, String)]) -> Vec<Record> {
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
        for (_, first) in shards {
            let there = Record::new(vec![n]).header(HASH_KEY, first.clone());
            records.extend([there.clone(), there.key("there")]);
        }
    }
    records
}
