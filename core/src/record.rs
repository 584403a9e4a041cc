use std::borrow::Cow;
use std::time::SystemTime;

use bytes::Bytes;

use crate::Headers;

/// A record to send: a payload, and optionally a key, headers and a timestamp.
///
/// ```
/// use millstream_core::Record;
///
/// let record = Record::new("{\"speed\":41}").key("car-123").header("traceparent", "00-4bf9-00f0-01");
/// assert_eq!(record.key.as_deref(), Some(&b"car-123"[..]));
/// ```
///
/// Records with the same key are stored in one partition, in the order in which they are sent.
/// Records without a key are spread over the partitions and have no order among themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The key, which selects the partition and is the unit of order (Kafka: message key; Kinesis:
    /// partition key).
    pub key: Option<Bytes>,
    /// The payload, which may be empty. `None` is a [tombstone](Self::tombstone).
    pub payload: Option<Bytes>,
    /// The headers, in order; a name may be repeated.
    pub headers: Headers,
    /// The time of the event. `None` stands for the time at which the broker stores the record.
    pub timestamp: Option<SystemTime>,
}

impl Record {
    /// Creates a record with a payload and without key, headers or timestamp.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            key: None,
            payload: Some(payload.into()),
            headers: Headers::new(),
            timestamp: None,
        }
    }

    /// Creates a record of `key` without a payload, which states that the key is deleted.
    ///
    /// A missing payload is not an empty one. Kafka stores it as null, and compaction removes the
    /// key some time later. Memory stores it as such. On Kinesis it is stored in the envelope that
    /// also holds headers; where `producer.headers = "refuse"` excludes envelopes, `send` returns
    /// `Invalid`.
    ///
    /// ```
    /// # use millstream_core::Record;
    /// let record = Record::tombstone("car-123");
    /// assert!(record.is_tombstone());
    /// assert_ne!(record, Record::new("").key("car-123"));
    /// ```
    pub fn tombstone(key: impl IntoKey) -> Self {
        Self {
            payload: None,
            ..Self::default()
        }
        .key(key)
    }

    /// Returns whether the payload is missing.
    pub fn is_tombstone(&self) -> bool {
        self.payload.is_none()
    }

    /// Sets the key. Takes text and bytes, owned or borrowed; see [`IntoKey`].
    #[must_use]
    pub fn key(mut self, key: impl IntoKey) -> Self {
        self.key = Some(key.into_key());
        self
    }

    /// Appends a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// Sets the timestamp. Backends keep whole milliseconds.
    #[must_use]
    pub fn timestamp(mut self, at: SystemTime) -> Self {
        self.timestamp = Some(at);
        self
    }

    /// Returns the number of bytes that count against limits and bounds: key, payload, header names
    /// and values.
    pub fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len)
            + self.payload.as_ref().map_or(0, Bytes::len)
            + self.headers.size()
    }
}

/// A value that can be the key of a record: text, bytes, or an application's own type.
///
/// Borrowed data is copied. `Bytes`, `String` and `Vec<u8>` are moved; for a key that is used again
/// and again, clone a `Bytes`.
pub trait IntoKey {
    /// Converts it into the bytes of the key.
    fn into_key(self) -> Bytes;
}

macro_rules! moved {
    ($($owned:ty),+) => {$(
        impl IntoKey for $owned {
            fn into_key(self) -> Bytes {
                self.into()
            }
        }
    )+};
}

macro_rules! copied {
    ($($borrowed:ty),+) => {$(
        impl IntoKey for &$borrowed {
            fn into_key(self) -> Bytes {
                Bytes::copy_from_slice(self.as_ref())
            }
        }
    )+};
}

moved!(Bytes, String, Vec<u8>, Box<[u8]>);
copied!(str, String, [u8], Vec<u8>);

impl IntoKey for &Bytes {
    fn into_key(self) -> Bytes {
        self.clone()
    }
}

impl<const N: usize> IntoKey for [u8; N] {
    fn into_key(self) -> Bytes {
        (&self).into_key()
    }
}

impl<const N: usize> IntoKey for &[u8; N] {
    fn into_key(self) -> Bytes {
        Bytes::copy_from_slice(self)
    }
}

impl IntoKey for Cow<'_, str> {
    fn into_key(self) -> Bytes {
        self.into_owned().into()
    }
}

/// A record with an empty payload.
impl Default for Record {
    fn default() -> Self {
        Self::new(Bytes::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_as_they_are_at_hand() {
        let id = String::from("car-123");
        let record = Record::new("x");
        for keyed in [
            record.clone().key(&id),
            record.clone().key(id.as_str()),
            record.clone().key(id.as_bytes().to_vec()),
            record.clone().key(Bytes::from(id.clone())),
            record.clone().key(b"car-123"),
        ] {
            assert_eq!(keyed.key.as_deref(), Some(id.as_bytes()));
        }
    }

    #[test]
    fn owned_keys_are_not_copied() {
        let key = Bytes::from(vec![7; 10]);
        assert_eq!(
            Record::new("x").key(&key).key.unwrap().as_ptr(),
            key.as_ptr()
        );
        assert_eq!(
            Record::new("x").key(key.clone()).key.unwrap().as_ptr(),
            key.as_ptr()
        );
    }

    #[test]
    fn a_tombstone_has_no_bytes() {
        let record = Record::tombstone("key").header("a", "1");
        assert_eq!((record.size(), record.payload), (5, None));
        assert!(!Record::new("").is_tombstone());
        assert!(!Record::default().is_tombstone());
    }
}
