//! The entry of a request: one record, or an aggregate of several.

use bytes::Bytes;
use millstream_core::Record;

use super::frame::is_aggregate;
use super::{Address, AggregateBuilder};
use crate::stream::HashKey;

/// A record as Kinesis stores it: an entry of PutRecords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) partition_key: Bytes,
    /// Selects the shard in place of the partition key's hash.
    pub(crate) explicit_hash_key: Option<HashKey>,
    pub(crate) data: Bytes,
}

impl Entry {
    /// Creates an entry of one record: its bare payload if that is sufficient, or otherwise a
    /// aggregate of one.
    pub(crate) fn of<'a>(address: impl Into<Address<'a>>, record: &Record) -> Self {
        let address = address.into();
        if let Some(payload) = bare(record) {
            return Self::single(address, payload.clone());
        }
        let mut aggregate = AggregateBuilder::new();
        aggregate.push(address, record);
        aggregate.build_aggregate(address)
    }

    pub(super) fn single(address: Address<'_>, data: Bytes) -> Self {
        Self {
            partition_key: address.partition_key.clone(),
            explicit_hash_key: address.explicit_hash_key,
            data,
        }
    }

    /// Returns the bytes that count against limits: partition key and data.
    pub(crate) fn size(&self) -> usize {
        self.partition_key.len() + self.data.len()
    }
}

/// Returns the payload of a record that needs no aggregate. A payload that is an aggregate itself needs
/// one, because readers would deaggregate it. So does a tombstone, which is a tag.
pub(super) fn bare(record: &Record) -> Option<&Bytes> {
    let payload = record.payload.as_ref()?;
    let is_bare = record.headers.is_empty() && record.timestamp.is_none() && !is_aggregate(payload);
    is_bare.then_some(payload)
}
