//! The latency of requests.

use std::time::Duration;

/// The part that a new measurement has in the smoothed latency, as in [RFC 6298].
///
/// [RFC 6298]: https://www.rfc-editor.org/rfc/rfc6298#section-2
const PART: u32 = 8;

/// The smoothed time between a request and its response.
#[derive(Debug, Clone, Default)]
pub(super) struct Latency {
    smoothed: Option<Duration>,
}

impl Latency {
    /// Returns the smoothed latency, or zero before the first measurement.
    pub(super) fn get(&self) -> Duration {
        self.smoothed.unwrap_or_default()
    }

    /// Adds a measurement. The first one counts in full.
    pub(super) fn measured(&mut self, took: Duration) {
        let before = self.smoothed.unwrap_or(took);
        self.smoothed = Some(before - before / PART + took / PART);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_measurement_counts_in_full() {
        let mut latency = Latency::default();
        assert_eq!(latency.get(), Duration::ZERO);
        latency.measured(80 * MS);
        assert_eq!(latency.get(), 80 * MS);
    }

    #[test]
    fn one_outlier_changes_little_and_a_lasting_change_is_followed() {
        let mut latency = Latency::default();
        latency.measured(80 * MS);
        latency.measured(160 * MS);
        assert_eq!(latency.get(), 90 * MS);
        (0..20).for_each(|_| latency.measured(160 * MS));
        assert!(latency.get() > 150 * MS, "{latency:?}");
        (0..20).for_each(|_| latency.measured(20 * MS));
        assert!(latency.get() < 35 * MS, "{latency:?}");
    }
}
