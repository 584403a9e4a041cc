//! Timestamps, as Kafka keeps them: whole milliseconds since 1970.

use std::time::UNIX_EPOCH;

use millstream_core::Record;

/// The record's own timestamp, if it has one. 0 or less stands for one that cannot be sent.
pub(super) fn of(record: &Record) -> Option<i64> {
    let since = record.timestamp?.duration_since(UNIX_EPOCH);
    Some(since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }))
}

/// librdkafka takes 0 for "now", and brokers refuse what is before 1970.
pub(crate) fn can_be_sent(record: &Record) -> bool {
    of(record).is_none_or(|stamp| stamp > 0)
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
        for at in [
            UNIX_EPOCH,
            UNIX_EPOCH + Duration::from_micros(999),
            UNIX_EPOCH - Duration::from_secs(1),
        ] {
            assert!(!can_be_sent(&record(at)), "{at:?}");
        }
    }
}
