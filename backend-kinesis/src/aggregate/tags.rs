//! Headers and an explicit timestamp, as the tags of a user record.
//!
//! Each header is one tag, in order. A tag is text to every reader, and some fail on an aggregate with a
//! tag that is not UTF-8 (Python's, without its compiled part). So a value that is text is written
//! unchanged, and any other value as U+0000 followed by its base64. A null value is a tag without a value. A text that
//! begins with U+0000 to U+0008 is written as base64, too, which reserves U+0001 to U+0008 for future formats.
//!
//! The timestamp is a tag with a name that no header may have: U+0000 and `timestamp`. Its value is the
//! milliseconds since 1970, decimal. A record without a payload (a tombstone) has empty data, which
//! the format requires, and the tag U+0000 `tombstone` without a value. Other readers see an empty
//! payload.

use std::io::Write;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use millstream_core::driver::{from_millis, to_millis};
use millstream_core::{Headers, Record};

use super::message::{Tag, write};

/// The prefix of the names that only this format uses.
pub(super) const RESERVED: u8 = 0;
const TIMESTAMP: &[u8] = b"\0timestamp";
const TOMBSTONE: &[u8] = b"\0tombstone";

const BASE64: u8 = 0;
const LAST_MARKER: u8 = 8;

/// The field numbers of the tags in a user record, and of name and value in a tag.
const TAGS: u8 = 4;
const NAME: u8 = 1;
const VALUE: u8 = 2;

/// Returns the number of bytes that [`put`] writes.
pub(super) fn len(record: &Record) -> usize {
    let headers = record.headers.iter();
    let headers: usize = headers
        .map(|(name, value)| write::bytes_len(tag_len(name.len(), value.map(|v| value_len(v)))))
        .sum();
    let timestamp = record.timestamp.map_or(0, |at| {
        write::bytes_len(tag_len(TIMESTAMP.len(), Some(decimal_len(to_millis(at)))))
    });
    let tombstone = match record.is_tombstone() {
        true => write::bytes_len(tag_len(TOMBSTONE.len(), None)),
        false => 0,
    };
    headers + timestamp + tombstone
}

/// Writes the tags of a record.
pub(super) fn put(buffer: &mut Vec<u8>, record: &Record) {
    for (name, value) in record.headers.iter() {
        begin(buffer, name.as_bytes(), value.map(|value| value_len(value)));
        if let Some(value) = value {
            put_value(buffer, value);
        }
    }
    if let Some(at) = record.timestamp {
        let millis = to_millis(at);
        begin(buffer, TIMESTAMP, Some(decimal_len(millis)));
        write!(buffer, "{millis}").expect("a Vec takes all that is written");
    }
    if record.is_tombstone() {
        begin(buffer, TOMBSTONE, None);
    }
}

/// The tags of a user record.
#[derive(Debug)]
pub(super) struct ParsedTags {
    pub(super) headers: Headers,
    /// The explicit timestamp, if the producer set one.
    pub(super) timestamp: Option<SystemTime>,
    pub(super) is_tombstone: bool,
}

/// Reads the tags of a user record.
///
/// A value with an unknown marker, or with invalid base64 after this format's marker, is another writer's own and stays
/// unchanged.
pub(super) fn read(tags: Vec<Tag>) -> ParsedTags {
    let (mut timestamp, mut is_tombstone) = (None, false);
    let mut headers = Headers::new();
    headers.extend(tags.into_iter().filter_map(|tag| {
        let name = tag.key.unwrap_or_default();
        if name == TIMESTAMP {
            timestamp = timestamp.or_else(|| read_timestamp(&tag.value.unwrap_or_default()));
            return None;
        }
        if name == TOMBSTONE {
            is_tombstone = true;
            return None;
        }
        Some((
            String::from_utf8_lossy(&name).into_owned(),
            tag.value.map(read_value),
        ))
    }));
    ParsedTags {
        headers,
        timestamp,
        is_tombstone,
    }
}

fn tag_len(name: usize, value: Option<usize>) -> usize {
    write::bytes_len(name) + value.map_or(0, write::bytes_len)
}

/// Writes a tag except for the bytes of its value, of which there are `value`. `None` is a tag without
/// a value.
fn begin(buffer: &mut Vec<u8>, name: &[u8], value: Option<usize>) {
    write::begin(buffer, TAGS, tag_len(name.len(), value));
    write::bytes(buffer, NAME, name);
    if let Some(value) = value {
        write::begin(buffer, VALUE, value);
    }
}

fn is_plain(value: &[u8]) -> bool {
    let marked = matches!(value.first(), Some(..=LAST_MARKER));
    !marked && std::str::from_utf8(value).is_ok()
}

fn value_len(value: &[u8]) -> usize {
    match is_plain(value) {
        true => value.len(),
        false => 1 + (value.len() * 4).div_ceil(3),
    }
}

