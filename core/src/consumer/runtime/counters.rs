use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::ConsumerStats;
use crate::driver::FilteredCounter;

/// The counters of a member. Written only by its own task, except for `filtered`, and read by any thread.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) received: Counter,
    pub(crate) settled: Counter,
    pub(crate) failures: Counter,
    pub(crate) retried: Counter,
    pub(crate) dead_lettered: Counter,
    pub(crate) dead_letters_changed: Counter,
    pub(crate) skipped: Counter,
    pub(crate) panicked: Counter,
    pub(crate) checkpoints: Counter,
    pub(crate) published: Counter,
    pub(crate) assigned: Counter,
    pub(crate) released: Counter,
    pub(crate) lost: Counter,
    pub(crate) abandoned: Counter,
    /// Written by the driver.
    pub(crate) filtered: FilteredCounter,
    pub(crate) data_losses: Counter,
    pub(crate) in_flight: Counter,
    pub(crate) buffered_bytes: Counter,
}

impl Counters {
    pub(crate) fn read(&self) -> ConsumerStats {
        ConsumerStats {
            received: self.received.get(),
            settled: self.settled.get(),
            failures: self.failures.get(),
            retried: self.retried.get(),
            dead_lettered: self.dead_lettered.get(),
            dead_letters_changed: self.dead_letters_changed.get(),
            skipped: self.skipped.get(),
            panicked: self.panicked.get(),
            checkpoints: self.checkpoints.get(),
            published: self.published.get(),
            assigned: self.assigned.get(),
            released: self.released.get(),
            lost: self.lost.get(),
            abandoned: self.abandoned.get(),
            filtered: self.filtered.get(),
            data_losses: self.data_losses.get(),
            in_flight: self.in_flight.get(),
            buffered_bytes: self.buffered_bytes.get(),
        }
    }
}

/// A number with one writer. It needs no read-modify-write operation, and does not pay for one.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.set(self.get() + more);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
