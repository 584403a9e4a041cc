//! The batches that have no results yet, wherever they are: with librdkafka, in a queue, or on a stack.

use std::sync::{Arc, Weak};

use millstream_core::Error;

use crate::native::delivery::Batch;

/// The smallest size at which released batches are removed.
const MIN_PRUNE_SIZE: usize = 64;

/// Weak references to the batches, so that a batch is released as soon as its call has its results.
///
/// Released batches are removed when their number may have reached the number of the others. So a call pays for one
/// entry, and nothing must be done when it has its results.
pub(super) struct PendingBatches {
    batches: Vec<Weak<Batch>>,
    prune_at: usize,
}

impl PendingBatches {
    pub(super) fn new() -> Self {
        Self {
            batches: Vec::new(),
            prune_at: MIN_PRUNE_SIZE,
        }
    }

    pub(super) fn push(&mut self, batch: &Arc<Batch>) {
        if self.batches.len() >= self.prune_at {
            self.batches.retain(|batch| batch.strong_count() > 0);
            self.prune_at = (2 * self.batches.len()).max(MIN_PRUNE_SIZE);
        }
        self.batches.push(Arc::downgrade(batch));
    }

    /// Gives up all records that have no result.
    pub(super) fn abandon(&mut self, error: &Error) {
        for batch in self.batches.drain(..).filter_map(|batch| batch.upgrade()) {
            batch.abandon(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use millstream_core::Record;

    use super::*;

    #[test]
    fn released_batches_are_removed() {
        let batch = || {
            let records = vec![Record::new("")];
            Arc::new(Batch::new(records, Instant::now(), |_| Ok(())))
        };
        let mut pending = PendingBatches::new();
        let kept: Vec<_> = (0..100).map(|_| batch()).collect();
        for batch in &kept {
            pending.push(batch);
        }
        for _ in 0..10_000 {
            pending.push(&batch());
            assert!(pending.batches.len() <= 2 * kept.len() + 1);
        }
        let alive = pending.batches.iter().filter(|b| b.strong_count() > 0);
        assert_eq!(alive.count(), kept.len());
    }
}
