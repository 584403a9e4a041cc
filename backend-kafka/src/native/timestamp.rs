//! Timestamps in Kafka's format: whole milliseconds since 1970.
//!
//! Kafka writes the timestamp of a record without one as -1, which is read as the very first millisecond of 1970.
//! That time is sent as -1 again: librdkafka takes 0 for "now". So a record without a timestamp can be
//! passed on unchanged, and is read again with the same time.

use std::time::UNIX_EPOCH;

use millstream_core::Record;

/// Kafka's `NO_TIMESTAMP`.
const NONE: i64 = -1;

/// Returns librdkafka's value for the record's own timestamp, if it has one.
pub(super) fn of(record: &Record) -> Option<i64> {
    let since = record.timestamp?.duration_since(UNIX_EPOCH);
    let millis = since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    });
    Some(if millis == 0 { NONE } else { millis })
}

/// Returns whether brokers accept the timestamp: none before 1970.
pub(super) fn can_be_sent(record: &Record) -> bool {
    record.timestamp.is_none_or(|at| at >= UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn whole_milliseconds_after_1970() {
        let record = |at| Record::new("").timestamp(at);
        let at = UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_999);
        assert_eq!(of(&record(at)), Some(1_700_000_000_123));
        assert_eq!(of(&Record::new("")), None);
        assert!(can_be_sent(&record(at)) && can_be_sent(&Record::new("")));
        for at in [UNIX_EPOCH, UNIX_EPOCH + Duration::from_micros(999)] {
            assert_eq!(of(&record(at)), Some(NONE));
            assert!(can_be_sent(&record(at)), "{at:?}");
        }
        let before = UNIX_EPOCH - Duration::from_nanos(1);
        assert!(!can_be_sent(&record(before)));
    }
}
