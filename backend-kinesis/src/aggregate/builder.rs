//! Builds an aggregate.

use bytes::Bytes;
use millstream_core::Record;

use super::entry::{Entry, bare};
use super::frame::{FRAME, wrap};
use super::key_table::KeyTable;
use super::message::write;
use super::{Address, tags};
use crate::stream::HashKey;

/// The partition key of an aggregate of several records, as the KPL has it: the explicit hash key selects the shard.
pub(crate) const PARTITION_KEY: &str = "a";

/// The field numbers of the aggregate, and of a user record.
const KEYS: u8 = 1;
const HASH_KEYS: u8 = 2;
const RECORDS: u8 = 3;
const KEY: u8 = 1;
const HASH_KEY: u8 = 2;
const DATA: u8 = 3;

/// An aggregate that is being built. All its records must be for one shard.
#[derive(Debug)]
pub(crate) struct AggregateBuilder {
    /// Partition keys. The tables come before the records, and may grow with each record.
    keys: KeyTable,
    /// Explicit hash keys, as decimal numbers.
    hash_keys: KeyTable,
    records: Vec<u8>,
    len: usize,
    first: Option<First>,
}

#[derive(Debug)]
struct First {
    partition_key: Bytes,
    explicit_hash_key: Option<HashKey>,
    /// The payload, if it needs no aggregate while it is the only one.
    bare: Option<Bytes>,
}

impl AggregateBuilder {
    pub(crate) fn new() -> Self {
        Self {
            keys: KeyTable::new(KEYS),
            hash_keys: KeyTable::new(HASH_KEYS),
            records: Vec::new(),
            len: 0,
            first: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the [size](Entry::size) of the result of [`finish`](Self::finish) after one more record.
    pub(crate) fn size_with<'a>(&self, address: impl Into<Address<'a>>, record: &Record) -> usize {
        let address = address.into();
        let key = address.partition_key;
        if let Some(payload) = bare(record).filter(|_| self.is_empty()) {
            return key.len() + payload.len();
        }
        let (key_at, keys) = self.keys.place(key);
        let hash = address.explicit_hash_key.map(decimal);
        let hash = hash.map(|hash| self.hash_keys.place(&hash));
        let hash_keys = hash.map_or(self.hash_keys.written().len(), |(_, bytes)| bytes);
        let places = (key_at, hash.map(|(at, _)| at));
        let fields = keys + hash_keys + self.records.len();
        let partition_key = match self.is_empty() {
            true => key.len(),
            false => PARTITION_KEY.len(),
        };
        partition_key + FRAME + fields + write::bytes_len(record_len(places, record))
    }

    /// Adds a record with its address; the key in the record is ignored.
    pub(crate) fn push<'a>(&mut self, address: impl Into<Address<'a>>, record: &Record) {
        let address = address.into();
        self.first.get_or_insert_with(|| First {
            partition_key: address.partition_key.clone(),
            explicit_hash_key: address.explicit_hash_key,
            bare: bare(record).cloned(),
        });
        let key = self.keys.add(address.partition_key);
        let hash = address.explicit_hash_key.map(decimal);
        let hash = hash.map(|hash| self.hash_keys.add(&hash));
        let buffer = &mut self.records;
        write::begin(buffer, RECORDS, record_len((key, hash), record));
        write::number(buffer, KEY, key);
        if let Some(hash) = hash {
            write::number(buffer, HASH_KEY, hash);
        }
        write::bytes(buffer, DATA, record.payload.as_deref().unwrap_or_default());
        tags::put(buffer, record);
        self.len += 1;
    }

    /// Returns the entry of the records, or `None` if there are none. A single record stays bare if possible, as
    /// in the KPL.
    pub(crate) fn finish(mut self) -> Option<Entry> {
        let first = self.first.take()?;
        let address = Address {
            partition_key: &first.partition_key,
            explicit_hash_key: first.explicit_hash_key,
        };
        Some(match first.bare {
            Some(payload) if self.len == 1 => Entry::single(address, payload),
            _ => self.build_aggregate(address),
        })
    }

    /// The KPL gives an aggregate the hash of its first record, and so does this. An aggregate of one record has
    /// that record's own key, which all tools then show.
    pub(super) fn build_aggregate(&self, first: Address<'_>) -> Entry {
        let tables = [&self.keys, &self.hash_keys].map(KeyTable::written);
        let data = wrap([tables[0], tables[1], &self.records]).into();
        if self.len == 1 {
            return Entry::single(first, data);
        }
        let hash = first.explicit_hash_key;
        let hash = hash.unwrap_or_else(|| HashKey::of(first.partition_key));
        Entry {
            partition_key: Bytes::from_static(PARTITION_KEY.as_bytes()),
            explicit_hash_key: Some(hash),
            data,
        }
    }
}

fn decimal(hash: HashKey) -> Bytes {
    hash.0.to_string().into()
}

/// Returns the length of a record that refers to a key, and perhaps to an explicit hash key.
fn record_len((key, hash): (usize, Option<usize>), record: &Record) -> usize {
    write::number_len(key)
        + hash.map_or(0, write::number_len)
        + write::bytes_len(record.payload.as_ref().map_or(0, Bytes::len))
        + tags::len(record)
}
