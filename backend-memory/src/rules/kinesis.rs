//! The limits of the Kinesis backend with its default settings: bare records, and envelopes for
//! records with headers or a timestamp.

use std::time::SystemTime;

use bytes::Bytes;
use millstream_core::Record;
use millstream_core::driver::to_millis;

use crate::error::BrokerError;

pub(super) const RECORD_BYTES: usize = 1 << 20;
pub(super) const KEY_CHARS: usize = 256;

/// The largest key in bytes: characters of 4 bytes count twice.
pub(super) const KEY_BYTES: usize = KEY_CHARS * 3;
pub(super) const STREAM_NAME_BYTES: usize = 128;

/// The partition keys of records without a key start with this.
const KEYLESS: &[u8] = b"millstream:-:";
/// The longest of them has three more bytes.
const KEYLESS_BYTES: usize = KEYLESS.len() + 3;
/// The frame of an envelope: a magic number and a checksum.
const FRAME_BYTES: usize = 20;
const TIMESTAMP_NAME: &str = "\0timestamp";
const TOMBSTONE_NAME: &str = "\0tombstone";

pub(super) fn check(record: &Record) -> Result<(), BrokerError> {
    let refuse = |reason: &'static str| Err(BrokerError::NotAccepted(reason.into()));
    if let Some(key) = &record.key {
        if key.is_empty() {
            return refuse("the key is empty, use at least 1 byte or no key");
        }
        let Ok(text) = std::str::from_utf8(key) else {
            return refuse("the key is not UTF-8, this stream accepts text keys only");
        };
        if key.len() > KEY_CHARS && text.encode_utf16().count() > KEY_CHARS {
            return refuse("the key has more than 256 characters");
        }
        if key.starts_with(KEYLESS) {
            return refuse("keys that start with millstream:-: are reserved");
        }
    }
    if record
        .headers
        .iter()
        .any(|(name, _)| name.starts_with('\0'))
    {
        return refuse("header names that start with U+0000 are reserved");
    }
    Ok(())
}

/// Returns the size of a record as it is stored, with its partition key. A record with headers or a
/// timestamp, and a tombstone, is stored in an envelope: an aggregate of the Kinesis Producer Library
/// with one record.
pub(super) fn size(record: &Record) -> usize {
    let key = record.key.as_ref().map_or(KEYLESS_BYTES, Bytes::len);
    let payload = record.payload.as_ref().map_or(0, Bytes::len);
    if record.headers.is_empty() && record.timestamp.is_none() && !record.is_tombstone() {
        return key + payload;
    }
    let headers: usize = record
        .headers
        .iter()
        .map(|(name, value)| tag_len(name.len(), value.map(|value| value_len(value))))
        .sum();
    let timestamp = record
        .timestamp
        .map_or(0, |at| tag_len(TIMESTAMP_NAME.len(), Some(millis_len(at))));
    let tombstone = match record.is_tombstone() {
        true => tag_len(TOMBSTONE_NAME.len(), None),
        false => 0,
    };
    let key_index = 2;
    let item = key_index + field_len(payload) + headers + timestamp + tombstone;
    key + FRAME_BYTES + field_len(key) + field_len(item)
}

fn tag_len(name: usize, value: Option<usize>) -> usize {
    field_len(field_len(name) + value.map_or(0, field_len))
}

/// Returns the stored length of a value: text is stored unchanged, anything else as a marker and base64.
fn value_len(value: &[u8]) -> usize {
    const LAST_MARKER: u8 = 8;
    let is_marked = value.first().is_some_and(|first| *first <= LAST_MARKER);
    match std::str::from_utf8(value) {
        Ok(_) if !is_marked => value.len(),
        _ => 1 + (value.len() * 4).div_ceil(3),
    }
}

/// Returns the length of the decimal milliseconds since 1970.
fn millis_len(at: SystemTime) -> usize {
    to_millis(at).to_string().len()
}

/// Returns the length of a protobuf field of `length` bytes.
fn field_len(length: usize) -> usize {
    let bits = usize::BITS - (length | 1).leading_zeros();
    1 + bits.div_ceil(7) as usize + length
}
