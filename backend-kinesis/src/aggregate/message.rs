//! The messages of the format, for reading and for writing.
//!
//! prost reads them. They are written directly into the aggregate's buffers, because the size must be
//! known before each record, and a message tree for each record would cost more than the bytes.
//!
//! All texts are read as bytes, so an aggregate of another writer is not lost because of a text that is not UTF-8.
//! Required fields are read as optional, so that a missing one is noticed.

use bytes::Bytes;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct AggregatedRecord {
    /// Partition keys, each once.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(super) keys: Vec<Bytes>,
    /// Decimal numbers, each once.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(super) hash_keys: Vec<Bytes>,
    #[prost(message, repeated, tag = "3")]
    pub(super) records: Vec<Item>,
}

/// A user record.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Item {
    /// The index of its key in [`AggregatedRecord::keys`].
    #[prost(uint64, optional, tag = "1")]
    pub(super) key: Option<u64>,
    /// The index of its hash key in [`AggregatedRecord::hash_keys`], if it has an explicit one.
    #[prost(uint64, optional, tag = "2")]
    pub(super) hash_key: Option<u64>,
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub(super) data: Option<Bytes>,
    #[prost(message, repeated, tag = "4")]
    pub(super) tags: Vec<Tag>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Tag {
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub(super) key: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(super) value: Option<Bytes>,
}

/// Writes fields of the messages above by their numbers. All are below 16, so number
/// and type share one byte.
pub(super) mod write {
    use prost::length_delimiter_len;

    const VARINT: u8 = 0;
    const DELIMITED: u8 = 2;

    pub(in super::super) fn number_len(number: usize) -> usize {
        1 + length_delimiter_len(number)
    }

    pub(in super::super) fn number(buffer: &mut Vec<u8>, field: u8, number: usize) {
        buffer.push(field << 3 | VARINT);
        varint(buffer, number);
    }

    pub(in super::super) fn bytes_len(length: usize) -> usize {
        1 + length_delimiter_len(length) + length
    }

    pub(in super::super) fn bytes(buffer: &mut Vec<u8>, field: u8, bytes: &[u8]) {
        begin(buffer, field, bytes.len());
        buffer.extend_from_slice(bytes);
    }

    /// Begins a field of `length` bytes, which the caller writes.
    pub(in super::super) fn begin(buffer: &mut Vec<u8>, field: u8, length: usize) {
        buffer.push(field << 3 | DELIMITED);
        varint(buffer, length);
    }

    fn varint(buffer: &mut Vec<u8>, mut number: usize) {
        while number >= 0x80 {
            buffer.push(number as u8 | 0x80);
            number >>= 7;
        }
        buffer.push(number as u8);
    }
}
