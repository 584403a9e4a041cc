//! What is written is what is read.

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::stream::HashKey;

fn read_back(entry: &Entry) -> Vec<UserRecord> {
    match open(&entry.data) {
        Opened::Bare => vec![UserRecord {
            sub: 0,
            hash: HashKey::of(&entry.partition_key),
            key: key_of(entry.partition_key.clone()),
            payload: entry.data.clone(),
            headers: Default::default(),
            timestamp: None,
        }],
        Opened::Carrier(records) => records,
        Opened::Corrupt(why) => panic!("{why}"),
    }
}

fn expected(records: &[(Bytes, Record)]) -> Vec<UserRecord> {
    let records = records.iter().zip(0..);
    let record = |((key, record), sub): (&(Bytes, Record), u64)| UserRecord {
        sub,
        hash: HashKey::of(key),
        key: Some(key.clone()),
        payload: record.payload.clone(),
        headers: record.headers.clone(),
        timestamp: record.timestamp,
    };
    records.map(record).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_records_come_back_and_their_size_is_known_before(records in any::records()) {
        let mut carrier = Carrier::new();
        let mut size = 0;
        for (key, record) in &records {
            size = carrier.size_with(key, record);
            carrier.push(key, record);
        }
        let entry = carrier.finish().unwrap();
        prop_assert_eq!(entry.size(), size);
        prop_assert_eq!(read_back(&entry), expected(&records));
    }

    #[test]
    fn any_record_alone_comes_back(record in any::record()) {
        let key = Bytes::from_static(b"key");
        let entry = Entry::of(&key, &record);
        let plain = record.headers.is_empty() && record.timestamp.is_none();
        prop_assert_eq!(entry.explicit_hash_key.is_none(), plain);
        prop_assert_eq!(read_back(&entry), expected(&[(key, record)]));
    }

    #[test]
    fn is_written_as_prost_writes(records in any::records()) {
        let mut carrier = Carrier::new();
        for (key, record) in &records {
            carrier.push(key, record);
        }
        let entry = carrier.finish().unwrap();
        if let Some(message) = frame::message(&entry.data) {
            let aggregate = Aggregate::decode(message).unwrap();
            prop_assert_eq!(aggregate.encode_to_vec(), message);
        }
    }
}

#[test]
fn one_record_has_a_carrier_only_where_it_needs_one() {
    let key = Bytes::from_static(b"key");
    let bare = Record::new("payload");
    let inner = carrier(&[("k", bare.clone()), ("k", bare.clone())]);
    let inner = inner.finish().unwrap().data;
    let at = UNIX_EPOCH + Duration::from_millis(1);
    for (record, wrapped) in [
        (bare.clone(), false),
        (Record::new(""), false),
        (bare.clone().header("a", "b"), true),
        (bare.timestamp(at), true),
        (Record::new(inner.clone()), true),
        (Record::new(inner.slice(..inner.len() - 1)), false),
        // To the KCL this is a bare record, to others it is a carrier of none.
        (Record::new(frame::seal([&[], &[]])), true),
        (Record::new([&frame::MAGIC[..], &[0; 16]].concat()), false),
    ] {
        let mut carrier = Carrier::new();
        carrier.push(&key, &record);
        let entry = carrier.finish().unwrap();
        assert_eq!(entry, Entry::of(&key, &record));
        let partition_key: &[u8] = if wrapped { b"a" } else { b"key" };
        assert_eq!(entry.partition_key, partition_key, "{record:?}");
        let hash = wrapped.then(|| HashKey::of("key"));
        assert_eq!(entry.explicit_hash_key, hash, "{record:?}");
        assert_eq!(read_back(&entry), expected(&[(key.clone(), record)]));
    }
}

#[test]
fn many_keys_have_longer_numbers() {
    let record = |number: usize| (Bytes::from(format!("{number}")), Record::new("payload"));
    for count in [1, 2, 127, 128, 129, 130, 300] {
        let mut carrier = Carrier::new();
        let sent: Vec<_> = (0..count).map(record).collect();
        let mut size = 0;
        for (key, record) in &sent {
            size = carrier.size_with(key, record);
            carrier.push(key, record);
        }
        let entry = carrier.finish().unwrap();
        assert_eq!(entry.size(), size, "{count}");
        assert_eq!(read_back(&entry), expected(&sent));
    }
}

#[test]
fn nothing_makes_no_entry() {
    let carrier = Carrier::new();
    assert!(carrier.is_empty());
    assert_eq!(carrier.finish(), None);
}

#[test]
fn payloads_and_keys_share_the_memory_of_the_carrier() {
    let records = [("one", Record::new("1")), ("two", Record::new("2"))];
    let data = carrier(&records).finish().unwrap().data;
    let memory = data.as_ptr_range();
    for record in opened(&data) {
        assert!(memory.contains(&record.payload.as_ptr()));
        assert!(memory.contains(&record.key.unwrap().as_ptr()));
    }
}

#[test]
fn records_without_a_key_stay_without() {
    let mut carrier = Carrier::new();
    carrier.push(&keyless(7), &Record::new("1"));
    carrier.push(&Bytes::from_static(b"k"), &Record::new("2"));
    let records = opened(&carrier.finish().unwrap().data);
    let keys: Vec<_> = records.into_iter().map(|record| record.key).collect();
    assert_eq!(keys, [None, Some(Bytes::from_static(b"k"))]);
}