fn put_value(buffer: &mut Vec<u8>, value: &[u8]) {
    if is_plain(value) {
        buffer.extend_from_slice(value);
        return;
    }
    buffer.push(BASE64);
    let begin = buffer.len();
    buffer.resize(begin + (value.len() * 4).div_ceil(3), 0);
    STANDARD_NO_PAD
        .encode_slice(value, &mut buffer[begin..])
        .expect("4 characters for each 3 bytes");
}

fn read_value(value: Bytes) -> Bytes {
    match value.split_first() {
        Some((&BASE64, text)) => STANDARD_NO_PAD.decode(text).map_or(value, Bytes::from),
        _ => value,
    }
}

fn read_timestamp(value: &[u8]) -> Option<SystemTime> {
    let millis: i64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    from_millis(millis)
}

fn decimal_len(number: i64) -> usize {
    let digits = number.unsigned_abs().checked_ilog10().unwrap_or(0) + 1;
    digits as usize + usize::from(number < 0)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn written(record: &Record) -> Vec<Tag> {
        let mut buffer = Vec::new();
        put(&mut buffer, record);
        assert_eq!(buffer.len(), len(record));
        let item = <super::super::message::Item as prost::Message>::decode(&buffer[..]);
        item.unwrap().tags
    }

    #[test]
    fn values_are_text_to_every_reader() {
        for (value, text) in [
            (&b""[..], ""),
            (b"text", "text"),
            ("\u{9}ä€𝄞".as_bytes(), "\u{9}ä€𝄞"),
            (b"\0", "\0AA"),
            (b"\x08text", "\0CHRleHQ"),
            (b"\xFF\x00", "\0/wA"),
            (b"\xED\xA0\x80", "\x007aCA"),
        ] {
            let tags = written(&Record::new("").header("name", value));
            assert_eq!(tags[0].value.as_deref(), Some(text.as_bytes()));
            assert_eq!(read(tags).headers.get("name").map(|v| &**v), Some(value));
        }
    }

    #[test]
    fn null_is_a_tag_without_a_value() {
        let mut record = Record::new("").header("empty", "");
        record.headers.push_null("null");
        let tags = written(&record);
        let values: Vec<_> = tags.iter().map(|tag| tag.value.as_deref()).collect();
        assert_eq!(values, [Some(&b""[..]), None]);
        assert_eq!(read(tags).headers, record.headers);
    }

    #[test]
    fn a_tombstone_is_a_tag_and_no_header() {
        let tags = written(&Record::tombstone("key").header("a", "b"));
        assert_eq!(tags[1].key.as_deref(), Some(TOMBSTONE));
        assert_eq!(tags[1].value, None);
        let read = read(tags);
        assert!(read.is_tombstone);
        assert_eq!(read.headers.len(), 1);
    }

    #[test]
    fn values_of_other_writers_stay_as_they_are() {
        for value in [&b"\0"[..], b"\0no base64", b"\0AA==", b"\0AB", b"\x01text"] {
            let tag = Tag {
                key: Some(Bytes::from_static(b"name")),
                value: Some(Bytes::from_static(value)),
            };
            let headers = read(vec![tag]).headers;
            let kept = if value == b"\0" { &b""[..] } else { value };
            assert_eq!(headers.get("name").map(|v| &**v), Some(kept));
        }
    }

    #[test]
    fn a_timestamp_is_no_header() {
        for (millis, text) in [(0, "0"), (-1, "-1"), (1_700_000_000_123, "1700000000123")] {
            let distance = Duration::from_millis(i64::unsigned_abs(millis));
            let at = match millis >= 0 {
                true => UNIX_EPOCH + distance,
                false => UNIX_EPOCH - distance,
            };
            let tags = written(&Record::new("").header("a", "b").timestamp(at));
            assert_eq!(tags[1].key.as_deref(), Some(TIMESTAMP));
            assert_eq!(tags[1].value.as_deref(), Some(text.as_bytes()));
            let ParsedTags {
                headers, timestamp, ..
            } = read(tags);
            assert_eq!(headers.len(), 1);
            assert_eq!(timestamp, Some(at));
        }
    }

    #[test]
    fn the_first_timestamp_that_can_be_read_counts() {
        let tag = |value: &'static str| Tag {
            key: Some(Bytes::from_static(TIMESTAMP)),
            value: Some(Bytes::from_static(value.as_bytes())),
        };
        let tags = ["soon", "", "1", "2"].map(tag);
        let ParsedTags {
            headers, timestamp, ..
        } = read(tags.into());
        assert!(headers.is_empty());
        assert_eq!(timestamp, Some(UNIX_EPOCH + Duration::from_millis(1)));
    }

    #[test]
    fn timestamps_are_cut_to_milliseconds_downwards() {
        let stored = |at| read(written(&Record::new("").timestamp(at))).timestamp;
        let micros = Duration::from_micros;
        let late = UNIX_EPOCH + micros(1_999);
        assert_eq!(stored(late), Some(UNIX_EPOCH + micros(1_000)));
        let early = UNIX_EPOCH - micros(1);
        assert_eq!(stored(early), Some(UNIX_EPOCH - micros(1_000)));
    }
}
