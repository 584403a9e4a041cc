//! The deaggregation of Kinesis records.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use millstream_core::driver::StoredRecord;
use millstream_core::{Position, Record};

use super::super::answer::Raw;
use super::super::unpack::Unpacker;
use super::super::{Distribution, ReadEvent, ResumePoint, Settings};
use super::fake::{Fake, raw};
use super::{position, run, run_with, secs, settings};
use crate::aggregate::{AggregateBuilder, keyless};
use crate::config::ForeignAggregates;
use crate::stream::{HashKey, HashRange};

fn aggregate(number: u64, keys: &[&str]) -> Raw {
    let mut aggregate = AggregateBuilder::new();
    for (index, key) in keys.iter().enumerate() {
        let record = Record::new(format!("payload {index}")).header("index", index.to_string());
        aggregate.push(&Bytes::copy_from_slice(key.as_bytes()), &record);
    }
    let entry = aggregate.finish().expect("it is not empty");
    Raw {
        key: entry.partition_key,
        data: entry.data,
        ..raw(number)
    }
}

fn unpack(range: Option<HashRange>, raw: Raw, after: Option<Position>) -> Vec<StoredRecord> {
    unpack_with(ForeignAggregates::Deliver, range, raw, after)
}

fn unpack_with(
    foreign: ForeignAggregates,
    range: Option<HashRange>,
    raw: Raw,
    after: Option<Position>,
) -> Vec<StoredRecord> {
    let mut records = Vec::new();
    unpacker(foreign, range, Distribution::default()).unpack(raw, after, &mut records);
    records
}

/// Returns how many records are counted as left out.
fn filtered(
    foreign: ForeignAggregates,
    range: Option<HashRange>,
    raw: Raw,
    after: Option<Position>,
) -> u64 {
    let settings = Settings {
        range,
        foreign,
        ..settings(ResumePoint::Earliest)
    };
    Unpacker::new(&settings).unpack(raw, after, &mut Vec::new());
    settings.filtered.get()
}

fn unpacker(
    foreign: ForeignAggregates,
    range: Option<HashRange>,
    distribution: Distribution,
) -> Unpacker {
    Unpacker::new(&Settings {
        range,
        distribution,
        foreign,
        ..settings(ResumePoint::Earliest)
    })
}

fn positions(records: &[StoredRecord]) -> Vec<String> {
    records.iter().map(|r| r.position.to_string()).collect()
}

#[test]
fn bare_records_are_records() {
    let record = raw(7);
    let stored = unpack(None, record.clone(), None).remove(0);
    assert_eq!(stored.key, Some(record.key));
    assert_eq!(
        stored.payload.as_ref().unwrap().as_ptr(),
        record.data.as_ptr()
    );
    assert_eq!(Some(stored.timestamp), record.arrival);
    let nameless = Raw {
        key: keyless(5),
        ..raw(8)
    };
    assert_eq!(unpack(None, nameless, None)[0].key, None);
}

#[test]
fn aggregates_are_split() {
    let stored = unpack(None, aggregate(7, &["a", "b", "a"]), None);
    assert_eq!(positions(&stored), ["7", "7.1", "7.2"]);
    assert_eq!(stored[1].key.as_deref(), Some(&b"b"[..]));
    assert_eq!(stored[2].payload.as_deref(), Some(&b"payload 2"[..]));
    assert_eq!(stored[2].headers.get("index"), Some(&Bytes::from("2")));
}

#[test]
fn a_producers_timestamp_is_kept() {
    let at = UNIX_EPOCH + Duration::from_millis(1_234_567);
    let mut aggregate = AggregateBuilder::new();
    aggregate.push(&"k".into(), &Record::new("x").timestamp(at));
    let entry = aggregate.finish().expect("it is not empty");
    let stored = unpack(
        None,
        Raw {
            data: entry.data,
            ..raw(7)
        },
        None,
    );
    assert_eq!(stored[0].timestamp, at);
}

#[test]
fn what_was_handed_on_is_left_out() {
    let keys = ["a", "b", "c", "d"];
    let stored = unpack(None, aggregate(7, &keys), Some(position("7.1")));
    assert_eq!(positions(&stored), ["7.2", "7.3"]);
    assert!(unpack(None, aggregate(7, &keys), Some(position("7.3"))).is_empty());
    assert!(unpack(None, raw(7), Some(position("7"))).is_empty());
}

#[test]
fn records_of_other_shards_are_left_out_one_by_one() {
    let stored = unpack(only("b"), aggregate(7, &["b", "a", "c", "b"]), None);
    assert_eq!(positions(&stored), ["7", "7.3"]);
    // A bare one is where Kinesis has put it.
    assert_eq!(unpack(only("b"), raw(8), None).len(), 1);
}

/// The hash key of one key.
fn only(key: &str) -> Option<HashRange> {
    let hash = HashKey::of(key).0;
    Some(HashRange {
        first: hash,
        last: hash,
    })
}

#[test]
fn aggregates_of_other_writers_are_delivered_whole() {
    let all = ["7", "7.1", "7.2", "7.3"];
    let elsewhere = || aggregate(7, &["a", "b", "c", "b"]);
    let by_its_first_key = || Raw {
        key: "b".into(),
        ..aggregate(7, &["b", "a", "c", "b"])
    };
    for foreign in [elsewhere(), by_its_first_key()] {
        assert_eq!(positions(&unpack(only("b"), foreign.clone(), None)), all);
        // Also from within.
        let stored = unpack(only("b"), foreign, Some(position("7.1")));
        assert_eq!(positions(&stored), ["7.2", "7.3"]);
    }
}

