//! The rate that one partition takes.

use std::time::Duration;

/// How much may come at once after a rest, as time at the full rate. Kinesis lets a second's worth
/// through.
const BURST: u128 = Duration::from_secs(1).as_nanos();

/// What one partition takes in a second; unset bounds are none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Allowance {
    pub(crate) records_per_second: Option<u64>,
    pub(crate) bytes_per_second: Option<u64>,
}

impl Allowance {
    pub(crate) fn is_none(&self) -> bool {
        self.records_per_second.is_none() && self.bytes_per_second.is_none()
    }
}

/// What was used of an allowance: for each bound the time when it is as good as unused (a generic
/// cell rate).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rate {
    records: u128,
    bytes: u128,
}

impl Rate {
    /// Takes `count` records of together `size` bytes at `now` (time since the broker began), or
    /// nothing and answers false.
    ///
    /// What is more than a second's worth passes when the partition has rested, so that it is late,
    /// not stuck.
    pub(crate) fn take(
        &mut self,
        allowance: &Allowance,
        count: usize,
        size: usize,
        now: Duration,
    ) -> bool {
        let now = now.as_nanos();
        let records = charge(self.records, allowance.records_per_second, count, now);
        let bytes = charge(self.bytes, allowance.bytes_per_second, size, now);
        match (records, bytes) {
            (Some(records), Some(bytes)) => {
                *self = Self { records, bytes };
                true
            }
            _ => false,
        }
    }
}

fn charge(used_until: u128, per_second: Option<u64>, amount: usize, now: u128) -> Option<u128> {
    let Some(per_second) = per_second else {
        return Some(used_until);
    };
    let cost = BURST * amount as u128 / u128::from(per_second.max(1));
    let rested = used_until <= now;
    let after = used_until.max(now) + cost;
    (rested || after <= now + BURST).then_some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_seconds_worth_and_then_the_rate() {
        let allowance = Allowance {
            records_per_second: Some(10),
            bytes_per_second: None,
        };
        let mut rate = Rate::default();
        let taken = |rate: &mut Rate, millis| {
            let now = Duration::from_millis(millis);
            (0..100)
                .filter(|_| rate.take(&allowance, 1, 1, now))
                .count()
        };
        assert_eq!(taken(&mut rate, 0), 10);
        assert_eq!(taken(&mut rate, 99), 0);
        assert_eq!(taken(&mut rate, 200), 2);
        assert_eq!(taken(&mut rate, 60_000), 10);
    }

    #[test]
    fn a_large_record_passes_a_rested_partition() {
        let allowance = Allowance {
            records_per_second: None,
            bytes_per_second: Some(100),
        };
        let mut rate = Rate::default();
        assert!(rate.take(&allowance, 1, 1_000, Duration::ZERO));
        assert!(!rate.take(&allowance, 1, 1, Duration::from_secs(9)));
        assert!(rate.take(&allowance, 1, 1, Duration::from_secs(10)));
    }
}
