//! Detects transactions that stay open, such as those of a producer that is gone.
//!
//! Readers of committed records stop before the first record of an open transaction (the *last stable
//! offset*). The broker aborts an abandoned transaction after the producer's `transaction.timeout.ms`, or never if
//! it has lost track of it (KIP-890). A reader only sees that the offset does not move.

use std::time::Instant;

use millstream_core::Partition;
use millstream_core::telemetry::event;

use super::failing::Failing;
use crate::connection::statistics::Bounds;

/// The open transaction that a reader has reached.
#[derive(Debug, Default)]
pub(crate) struct OpenTransaction(Option<Waiting>);

#[derive(Debug)]
struct Waiting {
    /// Its first offset.
    offset: i64,
    since: Instant,
    failing: Failing,
}

/// The change to report.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Lasts,
    Ended,
}

impl OpenTransaction {
    /// Handles the end of a partition for its reader, who is at `position`. Returns the end for its lag: an open
    /// transaction does not count as lag for its first seconds, in which most end.
    pub(crate) fn end(
        &mut self,
        bounds: Bounds,
        position: i64,
        partition: &Partition,
        group: &str,
        now: Instant,
    ) -> i64 {
        let first = self.0.as_ref().map_or(bounds.end, |waiting| waiting.offset);
        let (stream, id) = (partition.stream(), partition.id());
        match self.observe(bounds, position, now) {
            Some(Change::Lasts) => event!(
                warn,
                "millstream.kafka.partition.open_transaction",
                group,
                stream,
                partition = id,
                offset = bounds.end,
                records = bounds.high - bounds.end,
                open_for_seconds = self.open_for(now),
                "a transaction stays open at offset {} of partition {partition}: {} records are not \
                 readable until it ends",
                bounds.end,
                bounds.high - bounds.end,
            ),
            Some(Change::Ended) => event!(
                info,
                "millstream.kafka.partition.transaction_ended",
                group,
                stream,
                partition = id,
                offset = first,
                "the open transaction at offset {first} of partition {partition} has ended",
            ),
            None => {}
        }
        match self.is_reported() {
            true => bounds.high,
            false => bounds.end,
        }
    }

    fn observe(&mut self, bounds: Bounds, position: i64, now: Instant) -> Option<Change> {
        let is_open = bounds.high > bounds.end && position >= bounds.end;
        match &mut self.0 {
            Some(waiting) if is_open && waiting.offset == bounds.end => waiting
                .failing
                .is_to_be_reported(now)
                .then_some(Change::Lasts),
            _ => {
                let was_reported = self.is_reported();
                self.0 = is_open.then(|| Waiting {
                    offset: bounds.end,
                    since: now,
                    failing: Failing::since(now),
                });
                was_reported.then_some(Change::Ended)
            }
        }
    }

    fn is_reported(&self) -> bool {
        let waiting = self.0.as_ref();
        waiting.is_some_and(|waiting| waiting.failing.is_reported())
    }

    fn open_for(&self, now: Instant) -> u64 {
        let waiting = self.0.as_ref();
        waiting.map_or(0, |waiting| (now - waiting.since).as_secs())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn bounds(end: i64, high: i64) -> Bounds {
        Bounds { low: 0, end, high }
    }

    #[test]
    fn transaction_that_stays_open_is_reported_once_and_is_a_lag_then() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut open = OpenTransaction::default();
        let partition = Partition::new("s", "0");
        for (seconds, bounds, position, change, end) in [
            // The reader has not reached it.
            (0, bounds(5, 9), 4, None, 5),
            (20, bounds(5, 9), 5, None, 5),
            (29, bounds(5, 9), 5, None, 5),
            (30, bounds(5, 9), 5, Some(Change::Lasts), 9),
            (50, bounds(5, 99), 5, None, 99),
            // Another one follows it.
            (51, bounds(8, 99), 8, Some(Change::Ended), 8),
            (61, bounds(8, 99), 8, Some(Change::Lasts), 99),
            (62, bounds(99, 99), 99, Some(Change::Ended), 99),
            (99, bounds(99, 99), 99, None, 99),
        ] {
            let told = format!("after {seconds} s: {bounds:?}");
            assert_eq!(
                open.observe(bounds, position, at(seconds)),
                change,
                "{told}"
            );
            // Observing it again changes nothing.
            let counted = open.end(bounds, position, &partition, "g", at(seconds));
            assert_eq!(counted, end, "{told}");
        }
    }
}
