//! Records as bytes, for brokers whose entries are bytes.
//!
//! A record is the version of the format (1 byte), then its key, its payload, the number of its headers,
//! each with name and value, and its timestamp. Text and bytes are a length (4 bytes, little endian) and
//! the bytes; the length `u32::MAX` stands for null. The number of headers has 4 bytes. The timestamp is
//! like bytes: 8 of them (whole milliseconds since 1970, signed, little endian), or null.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{from_millis, to_millis};
use crate::{Error, ErrorKind, Headers, Record, Result};

const VERSION: u8 = 1;
const NULL: u32 = u32::MAX;

/// Encodes a record: key, payload, headers and timestamp, with the difference between null and empty.
///
/// Timestamps are rounded down to whole milliseconds. Every field of [`Record`] is encoded: one that is
/// added later changes the version of the format, and is not silently dropped by drivers that use this.
///
/// # Panics
/// If one of its parts has 4 GiB or more. The limits of a stream are far below.
pub fn encode_record(record: &Record) -> Bytes {
    // Without `..`, so that a new field is an error here.
    let Record {
        key,
        payload,
        headers,
        timestamp,
    } = record;
    let millis = timestamp.map(|at| to_millis(at).to_le_bytes());
    let lengths = 1 + 4 * 4 + 8 + 8 * headers.len();
    let mut bytes = BytesMut::with_capacity(record.size() + lengths);
    bytes.put_u8(VERSION);
    put(&mut bytes, key.as_deref());
    put(&mut bytes, payload.as_deref());
    bytes.put_u32_le(length(headers.len()));
    for (name, value) in headers {
        put(&mut bytes, Some(name.as_bytes()));
        put(&mut bytes, value.map(|value| &**value));
    }
    put(&mut bytes, millis.as_ref().map(|millis| &millis[..]));
    bytes.freeze()
}

/// Decodes the bytes of [`encode_record`]. Key, payload and values share the buffer.
///
/// # Errors
/// `Corrupt` for anything else, including a newer version of the format.
pub fn decode_record(mut bytes: Bytes) -> Result<Record> {
    read(&mut bytes).ok_or_else(|| {
        let message = "the bytes are not a record of version 1 of the format";
        Error::new(ErrorKind::Corrupt, "decode record", message)
    })
}

fn length(bytes: usize) -> u32 {
    let length = u32::try_from(bytes).ok().filter(|length| *length != NULL);
    length.expect("a part of a record has less than 4 GiB")
}

fn put(to: &mut BytesMut, bytes: Option<&[u8]>) {
    let Some(bytes) = bytes else {
        return to.put_u32_le(NULL);
    };
    to.put_u32_le(length(bytes.len()));
    to.put_slice(bytes);
}

/// Returns `None` for bytes that are not a record.
fn read(bytes: &mut Bytes) -> Option<Record> {
    if bytes.try_get_u8().ok()? != VERSION {
        return None;
    }
    let mut record = Record {
        key: take(bytes)?,
        payload: take(bytes)?,
        headers: Headers::new(),
        timestamp: None,
    };
    for _ in 0..bytes.try_get_u32_le().ok()? {
        let name = String::from_utf8(take(bytes)??.into()).ok()?;
        match take(bytes)? {
            Some(value) => record.headers.push(name, value),
            None => record.headers.push_null(name),
        }
    }
    if let Some(millis) = take(bytes)? {
        let millis = i64::from_le_bytes(millis[..].try_into().ok()?);
        record.timestamp = Some(from_millis(millis)?);
    }
    bytes.is_empty().then_some(record)
}

/// Reads a value written by [`put`]. The inner `None` stands for null.
fn take(bytes: &mut Bytes) -> Option<Option<Bytes>> {
    let length = bytes.try_get_u32_le().ok()?;
    if length == NULL {
        return Some(None);
    }
    let length = usize::try_from(length).ok()?;
    (length <= bytes.len()).then(|| Some(bytes.split_to(length)))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Option<Bytes>> {
        let some = prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        prop::option::of(some)
    }

    prop_compose! {
        fn any_record()(
            key in bytes(),
            payload in bytes(),
            headers in prop::collection::vec((".{0,8}", bytes()), 0..4),
            millis in prop::option::of(any::<i32>()),
        ) -> Record {
            let mut record = Record { key, payload, ..Record::default() };
            record.headers.extend(headers);
            record.timestamp = millis.and_then(|millis| from_millis(i64::from(millis)));
            record
        }
    }

    proptest! {
        #[test]
        fn a_record_is_decoded_as_it_was(record in any_record()) {
            prop_assert_eq!(decode_record(encode_record(&record)).unwrap(), record);
        }

        #[test]
        fn a_record_that_is_cut_off_or_longer_is_corrupt(record in any_record(), at in any::<prop::sample::Index>()) {
            let encoded = encode_record(&record);
            let cut = encoded.slice(..at.index(encoded.len()));
            prop_assert_eq!(decode_record(cut).unwrap_err().kind(), ErrorKind::Corrupt);
            let longer = Bytes::from([&encoded[..], &[0]].concat());
            prop_assert_eq!(decode_record(longer).unwrap_err().kind(), ErrorKind::Corrupt);
        }

        #[test]
        fn other_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode_record(bytes.clone().into());
            let versioned = [&[VERSION], &bytes[..]].concat();
            let _ = decode_record(versioned.into());
        }
    }

    #[test]
    fn timestamps_are_whole_milliseconds_also_before_1970() {
        let stored = |at| decode_record(encode_record(&Record::new("").timestamp(at))).unwrap();
        let micros = Duration::from_micros;
        for (at, millis) in [
            (UNIX_EPOCH + micros(1_999), 1),
            (UNIX_EPOCH - micros(1), -1),
        ] {
            assert_eq!(stored(at).timestamp, from_millis(millis));
        }
    }

    #[test]
    fn another_version_is_corrupt() {
        let mut encoded = encode_record(&Record::new("")).to_vec();
        encoded[0] = 2;
        let error = decode_record(encoded.into()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
