//! Deaggregation of records.

use std::time::SystemTime;

use bytes::Bytes;
use millstream_core::Headers;
use prost::Message;

use super::frame::{self, MAGIC};
use super::message::{AggregatedRecord, Item};
use super::{keys, tags};
use crate::stream::HashKey;

/// What the data of a Kinesis record contains.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Deaggregated {
    /// A record that is not aggregated.
    Bare,
    /// The user records of an aggregate, in order. There may be none.
    UserRecords(Vec<UserRecord>),
    /// Data with the checksum of an aggregate that cannot be parsed, and the reason. It must be
    /// passed on unchanged: nothing of it is lost, and nothing is made up.
    Corrupt(String),
}

/// One record of an aggregate. Key and payload share the aggregate's memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UserRecord {
    /// The index in the aggregate, from 0. It is the same for every reader, whichever records are left out.
    pub(crate) sub: u64,
    /// The hash that decides its shard.
    pub(crate) hash: HashKey,
    pub(crate) key: Option<Bytes>,
    /// `None` for a tombstone.
    pub(crate) payload: Option<Bytes>,
    pub(crate) headers: Headers,
    /// The explicit timestamp, if the producer set one.
    pub(crate) timestamp: Option<SystemTime>,
}

/// Splits the data of a Kinesis record into its user records.
pub(crate) fn deaggregate(data: &Bytes) -> Deaggregated {
    match frame::message(data) {
        // The KCL treats an empty frame as a bare record, and positions must be the same.
        None | Some([]) => Deaggregated::Bare,
        Some(message) => {
            let message = data.slice(MAGIC.len()..MAGIC.len() + message.len());
            read(message).map_or_else(Deaggregated::Corrupt, Deaggregated::UserRecords)
        }
    }
}

fn read(message: Bytes) -> Result<Vec<UserRecord>, String> {
    let aggregate = AggregatedRecord::decode(message).map_err(|error| error.to_string())?;
    let table = Table::of(&aggregate);
    let records = aggregate.records.into_iter().zip(0..);
    records
        .map(|(item, sub)| table.resolve(item, sub))
        .collect()
}

/// The tables to which the records of an aggregate refer.
struct Table {
    keys: Vec<(Option<Bytes>, HashKey)>,
    /// `None` for a value that is not a number of 128 bits. It matters only if a record refers to it.
    hash_keys: Vec<Option<HashKey>>,
}

impl Table {
    fn of(aggregate: &AggregatedRecord) -> Self {
        let keys = aggregate.keys.iter();
        let keys = keys.map(|key| (keys::key_of(key.clone()), HashKey::of(key)));
        let hash_keys = aggregate.hash_keys.iter();
        let hash_keys = hash_keys.map(|text| std::str::from_utf8(text).ok()?.parse().ok());
        Self {
            keys: keys.collect(),
            hash_keys: hash_keys.collect(),
        }
    }

    fn resolve(&self, item: Item, sub: u64) -> Result<UserRecord, String> {
        let key = item.key.and_then(|index| find(&self.keys, index));
        let (key, hash) = key.ok_or_else(|| format!("record {sub} refers to no key"))?;
        let explicit = item.hash_key.map(|index| {
            let hash = find(&self.hash_keys, index).copied().flatten();
            hash.ok_or_else(|| format!("record {sub} refers to no explicit hash key"))
        });
        let data = item
            .data
            .ok_or_else(|| format!("record {sub} has no data"))?;
        let tags::ParsedTags {
            headers,
            timestamp,
            is_tombstone,
        } = tags::read(item.tags);
        // Bytes that another writer has stored along with the tag are not discarded.
        let payload = (!is_tombstone || !data.is_empty()).then_some(data);
        Ok(UserRecord {
            sub,
            hash: explicit.transpose()?.unwrap_or(*hash),
            key: key.clone(),
            payload,
            headers,
            timestamp,
        })
    }
}

fn find<T>(table: &[T], index: u64) -> Option<&T> {
    table.get(usize::try_from(index).ok()?)
}
