//! Wakes the polling thread, wherever it waits.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::callbacks::ConsumerCallbacks;
use crate::native::data_queue::DataQueue;

/// Wakes the polling thread. The thread waits on the queue of records while there is room for them, and on this
/// value while there is none. A wake-up reaches it in both places.
#[derive(Default)]
pub(super) struct PollWaker {
    is_woken: Mutex<bool>,
    condvar: Condvar,
    records: Mutex<Option<Arc<DataQueue<ConsumerCallbacks>>>>,
}

impl PollWaker {
    /// Adds the queue of records, so that the thread is also woken where it waits for records.
    pub(super) fn attach(&self, records: Arc<DataQueue<ConsumerCallbacks>>) {
        *lock(&self.records) = Some(records);
    }

    /// Drops the queue of records.
    pub(super) fn detach(&self) {
        let records = lock(&self.records).take();
        // Not under the lock: this may drop the client, and that calls the waker.
        drop(records);
    }

    pub(super) fn wake(&self) {
        *lock(&self.is_woken) = true;
        self.condvar.notify_one();
        if let Some(records) = &*lock(&self.records) {
            records.wake();
        }
    }

    /// Returns whether the thread was woken since the last call.
    pub(super) fn take_woken(&self) -> bool {
        std::mem::take(&mut *lock(&self.is_woken))
    }

    /// Waits for a wake-up, at most this long.
    pub(super) fn wait(&self, most: Duration) {
        let is_woken = lock(&self.is_woken);
        let waited = self
            .condvar
            .wait_timeout_while(is_woken, most, |is_woken| !*is_woken);
        let (mut is_woken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *is_woken = false;
    }
}

impl std::fmt::Debug for PollWaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PollWaker").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
