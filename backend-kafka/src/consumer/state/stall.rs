//! Reports partitions that cannot be read for a long time.

use std::time::Instant;

use millstream_core::Partition;
use millstream_core::telemetry::event;

use super::failing::Failing;

/// The reason why a partition cannot be read, and since when.
#[derive(Debug, Default)]
pub(crate) struct Stall(Option<Failing>);

impl Stall {
    /// Records that the partition cannot be read. Reports it once, if it lasts.
    pub(crate) fn on_failure(
        &mut self,
        partition: &Partition,
        group: &str,
        now: Instant,
        error: impl FnOnce() -> String,
    ) {
        let failing = self.0.get_or_insert_with(|| Failing::since(now));
        if failing.is_to_be_reported(now) {
            event!(
                warn,
                "millstream.kafka.partition.stalled",
                group,
                stream = partition.stream(),
                partition = partition.id(),
                error = error(),
                "partition {partition} cannot be read",
            );
        }
    }

    /// Records that the partition can be read. Reports it, if the failure was reported.
    pub(crate) fn on_success(&mut self, partition: &Partition, group: &str) {
        let failing = self.0.take();
        if failing.is_some_and(|failing| failing.is_reported()) {
            event!(
                info,
                "millstream.kafka.partition.continues",
                group,
                stream = partition.stream(),
                partition = partition.id(),
                "partition {partition} can be read again",
            );
        }
    }
}
