//! The size limits of a record.
//!
//! A topic limits the size of a *batch* of records as sent (`max.message.bytes`), and librdkafka limits the size
//! of each record and each batch by its own `message.max.bytes`. The latter is set so that a batch of
//! one record never exceeds the former, so the broker never rejects a record that passes here.

use millstream_core::Record;
use millstream_core::driver::StreamLimits;

/// The size of a batch without records (https://kafka.apache.org/documentation/#recordbatch).
pub(super) const BATCH_OVERHEAD: usize = 61;
/// The size that librdkafka assumes for a record's own lengths, deltas and flags: their largest encoding.
pub(super) const RECORD_OVERHEAD: usize = 36;
/// librdkafka's bounds for `message.max.bytes`, and its default: just below that of brokers.
const MIN_MESSAGE_MAX: usize = 1_000;
const MAX_MESSAGE_MAX: usize = 1_000_000_000;
const DEFAULT_MESSAGE_MAX: usize = 1_000_000;

/// The limits of record sizes of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SizeLimits {
    /// The value for librdkafka's `message.max.bytes`.
    pub(crate) message_max: usize,
}

impl SizeLimits {
    /// Computes the limits. `topic` is the topic's `max.message.bytes`, if it is known.
    pub(crate) fn new(topic: Option<usize>) -> Self {
        let batch = topic.unwrap_or(DEFAULT_MESSAGE_MAX + BATCH_OVERHEAD);
        Self {
            message_max: batch
                .saturating_sub(BATCH_OVERHEAD)
                .clamp(MIN_MESSAGE_MAX, MAX_MESSAGE_MAX),
        }
    }

    /// Returns the limit of [`record_bytes`](Self::record_bytes).
    pub(super) fn max_record_bytes(self) -> usize {
        self.message_max - RECORD_OVERHEAD
    }

    /// Returns the size of a record including the lengths of its headers. Each header has two lengths that
    /// [`Record::size`] does not count.
    pub(super) fn record_bytes(record: &Record) -> usize {
        let lengths = |(name, value): (&str, Option<&bytes::Bytes>)| {
            varint(name.len()) + varint(value.map_or(0, bytes::Bytes::len))
        };
        record.size() + record.headers.iter().map(lengths).sum::<usize>()
    }

    pub(super) fn limits(self) -> StreamLimits {
        StreamLimits {
            record_bytes: self.max_record_bytes(),
            // A key has no limit of its own, only the record's.
            key_bytes: self.max_record_bytes(),
            key_chars: None,
            empty_key: true,
            text_key: false,
            batch_records: 1_000,
            batch_bytes: 1 << 20,
        }
    }
}

/// Returns the size of an encoded length: 7 bits per byte, after one bit for the sign.
fn varint(length: usize) -> usize {
    let bits = usize::BITS - (length << 1 | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_encoded_as_varints() {
        for (length, expected) in [(0, 1), (63, 1), (64, 2), (8191, 2), (8192, 3)] {
            assert_eq!(varint(length), expected, "{length}");
        }
    }

    #[test]
    fn a_record_of_the_limit_fits_the_topic() {
        let limits = SizeLimits::new(Some(10_000));
        let (of_stream, payload) = (limits.limits(), 10_000 - 61 - 36);
        assert_eq!(of_stream.record_bytes, payload);
        assert_eq!(limits.message_max + BATCH_OVERHEAD, 10_000);
        let record = Record::new(vec![0; payload]);
        assert!(SizeLimits::record_bytes(&record) <= limits.max_record_bytes());
        let more = Record::new(vec![0; payload - 3]).header("abc", "");
        assert_eq!(more.size(), of_stream.record_bytes);
        assert!(SizeLimits::record_bytes(&more) > limits.max_record_bytes());
    }

    #[test]
    fn the_default_is_used_without_a_limit_of_the_topic() {
        assert_eq!(SizeLimits::new(None).message_max, 1_000_000);
        assert_eq!(SizeLimits::new(Some(10)).message_max, 1_000);
        assert_eq!(SizeLimits::new(Some(usize::MAX)).message_max, 1_000_000_000);
    }
}
