//! Waking the polling thread, wherever it waits.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::context::MemberContext;
use crate::native::consume::DataQueue;

/// The thread waits on the records' queue while there is room for them, and on the bell itself while
/// there is none. Ringing reaches it in both places.
#[derive(Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
    queue: Mutex<Option<Arc<DataQueue<MemberContext>>>>,
}

impl Bell {
    /// Lets it reach the thread also on the records' queue; or no more, so that the queue can go.
    pub(super) fn reach(&self, queue: Option<Arc<DataQueue<MemberContext>>>) {
        let before = std::mem::replace(&mut *lock(&self.queue), queue);
        // Not under the lock: it may hold the client, whose end rings.
        drop(before);
    }

    pub(super) fn ring(&self) {
        *lock(&self.rung) = true;
        self.heard.notify_one();
        if let Some(queue) = &*lock(&self.queue) {
            queue.wake();
        }
    }

    /// Whether it was rung since it was last asked.
    pub(super) fn was_rung(&self) -> bool {
        std::mem::take(&mut *lock(&self.rung))
    }

    /// Waits until it is rung, at most so long.
    pub(super) fn wait(&self, most: Duration) {
        let rung = lock(&self.rung);
        let waited = self.heard.wait_timeout_while(rung, most, |rung| !*rung);
        let (mut rung, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }
}

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bell").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while one of them is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