/// What a stream that distributes records itself may store in the shard of key `b`, before its member knows.
fn misplaced() -> Vec<(&'static str, Raw)> {
    let by_first = |keys: &[&'static str]| Raw {
        key: keys[0].into(),
        ..aggregate(7, keys)
    };
    vec![
        ("a record with headers", aggregate(7, &["a"])),
        ("an aggregate by the KPL", aggregate(7, &["c", "b"])),
        ("one by its first key", by_first(&["c", "b"])),
        (
            "one under another key",
            Raw {
                key: "d".into(),
                ..aggregate(7, &["c", "b"])
            },
        ),
    ]
}

#[test]
fn aggregates_in_a_shard_that_is_not_theirs_are_delivered_whole() {
    use ForeignAggregates::{Deliver, Filter};
    for foreign in [Deliver, Filter] {
        for (what, raw) in misplaced() {
            let whole = unpack(None, raw.clone(), None).len();
            let stored = unpack_with(foreign, only("b"), raw, None);
            assert_eq!(stored.len(), whole, "{foreign:?}: {what}");
        }
    }
}

#[test]
fn aggregates_of_other_writers_are_filtered_in_their_own_shard_if_that_is_set() {
    let own = || Raw {
        key: "b".into(),
        ..aggregate(7, &["a", "b", "c", "b"])
    };
    let filtered = unpack_with(ForeignAggregates::Filter, only("b"), own(), None);
    assert_eq!(positions(&filtered), ["7.1", "7.3"]);
    assert_eq!(unpack(only("b"), own(), None).len(), 4);
}

#[test]
fn records_left_out_are_counted_and_no_others() {
    use ForeignAggregates::{Deliver, Filter};
    let foreign = || Raw {
        key: "b".into(),
        ..aggregate(7, &["a", "b", "c", "b"])
    };
    assert_eq!(filtered(Filter, only("b"), foreign(), None), 2);
    assert_eq!(filtered(Deliver, only("b"), foreign(), None), 0);
    // Those up to the checkpoint were counted before it.
    let after = Some(position("7.1"));
    assert_eq!(filtered(Filter, only("b"), foreign(), after), 1);
    assert_eq!(filtered(Filter, only("b"), raw(8), None), 0);
}

#[test]
fn nothing_is_left_out_once_the_stream_distributes_records_itself() {
    let distribution = Distribution::new(false);
    let mut unpacker = unpacker(ForeignAggregates::Filter, only("b"), distribution.clone());
    let mut records = Vec::new();
    unpacker.unpack(aggregate(7, &["b", "a"]), None, &mut records);
    assert_eq!(positions(&records), ["7"]);
    distribution.set_automatic();
    unpacker.unpack(aggregate(8, &["b", "a"]), None, &mut records);
    assert_eq!(positions(&records), ["7", "8", "8.1"]);
}

#[test]
fn what_cannot_be_understood_is_handed_on_as_it_is() {
    // One user record that refers to no key, in a valid frame.
    let message = [0x1a, 4, 0x08, 9, 0x1a, 0];
    let mut data = vec![0xf3, 0x89, 0x9a, 0xc2];
    data.extend(message);
    data.extend(<md5::Md5 as md5::Digest>::digest(message));
    let data = Bytes::from(data);
    let record = Raw {
        data: data.clone(),
        ..raw(7)
    };
    let stored = unpack(None, record, None);
    assert_eq!((stored.len(), stored[0].payload.as_ref()), (1, Some(&data)));
}

#[tokio::test(start_paused = true)]
async fn large_aggregates_are_handed_on_in_batches() {
    let fake = Fake::new(1..=2);
    let keys = ["a"; 10];
    fake.lock().records.push(aggregate(3, &keys));
    fake.lock().records.push(raw(4));
    let mut run = run(&fake, ResumePoint::After(position("1")));
    let records = run.records(12).await;
    let expected = ["2", "3", "3.1", "3.2", "3.3", "3.4", "3.5", "3.6", "3.7"];
    assert_eq!(positions(&records)[..9], expected);
    assert_eq!(positions(&records)[10..], ["3.9", "4"]);
}

#[tokio::test(start_paused = true)]
async fn an_aggregate_of_nothing_is_passed_over() {
    let fake = Fake::new(1..=2);
    // A frame around a key table without records.
    let message = [0x0a, 1, b'k'];
    let mut data = vec![0xf3, 0x89, 0x9a, 0xc2];
    data.extend(message);
    data.extend(<md5::Md5 as md5::Digest>::digest(message));
    fake.lock().records[1].data = data.into();
    let mut run = run(&fake, ResumePoint::Earliest);
    run.expect([1]).await;
    run.expect_nothing(secs(600)).await;
    fake.store(3..=4);
    run.expect(3..=4).await;
}

#[tokio::test(start_paused = true)]
async fn resumes_within_an_aggregate() {
    let fake = Fake::new(1..=2);
    fake.lock().records.push(aggregate(3, &["a", "b", "c"]));
    let mut run = run(&fake, ResumePoint::After(position("3.1")));
    assert_eq!(positions(&run.records(1).await), ["3.2"]);
}

#[tokio::test(start_paused = true)]
async fn an_event_has_no_more_bytes_than_it_may() {
    let fake = Fake::new(1..=10);
    let size = StoredRecord::size(&unpack(None, raw(1), None)[0]);
    let settings = Settings {
        batch_records: 100,
        batch_bytes: 4 * size + 1,
        ..settings(ResumePoint::Earliest)
    };
    let mut run = run_with(&fake, settings);
    let mut events = Vec::new();
    while events.iter().sum::<usize>() < 10 {
        match run.next().await {
            ReadEvent::Records { records, .. } => events.push(records.len()),
            event => panic!("{event:?}"),
        }
    }
    // The tenth is larger by a byte.
    assert_eq!(events, [4, 4, 2]);
}
