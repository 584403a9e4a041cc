//! The messages of the format, as they are read and as they are written.
//!
//! Reading is prost's. Writing goes straight into the carrier's buffers, since its size must be
//! known before each record and a tree of messages for each would cost more than the bytes.
//!
//! All texts are read as bytes: a carrier of another writer with a text that is no UTF-8 is not lost
//! for it. What the format requires is read as optional, so that a missing one is noticed.

use bytes::Bytes;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Aggregate {
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
    /// Where its key is in [`Aggregate::keys`].
    #[prost(uint64, optional, tag = "1")]
    pub(super) key: Option<u64>,
    /// Where its hash key is in [`Aggregate::hash_keys`], if it has one of its own.
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

/// Writing: a field of the messages above by its number, all of which are below 16, so that number
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

    /// Begins a field of `length` bytes that the caller writes.
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
