//! Filling a carrier.

use std::collections::HashMap;

use bytes::Bytes;
use foldhash::fast::RandomState;
use millstream::Record;

use super::frame::{FRAME, is_carrier, seal};
use super::message::write;
use super::tags;
use crate::stream::HashKey;

/// The partition key of a carrier of many, as the KPL has it: the explicit hash key finds the shard.
const PARTITION_KEY: &str = "a";

/// The numbers of the fields of the aggregate, and of those of a user record.
const KEYS: u8 = 1;
const RECORDS: u8 = 3;
const KEY: u8 = 1;
const DATA: u8 = 3;

/// A record as Kinesis stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) partition_key: Bytes,
    /// What finds the shard instead of the partition key's hash.
    pub(crate) explicit_hash_key: Option<HashKey>,
    pub(crate) data: Bytes,
}

impl Entry {
    /// Makes an entry of one record: its payload as it is where that is all there is, or else a
    /// carrier of one.
    pub(crate) fn of(key: &Bytes, record: &Record) -> Self {
        if is_bare(record) {
            return Self::alone(key.clone(), record.payload.clone());
        }
        let mut carrier = Carrier::new();
        carrier.push(key, record);
        carrier.seal(key)
    }

    fn alone(partition_key: Bytes, data: Bytes) -> Self {
        Self {
            partition_key,
            explicit_hash_key: None,
            data,
        }
    }

    /// The bytes that count against limits: partition key and data.
    pub(crate) fn size(&self) -> usize {
        self.partition_key.len() + self.data.len()
    }
}

/// A carrier that is being filled. All its records must be meant for one shard.
#[derive(Debug, Default)]
pub(crate) struct Carrier {
    /// The fields of keys and those of records. All keys come first, and more of them may come with
    /// each record.
    keys: Vec<u8>,
    records: Vec<u8>,
    indexes: HashMap<Bytes, usize, RandomState>,
    len: usize,
    first: Option<First>,
}

#[derive(Debug)]
struct First {
    key: Bytes,
    /// The payload, if it needs no carrier while it is alone.
    bare: Option<Bytes>,
}

impl Carrier {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The [size](Entry::size) of what [`finish`](Self::finish) makes after one record more.
    pub(crate) fn size_with(&self, key: &Bytes, record: &Record) -> usize {
        if self.is_empty() && is_bare(record) {
            return key.len() + record.payload.len();
        }
        let known = self.indexes.get(key);
        let new = known.map_or_else(|| write::bytes_len(key.len()), |_| 0);
        let index = known.copied().unwrap_or(self.indexes.len());
        let fields = self.keys.len() + new + self.records.len();
        let partition_key = match self.is_empty() {
            true => key.len(),
            false => PARTITION_KEY.len(),
        };
        partition_key + FRAME + fields + write::bytes_len(record_len(index, record))
    }

    /// Adds a record with its partition key; the key in the record is not looked at.
    pub(crate) fn push(&mut self, key: &Bytes, record: &Record) {
        if self.first.is_none() {
            let bare = is_bare(record).then(|| record.payload.clone());
            let key = key.clone();
            self.first = Some(First { key, bare });
        }
        let index = match self.indexes.get(key) {
            Some(index) => *index,
            None => {
                let index = self.indexes.len();
                self.indexes.insert(key.clone(), index);
                write::bytes(&mut self.keys, KEYS, key);
                index
            }
        };
        let buffer = &mut self.records;
        write::begin(buffer, RECORDS, record_len(index, record));
        write::number(buffer, KEY, index);
        write::bytes(buffer, DATA, &record.payload);
        tags::put(buffer, record);
        self.len += 1;
    }

    /// Closes it, or answers nothing if it is empty. A single record stays bare where it can, as
    /// with the KPL.
    pub(crate) fn finish(mut self) -> Option<Entry> {
        let First { key, bare } = self.first.take()?;
        Some(match bare {
            Some(payload) if self.len == 1 => Entry::alone(key, payload),
            _ => self.seal(&key),
        })
    }

    /// The KPL gives a carrier the hash of its first record, and so does this. A carrier of one goes
    /// under its record's own key, which all tools then show.
    fn seal(&self, first: &Bytes) -> Entry {
        let data = seal([&self.keys, &self.records]).into();
        if self.len == 1 {
            return Entry::alone(first.clone(), data);
        }
        Entry {
            partition_key: Bytes::from_static(PARTITION_KEY.as_bytes()),
            explicit_hash_key: Some(HashKey::of(first)),
            data,
        }
    }
}

/// Whether a record is all there without a carrier. A payload that is one itself is not: readers
/// would open it.
fn is_bare(record: &Record) -> bool {
    record.headers.is_empty() && record.timestamp.is_none() && !is_carrier(&record.payload)
}

fn record_len(index: usize, record: &Record) -> usize {
    write::number_len(index) + write::bytes_len(record.payload.len()) + tags::len(record)
}
