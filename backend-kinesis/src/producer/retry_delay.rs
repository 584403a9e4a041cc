//! The delay before a failed record is retried.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// The delay before a failed record is retried. Each failure of the record doubles it, and random jitter of up to
/// the same length is added.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_millis(500);

/// Returns the delay after this number of failures.
pub(super) fn retry_delay(attempts: u32) -> Duration {
    // With more doublings, the delay is the maximum anyway.
    let doublings = attempts.clamp(1, 16) as usize - 1;
    ExponentialBuilder::new()
        .with_min_delay(FIRST_DELAY)
        .with_max_delay(LONGEST_DELAY)
        .without_max_times()
        .with_jitter()
        .build()
        .nth(doublings)
        .unwrap_or(LONGEST_DELAY)
}
