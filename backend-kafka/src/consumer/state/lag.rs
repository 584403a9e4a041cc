//! The lag of a member, and its sources.
//!
//! A lag is the end of a partition minus the offset of the next record to deliver. That offset is
//! known here at any time. Three sources have the end, each where the previous one does not:
//!
//! * **The fetch that brought a batch**, for the lag that is delivered with the batch. It costs nothing
//!   (librdkafka keeps the high watermark) and is as new as the records. But it comes with records
//!   only, and counts those of open transactions, which are no lag: they cannot be read yet.
//! * **The statistics**, each `statistics_interval`: the *last stable offset* of every partition that
//!   is fetched, including one in which nothing is stored, or in which a transaction is open. Without
//!   them a member that has joined at the end of a partition would not know that it is not behind.
//! * **A request to the leader**, at the same interval, for partitions that are paused in librdkafka. librdkafka
//!   does not fetch these, so its statistics stay as they were at the pause, exactly where a lag grows:
//!   behind a stuck handler. It is one request to each leader.

use std::time::{Duration, SystemTime};

use millstream_core::Lag;

/// The known state of a partition's records that are not delivered.
#[derive(Debug, Default)]
pub(crate) struct Lagging {
    /// The oldest offset that is left. The position of a group that begins there may be before it.
    pub(crate) low: i64,
    /// The time since when records wait.
    since: Option<SystemTime>,
}

impl Lagging {
    /// Returns the current lag, from the offset to read next to the end. `last` is the broker's timestamp of a record
    /// that is being delivered.
    pub(crate) fn lag(&mut self, position: i64, end: Option<u64>, last: Option<SystemTime>) -> Lag {
        let next = u64::try_from(position.max(self.low)).unwrap_or(0);
        let records = end.map(|end| end.saturating_sub(next));
        let now = SystemTime::now();
        let since = &mut self.since;
        *since = match (records, last) {
            (None | Some(0), _) => None,
            // The next record is a little younger than the last one. Its timestamp is not known.
            (_, Some(last)) => Some(last),
            // The record was written after nothing was left, and was not seen before now.
            (_, None) => Some(since.unwrap_or(now)),
        };
        let age = |since| now.duration_since(since).ok();
        Lag {
            records,
            time: match records {
                Some(0) => Some(Duration::ZERO),
                _ => since.and_then(age),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const NONE: Lag = Lag {
        records: Some(0),
        time: Some(Duration::ZERO),
    };

    #[test]
    fn an_unknown_end_is_no_lag_of_zero() {
        let mut lagging = Lagging::default();
        assert_eq!(lagging.lag(7, None, None), Lag::default());
        assert_eq!(lagging.lag(7, Some(7), None), NONE);
    }

    #[test]
    fn a_lag_ages_from_the_last_record_delivered() {
        let mut lagging = Lagging::default();
        let hour = Duration::from_secs(3_600);
        let last = SystemTime::now() - hour;
        for last in [Some(last), None] {
            let lag = lagging.lag(7, Some(10), last);
            assert_eq!(lag.records, Some(3));
            assert!(lag.time >= Some(hour), "{lag:?}");
        }
        assert_eq!(lagging.lag(10, Some(10), None), NONE);
        // The waiting record is new, not as old as the one from an hour ago.
        let lag = lagging.lag(10, Some(11), None);
        assert_eq!(lag.records, Some(1));
        assert!(lag.time < Some(hour), "{lag:?}");
    }

    #[test]
    fn a_lag_that_stays_grows_older() {
        let mut lagging = Lagging::default();
        let begun = Instant::now();
        let first = lagging.lag(0, Some(1), None).time.unwrap();
        let deadline = begun + Duration::from_secs(10);
        while lagging.lag(0, Some(1), None).time.unwrap() <= first {
            assert!(Instant::now() < deadline);
        }
    }

    #[test]
    fn what_is_gone_by_retention_is_not_left() {
        let mut lagging = Lagging {
            low: 95,
            since: None,
        };
        assert_eq!(lagging.lag(0, Some(100), None).records, Some(5));
    }
}
