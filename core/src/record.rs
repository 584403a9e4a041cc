use std::time::SystemTime;

use bytes::Bytes;

use crate::Headers;

/// What a producer sends: a payload, and optionally a key, headers and a timestamp.
///
/// ```
/// use millstream_core::Record;
///
/// let record = Record::new("{\"speed\":41}").key("car-123").header("traceparent", "00-4bf9-00f0-01");
/// assert_eq!(record.key.as_deref(), Some(&b"car-123"[..]));
/// ```
///
/// Records with one key are stored in the order in which they are sent, in one partition. Records
/// without a key are spread over the partitions and have no order among themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Decides the partition, and is the unit of order (Kafka: message key; Kinesis: partition
    /// key).
    pub key: Option<Bytes>,
    /// The bytes to carry. May be empty, and is never missing: Kafka's null payload, which deletes a
    /// key from a compacted topic, cannot be sent.
    pub payload: Bytes,
    /// Named values beside the payload, in order; a name may be repeated.
    pub headers: Headers,
    /// When it happened. Unset: the broker's clock at the time of storing.
    pub timestamp: Option<SystemTime>,
}

impl Record {
    /// Makes a record of `payload` without key, headers or timestamp.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            payload: payload.into(),
            ..Self::default()
        }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
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

    /// The bytes that count against limits and bounds: key, payload, header names and values.
    pub fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.payload.len() + self.headers.size()
    }
}
