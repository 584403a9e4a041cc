//! Records are read as they were written.

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use prost::Message;

use super::any::Sent;
use super::*;
use crate::stream::HashKey;

fn read_back(entry: &Entry) -> Vec<UserRecord> {
    match deaggregate(&entry.data) {
        Deaggregated::Bare => vec![UserRecord {
            sub: 0,
            hash: entry
                .explicit_hash_key
                .unwrap_or_else(|| HashKey::of(&entry.partition_key)),
            key: key_of(entry.partition_key.clone()),
            payload: Some(entry.data.clone()),
            headers: Default::default(),
            timestamp: None,
        }],
        Deaggregated::UserRecords(records) => records,
        Deaggregated::Corrupt(why) => panic!("{why}"),
    }
}

fn expected(sent: &[Sent]) -> Vec<UserRecord> {
    let record = |(sent, sub): (&Sent, u64)| UserRecord {
        sub,
        hash: sent.hash.unwrap_or_else(|| HashKey::of(&sent.key)),
        key: Some(sent.key.clone()),
        payload: sent.record.payload.clone(),
        headers: sent.record.headers.clone(),
        timestamp: sent.record.timestamp,
    };
    sent.iter().zip(0..).map(record).collect()
}

/// Returns an entry of all records, and checks the size that was predicted.
fn filled(records: &[Sent]) -> Entry {
    let mut aggregate = AggregateBuilder::new();
    let mut size = 0;
    for sent in records {
        size = aggregate.size_with(sent.address(), &sent.record);
        aggregate.push(sent.address(), &sent.record);
    }
    let entry = aggregate.finish().unwrap();
    assert_eq!(entry.size(), size, "{} records", records.len());
    entry
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_records_come_back_and_their_size_is_known_before(records in any::records()) {
        prop_assert_eq!(read_back(&filled(&records)), expected(&records));
    }

    #[test]
    fn any_record_alone_comes_back(records in any::records()) {
        let sent = &records[0];
        let entry = Entry::of(sent.address(), &sent.record);
        prop_assert_eq!((&entry.partition_key, entry.explicit_hash_key), (&sent.key, sent.hash));
        prop_assert_eq!(read_back(&entry), expected(&records[..1]));
    }

    #[test]
    fn an_aggregate_goes_where_its_first_record_does(records in any::records()) {
        let hash = filled(&records).explicit_hash_key;
        let first = &records[0];
        let of_key = || (records.len() > 1).then(|| HashKey::of(&first.key));
        prop_assert_eq!(hash, first.hash.or_else(of_key));
    }

    #[test]
    fn is_written_as_prost_writes(records in any::records()) {
        let entry = filled(&records);
        if let Some(message) = frame::message(&entry.data) {
            let aggregate = AggregatedRecord::decode(message).unwrap();
            prop_assert_eq!(aggregate.encode_to_vec(), message);
        }
    }
}

#[test]
fn one_record_has_an_aggregate_only_where_it_needs_one() {
    let key = Bytes::from_static(b"key");
    let bare = Record::new("payload");
    let inner = aggregate(&[("k", bare.clone()), ("k", bare.clone())]);
    let inner = inner.finish().unwrap().data;
    let at = UNIX_EPOCH + Duration::from_millis(1);
    for (record, wrapped) in [
        (bare.clone(), false),
        (Record::new(""), false),
        (bare.clone().header("a", "b"), true),
        (bare.timestamp(at), true),
        (Record::new(""), false),
        (Record::tombstone("key"), true),
        (Record::new(inner.clone()), true),
        (Record::new(inner.slice(..inner.len() - 1)), false),
        // The KCL treats this as a bare record, others as an aggregate of no records.
        (Record::new(frame::wrap([&[]])), true),
        (Record::new([&frame::MAGIC[..], &[0; 16]].concat()), false),
    ] {
        let mut aggregate = AggregateBuilder::new();
        aggregate.push(&key, &record);
        let entry = aggregate.finish().unwrap();
        assert_eq!(entry, Entry::of(&key, &record));
        assert_eq!(
            frame::is_aggregate(&entry.data) || wrapped,
            wrapped,
            "{record:?}"
        );
        let is_bare = record.payload.as_ref() == Some(&entry.data);
        assert_eq!(is_bare, !wrapped, "{record:?}");
        assert_eq!(
            (&entry.partition_key, entry.explicit_hash_key),
            (&key, None)
        );
        let sent = Sent {
            key: key.clone(),
            hash: None,
            record,
        };
        assert_eq!(read_back(&entry), expected(&[sent]));
    }
}

#[test]
fn many_keys_have_longer_numbers() {
    let sent = |number: usize| Sent {
        key: Bytes::from(format!("{number}")),
        hash: number.is_multiple_of(2).then_some(HashKey(number as u128)),
        record: Record::new("payload"),
    };
    for count in [1, 2, 127, 128, 129, 130, 300] {
        let sent: Vec<_> = (0..count).map(sent).collect();
        assert_eq!(read_back(&filled(&sent)), expected(&sent));
    }
}

#[test]
fn nothing_makes_no_entry() {
    let aggregate = AggregateBuilder::new();
    assert!(aggregate.is_empty());
    assert_eq!(aggregate.finish(), None);
}

#[test]
fn payloads_and_keys_share_the_memory_of_the_aggregate() {
    let records = [("one", Record::new("1")), ("two", Record::new("2"))];
    let data = aggregate(&records).finish().unwrap().data;
    let memory = data.as_ptr_range();
    for record in opened(&data) {
        assert!(memory.contains(&record.payload.unwrap().as_ptr()));
        assert!(memory.contains(&record.key.unwrap().as_ptr()));
    }
}

#[test]
fn records_without_a_key_stay_without() {
    let mut aggregate = AggregateBuilder::new();
    aggregate.push(&keyless(7), &Record::new("1"));
    aggregate.push(&Bytes::from_static(b"k"), &Record::new("2"));
    let records = opened(&aggregate.finish().unwrap().data);
    let keys: Vec<_> = records.into_iter().map(|record| record.key).collect();
    assert_eq!(keys, [None, Some(Bytes::from_static(b"k"))]);
}
