//! Rate limits of partitions, by the generic cell rate algorithm (GCRA).

use std::time::Duration;

/// The burst after idle time, as time at the full rate. Kinesis accepts one second's worth.
const BURST: u128 = Duration::from_secs(1).as_nanos();

/// The rate limit of each partition. An unset bound is no limit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RateLimit {
    pub(crate) records_per_second: Option<u64>,
    pub(crate) bytes_per_second: Option<u64>,
}

impl RateLimit {
    pub(crate) fn is_none(&self) -> bool {
        self.records_per_second.is_none() && self.bytes_per_second.is_none()
    }
}

/// The GCRA state of one partition: for each bound, its theoretical arrival time, in nanoseconds since
/// the broker started.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gcra {
    records: u128,
    bytes: u128,
}

impl Gcra {
    /// Charges `count` records with `size` bytes in total at `now` (time since the broker started).
    /// Returns false and charges nothing if a bound is exceeded.
    ///
    /// A batch with more than one second's worth is accepted when the partition was idle, so that it is
    /// delayed instead of blocked.
    pub(crate) fn try_acquire(
        &mut self,
        rate_limit: &RateLimit,
        count: usize,
        size: usize,
        now: Duration,
    ) -> bool {
        let now = now.as_nanos();
        let records = charge(self.records, rate_limit.records_per_second, count, now);
        let bytes = charge(self.bytes, rate_limit.bytes_per_second, size, now);
        match (records, bytes) {
            (Some(records), Some(bytes)) => {
                *self = Self { records, bytes };
                true
            }
            _ => false,
        }
    }
}

fn charge(arrival: u128, per_second: Option<u64>, amount: usize, now: u128) -> Option<u128> {
    let Some(per_second) = per_second else {
        return Some(arrival);
    };
    let cost = BURST * amount as u128 / u128::from(per_second.max(1));
    let is_idle = arrival <= now;
    let after = arrival.max(now) + cost;
    (is_idle || after <= now + BURST).then_some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_a_burst_of_one_second_and_then_the_rate() {
        let rate_limit = RateLimit {
            records_per_second: Some(10),
            bytes_per_second: None,
        };
        let mut rate = Gcra::default();
        let accepted = |rate: &mut Gcra, millis| {
            let now = Duration::from_millis(millis);
            (0..100)
                .filter(|_| rate.try_acquire(&rate_limit, 1, 1, now))
                .count()
        };
        assert_eq!(accepted(&mut rate, 0), 10);
        assert_eq!(accepted(&mut rate, 99), 0);
        assert_eq!(accepted(&mut rate, 200), 2);
        assert_eq!(accepted(&mut rate, 60_000), 10);
    }

    #[test]
    fn an_idle_partition_accepts_a_record_above_the_rate() {
        let rate_limit = RateLimit {
            records_per_second: None,
            bytes_per_second: Some(100),
        };
        let mut rate = Gcra::default();
        assert!(rate.try_acquire(&rate_limit, 1, 1_000, Duration::ZERO));
        assert!(!rate.try_acquire(&rate_limit, 1, 1, Duration::from_secs(9)));
        assert!(rate.try_acquire(&rate_limit, 1, 1, Duration::from_secs(10)));
    }
}
