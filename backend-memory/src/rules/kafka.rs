//! The limits of the Kafka backend on a topic with the default `max.message.bytes`.

use std::time::{Duration, UNIX_EPOCH};

use millstream_core::Record;

use crate::error::BrokerError;

/// librdkafka's default `message.max.bytes`, less the largest encoding of a record's own lengths.
pub(super) const RECORD_BYTES: usize = 1_000_000 - 36;

pub(super) fn check(record: &Record) -> Result<(), BrokerError> {
    if record.headers.iter().any(|(name, _)| name.contains('\0')) {
        // librdkafka passes names to readers as C strings.
        let reason = "a header name has a NUL byte, at which readers would cut it off";
        return Err(BrokerError::NotAccepted(reason.into()));
    }
    // librdkafka treats 0 as "now", and brokers reject timestamps before 1970.
    let earliest = UNIX_EPOCH + Duration::from_millis(1);
    if record.timestamp.is_some_and(|at| at < earliest) {
        let reason = "the timestamp is before 1970-01-01T00:00:00.001Z, use a later one or none";
        return Err(BrokerError::NotAccepted(reason.into()));
    }
    Ok(())
}

/// Returns the size of a record with the lengths of its header names and values.
pub(super) fn size(record: &Record) -> usize {
    let lengths = record.headers.iter().map(|(name, value)| {
        let value = value.map_or(0, |value| value.len());
        varint_len(name.len()) + varint_len(value)
    });
    record.size() + lengths.sum::<usize>()
}

/// Returns the length of a zigzag varint: 7 bits per byte, after one for the sign.
fn varint_len(length: usize) -> usize {
    let bits = usize::BITS - (length << 1 | 1).leading_zeros();
    bits.div_ceil(7) as usize
}
