//! Timestamps as brokers store them: whole milliseconds since 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Rounds a time down to whole milliseconds since 1970. Times before 1970 are negative.
#[inline]
pub fn to_millis(time: SystemTime) -> i64 {
    let capped = |millis: u128| i64::try_from(millis).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => capped(after.as_millis()),
        Err(before) => -capped(before.duration().as_nanos().div_ceil(1_000_000)),
    }
}

/// Returns the time of whole milliseconds since 1970; `None` if the platform cannot represent it.
#[inline]
pub fn from_millis(millis: i64) -> Option<SystemTime> {
    let distance = Duration::from_millis(millis.unsigned_abs());
    match millis >= 0 {
        true => UNIX_EPOCH.checked_add(distance),
        false => UNIX_EPOCH.checked_sub(distance),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_milliseconds_are_exact_on_both_sides_of_1970() {
        for millis in [-1_001, -1, 0, 1, 1_700_000_000_123] {
            assert_eq!(from_millis(millis).map(to_millis), Some(millis));
        }
    }

    #[test]
    fn fractions_are_rounded_down() {
        let before = UNIX_EPOCH - Duration::from_micros(1);
        assert_eq!(to_millis(before), -1);
        assert_eq!(to_millis(UNIX_EPOCH + Duration::from_micros(1_999)), 1);
    }
}
