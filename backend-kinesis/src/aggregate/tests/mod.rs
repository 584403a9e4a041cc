//! Writing and reading, against each other and against data of other writers.

mod any;
mod broken;
mod recorded;
mod round_trip;

use bytes::Bytes;
use millstream_core::Record;

use super::message::{AggregatedRecord, Item};
use super::*;

/// Returns an aggregate of `records`.
fn aggregate(records: &[(&'static str, Record)]) -> AggregateBuilder {
    let mut aggregate = AggregateBuilder::new();
    for (key, record) in records {
        aggregate.push(&Bytes::from_static(key.as_bytes()), record);
    }
    aggregate
}

/// Returns an aggregate as another writer may make it.
fn foreign(aggregate: &AggregatedRecord) -> Bytes {
    let message = prost::Message::encode_to_vec(aggregate);
    frame::wrap([&message]).into()
}

fn item(key: u64, data: &'static [u8]) -> Item {
    Item {
        key: Some(key),
        data: Some(Bytes::from_static(data)),
        ..Item::default()
    }
}

#[track_caller]
fn opened(data: &Bytes) -> Vec<UserRecord> {
    match deaggregate(data) {
        Deaggregated::UserRecords(records) => records,
        other => panic!("{other:?}"),
    }
}

fn hex(text: &str) -> Bytes {
    let digits = text.as_bytes().chunks(2);
    let byte = |two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}
