use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Limits how many cases of a setup run concurrently. Its waiters are threads that run no runtime.
#[derive(Debug)]
pub(super) struct Slots {
    free: Mutex<usize>,
    released: Condvar,
}

impl Slots {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            free: Mutex::new(slots.max(1)),
            released: Condvar::new(),
        }
    }

    /// Waits for a free slot, and takes it until the guard is dropped.
    pub(super) fn acquire(&self) -> Slot<'_> {
        let taken = self.released.wait_while(self.lock(), |free| *free == 0);
        *taken.unwrap_or_else(PoisonError::into_inner) -= 1;
        Slot(self)
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slot that is taken.
#[derive(Debug)]
pub(super) struct Slot<'a>(&'a Slots);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        *self.0.lock() += 1;
        self.0.released.notify_one();
    }
}
