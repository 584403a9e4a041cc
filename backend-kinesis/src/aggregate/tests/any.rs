//! Arbitrary records.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use millstream_core::Record;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::aggregate::Address;
use crate::stream::HashKey;

/// A record with the address that decides its shard.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) key: Bytes,
    pub(super) hash: Option<HashKey>,
    pub(super) record: Record,
}

impl Sent {
    pub(super) fn address(&self) -> Address<'_> {
        Address {
            partition_key: &self.key,
            explicit_hash_key: self.hash,
        }
    }
}

/// Keys and explicit hash keys are often repeated.
pub(super) fn records() -> impl Strategy<Value = Vec<Sent>> {
    let (keys, hashes) = (vec(key(), 1..6), vec(option::of(hash()), 1..6));
    let index = any::<prop::sample::Index>;
    let records = vec((index(), index(), record()), 1..40);
    (keys, hashes, records).prop_map(|(keys, hashes, records)| {
        let records = records.into_iter();
        let sent = records.map(|(key, hash, record)| Sent {
            key: key.get(&keys).clone(),
            hash: *hash.get(&hashes),
            record,
        });
        sent.collect()
    })
}

fn hash() -> impl Strategy<Value = HashKey> {
    prop_oneof![0..100_u128, any::<u128>(), Just(u128::MAX)].prop_map(HashKey)
}

fn key() -> impl Strategy<Value = Bytes> {
    let text = prop_oneof!["[a-z]{1,8}", "\\PC{1,60}", "[a-z]{100,256}"];
    text.prop_map(Bytes::from)
}

pub(super) fn record() -> impl Strategy<Value = Record> {
    let payload = prop_oneof![vec(any::<u8>(), 0..300), vec(any::<u8>(), 16_000..17_000)];
    let headers = prop_oneof![Just(Vec::new()), vec((name(), option::of(value())), 1..5)];
    let payload = prop_oneof![9 => payload.prop_map(Some), 1 => Just(None)];
    (payload, headers, option::of(time())).prop_map(|(payload, headers, timestamp)| {
        let mut record = Record::default();
        record.payload = payload.map(Bytes::from);
        record.headers.extend(headers);
        record.timestamp = timestamp;
        record
    })
}

fn name() -> impl Strategy<Value = String> {
    let name = prop_oneof!["[a-z-]{1,20}", ".{1,200}"];
    name.prop_filter("names are not reserved", |name| !name.starts_with('\0'))
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let marked = (0..=9_u8, vec(any::<u8>(), 0..9)).prop_map(|(first, mut rest)| {
        rest.insert(0, first);
        rest
    });
    prop_oneof![
        ".{0,200}".prop_map(String::into_bytes),
        vec(any::<u8>(), 0..200),
        marked,
    ]
}

/// Generates times in whole milliseconds.
fn time() -> impl Strategy<Value = SystemTime> {
    (-4_000_000_000_000..4_000_000_000_000_i64).prop_map(|millis| {
        let distance = Duration::from_millis(millis.unsigned_abs());
        match millis >= 0 {
            true => UNIX_EPOCH + distance,
            false => UNIX_EPOCH - distance,
        }
    })
}
