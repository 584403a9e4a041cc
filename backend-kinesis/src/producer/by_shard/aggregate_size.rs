//! The size of a shard's aggregates.
//!
//! A shard gets one aggregate in the latency of a request, since the next one is sent after the response. So if records
//! are waiting, an aggregate takes as many bytes as the shard accepts in that time. Otherwise a distant region would
//! limit the rate of a shard.
//!
//! A shard may reject an aggregate that it would accept in parts, for example because other producers leave little room.
//! So the maximum is halved when records are throttled that had already waited after a failure, and each stored
//! aggregate raises it again.

use std::time::Duration;

use crate::producer::latency::Latency;

/// The maximum, unless the settings ask for more: no shard accepts more in a second, and the records of a stream are
/// not larger by default.
const MOST_BYTES: usize = 1 << 20;

/// The part by which each stored aggregate raises a reduced maximum.
const GROWTH: usize = 16;

#[derive(Debug, Clone)]
pub(super) struct AggregateSize {
    /// An aggregate of this size does not wait for more records.
    least: usize,
    max_records: usize,
    /// The maximum that throttling has left.
    reduced: usize,
    latency: Latency,
}

impl AggregateSize {
    /// `target_bytes` is the size without waiting records, `record_bytes` that of the largest record of the stream.
    pub(super) fn new(target_bytes: usize, record_bytes: usize) -> Self {
        let least = target_bytes.min(record_bytes);
        let max_records = record_bytes.min(MOST_BYTES).max(least);
        Self {
            least,
            max_records,
            reduced: max_records,
            latency: Latency::default(),
        }
    }

    /// Returns the size in bytes from which an aggregate does not wait for more records.
    pub(super) fn least(&self) -> usize {
        self.least
    }

    /// Returns the maximum size in bytes of the next aggregate for a shard of this rate.
    pub(super) fn get(&self, bytes_per_second: f64) -> usize {
        let bytes = bytes_per_second * self.latency.get().as_secs_f64();
        (bytes as usize).clamp(self.least, self.reduced)
    }

    /// Handles an aggregate that was stored, with the time that this took.
    pub(super) fn stored(&mut self, took: Duration) {
        self.latency.measured(took);
        self.reduced = (self.reduced + self.reduced / GROWTH).min(self.max_records);
    }

    /// Handles an aggregate of this size that was throttled although its records had waited.
    pub(super) fn throttled_again(&mut self, bytes: usize) {
        self.reduced = self.reduced.min(bytes / 2).max(self.least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;
    const RATE: f64 = 1_024_000.0;

    fn with_latency(target_bytes: usize, record_bytes: usize, millis: u64) -> AggregateSize {
        let mut size = AggregateSize::new(target_bytes, record_bytes);
        size.stored(Duration::from_millis(millis));
        size
    }

    #[test]
    fn it_is_what_the_shard_accepts_in_the_latency() {
        let fresh = AggregateSize::new(50 * KIB, 1024 * KIB);
        assert_eq!(fresh.get(RATE), 50 * KIB, "nothing is measured");
        for (millis, bytes) in [(1, 50), (50, 50), (100, 100), (180, 180), (5_000, 1024)] {
            let size = with_latency(50 * KIB, 1024 * KIB, millis);
            assert_eq!(size.get(RATE), bytes * KIB, "{millis} ms");
            assert_eq!(size.least(), 50 * KIB, "{millis} ms");
        }
    }

    #[test]
    fn the_limits_of_records_are_kept() {
        for (target, record, least, max_records) in [
            (2048, 1024, 1024, 1024),
            (2048, 4096, 2048, 2048),
            (50, 4096, 50, 1024),
            (50, 200, 50, 200),
        ] {
            let size = with_latency(target * KIB, record * KIB, 60_000);
            assert_eq!(size.least(), least * KIB, "{target} of {record}");
            assert_eq!(size.get(RATE), max_records * KIB, "{target} of {record}");
        }
    }

    #[test]
    fn throttling_halves_it_and_success_restores_it() {
        let mut size = with_latency(50 * KIB, 1024 * KIB, 400);
        size.throttled_again(400 * KIB);
        assert_eq!(size.get(RATE), 200 * KIB);
        for _ in 0..10 {
            size.throttled_again(size.get(RATE));
        }
        assert_eq!(size.get(RATE), 50 * KIB);
        size.throttled_again(1024 * KIB);
        assert_eq!(size.get(RATE), 50 * KIB, "one large record changes nothing");
        (0..50).for_each(|_| size.stored(Duration::from_millis(400)));
        assert_eq!(size.get(RATE), 400 * KIB);
    }
}
