//! Records that decide their own shard.

use std::time::Duration;

use millstream_core::driver::Producer as _;
use millstream_core::{ErrorKind, Record};

use super::fake::Fake;
use super::reader::{Reader, assert_placed, read};
use super::{BOTH, HASH_KEY, config, kinds, record, start};
use crate::aggregate::{AggregateBuilder, Entry};
use crate::config::{Aggregation, HeaderPolicy};
use crate::stream::{HashKey, HashRange};

#[tokio::test(start_paused = true)]
async fn they_go_where_they_say() {
    for aggregation in BOTH {
        let fake = Fake::new(1, 3);
        let ranges: Vec<_> = fake.world().shards.iter().map(|s| s.range).collect();
        let producer = start(&fake, config(aggregation));
        let ends = ranges.iter().flat_map(|range| [range.first, range.last]);
        let records = ends.zip(0..).map(|(hash, number)| {
            // The key alone would route all of them to one shard.
            record("key", number).header(HASH_KEY, hash.to_string())
        });
        let results = producer.send(records.collect()).await;
        let shards = results.iter().map(|result| {
            let placed = result.as_ref().unwrap();
            placed.partition.id().to_owned()
        });
        let expected = [0, 0, 1, 1, 2, 2].map(|n| format!("shardId-{n:012}"));
        assert_eq!(shards.collect::<Vec<_>>(), expected, "{aggregation:?}");
        for reader in [Reader::Ours, Reader::Kcl] {
            let seen = read(&fake.world(), reader);
            assert_eq!(seen.len(), 6, "{aggregation:?}");
            for (result, number) in results.iter().zip(0..) {
                assert_placed(&seen, number, result.as_ref().unwrap(), "one of six");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn keys_of_one_hash_share_requests() {
    let fake = Fake::new(1, 3);
    let producer = start(&fake, config(Aggregation::Off));
    let records = (0..20).map(|n| record(&format!("k{n}"), n).header(HASH_KEY, "1"));
    let results = producer.send(records.collect()).await;
    assert_eq!(kinds(&results), [None; 20]);
    assert_eq!(fake.world().requests, [20]);
}

/// The message of an aggregate, as far as it concerns hash keys.
#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(message, repeated, tag = "3")]
    records: Vec<UserRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UserRecord {
    #[prost(uint64, optional, tag = "2")]
    hash_key: Option<u64>,
}

/// Returns whether each record of an aggregate has an explicit hash key.
fn hash_keys(entry: &Entry) -> Vec<bool> {
    let message = &entry.data[4..entry.data.len() - 16];
    let message = <Message as prost::Message>::decode(message).unwrap();
    let records = message.records.iter();
    records.map(|record| record.hash_key.is_some()).collect()
}

#[tokio::test(start_paused = true)]
async fn all_records_of_an_aggregate_have_one_or_none_has() {
    let fake = Fake::new(1, 1);
    let producer = start(&fake, config(Aggregation::Kpl));
    let plain = |n| record(&format!("k{n}"), n);
    let mixed = |n: u64| match n % 3 {
        1 => plain(n).header(HASH_KEY, n.to_string()),
        _ => plain(n),
    };
    for records in [(0..30).map(mixed).collect(), (30..60).map(plain).collect()] {
        let results = producer.send(records).await;
        assert_eq!(kinds(&results), [None; 30]);
    }
    let world = fake.world();
    let stored = world.stored[0].iter().map(|(_, entry)| hash_keys(entry));
    assert_eq!(stored.collect::<Vec<_>>(), [[true; 30], [false; 30]]);
    let seen = read(&world, Reader::Kcl);
    assert_eq!(seen.len(), 60, "all are where their hashes lead");
}

#[tokio::test(start_paused = true)]
async fn a_record_of_the_largest_size_gets_none_from_its_neighbours() {
    const LARGEST: usize = 1 << 20;
    let fake = Fake::new(1, 1);
    fake.world().late = Duration::from_secs(2);
    let producer = start(&fake, config(Aggregation::Kpl));
    // The latency is known, so the next aggregate may be as large as a record.
    assert_eq!(kinds(&producer.send(vec![record("k", 1)]).await), [None]);
    let of = |bytes| Record::new(vec![b'1'; bytes]).key("k").header("a", "b");
    let size = |record: &Record| AggregateBuilder::new().size_with(&"k".into(), record);
    let large = of(2 * LARGEST - size(&of(LARGEST)));
    assert_eq!(size(&large), LARGEST);
    let small = record("l", 2).header(HASH_KEY, "1");
    let results = producer.send(vec![large, small]).await;
    assert_eq!(kinds(&results), [None, None]);
    let world = fake.world();
    let entries = world.stored[0].iter().map(|(_, entry)| entry);
    let entries = entries.map(|entry| (entry.size(), entry.explicit_hash_key));
    let expected = [(2, None), (LARGEST, None), (2, Some(HashKey(1)))];
    assert_eq!(entries.collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_record_without_a_key_goes_where_no_key_leads() {
    for aggregation in BOTH {
        let fake = Fake::new(1, 2);
        {
            // None of the partition keys that are tried has this hash.
            let shards = &mut fake.world().shards;
            shards[0].range = HashRange { first: 0, last: 0 };
            shards[1].range.first = 1;
        }
        let producer = start(&fake, config(aggregation));
        let to = |hash| Record::new("1").header(HASH_KEY, hash);
        let results = producer.send(vec![to("0"), to("1"), to("0")]).await;
        let shards = results.iter().map(|result| {
            let placed = result.as_ref().unwrap();
            placed.partition.id().to_owned()
        });
        let expected = [0, 1, 0].map(|n| format!("shardId-{n:012}"));
        assert_eq!(shards.collect::<Vec<_>>(), expected, "{aggregation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalid_one_is_rejected_with_the_unchanged_record() {
    for aggregation in BOTH {
        let fake = Fake::new(1, 2);
        let producer = start(&fake, config(aggregation));
        let wrong = record("a", 1).header(HASH_KEY, "west").header("b", "2");
        let records = vec![wrong.clone(), record("a", 2), record("c", 3)];
        let results = producer.send(records).await;
        let (invalid, behind) = (ErrorKind::Invalid, ErrorKind::Unavailable);
        assert_eq!(kinds(&results), [Some(invalid), Some(behind), None]);
        let rejected = results[0].as_ref().unwrap_err();
        assert_eq!(*rejected.record, wrong);
        assert!(rejected.error.message().contains("\"west\""));
    }
}

#[tokio::test(start_paused = true)]
async fn their_header_is_no_header_that_needs_an_envelope() {
    let fake = Fake::new(1, 2);
    let mut config = config(Aggregation::Off);
    config.headers = HeaderPolicy::Refuse;
    let producer = start(&fake, config);
    let records = vec![
        record("a", 1).header(HASH_KEY, "1"),
        record("b", 2).header("other", "1"),
    ];
    let results = producer.send(records).await;
    assert_eq!(kinds(&results), [None, Some(ErrorKind::Invalid)]);
    let stored = &fake.world().stored;
    let (_, entry) = stored.iter().flatten().next().unwrap();
    assert_eq!(entry.data, "1");
}
