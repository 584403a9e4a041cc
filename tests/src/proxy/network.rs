//! The state of the network between one client and the target.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Clones share the state.
#[derive(Debug, Clone, Default)]
pub(super) struct Network(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    faults: watch::Sender<NetworkFaults>,
    hits: AtomicU64,
}

/// The faults that are in effect.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NetworkFaults {
    pub(super) is_cut: bool,
    pub(super) swallows_responses: bool,
    pub(super) frozen_until: Option<Instant>,
    pub(super) delay: Duration,
}

impl Network {
    /// Changes the faults, and wakes every connection that waits for a change.
    pub(super) fn change(&self, change: impl FnOnce(&mut NetworkFaults)) {
        self.0.faults.send_modify(change);
    }

    /// Counts a fault that took effect.
    pub(super) fn hit(&self) {
        self.0.hits.fetch_add(1, Relaxed);
    }

    pub(super) fn hits(&self) -> u64 {
        self.0.hits.load(Relaxed)
    }

    pub(super) fn is_cut(&self) -> bool {
        self.0.faults.borrow().is_cut
    }

    pub(super) fn swallows_responses(&self) -> bool {
        self.0.faults.borrow().swallows_responses
    }

    pub(super) fn delay(&self) -> Duration {
        self.0.faults.borrow().delay
    }

    /// Waits until the connections are cut.
    pub(super) async fn cut(&self) {
        let mut faults = self.0.faults.subscribe();
        let cut = faults.wait_for(|faults| faults.is_cut).await;
        cut.expect("the sender lives as long as this");
    }

    /// Waits while the connections are frozen.
    pub(super) async fn thawed(&self) {
        let mut faults = self.0.faults.subscribe();
        let mut waited = false;
        loop {
            let until = faults.borrow_and_update().frozen_until;
            let until = until.filter(|until| *until > Instant::now());
            let Some(until) = until else { return };
            if !waited {
                self.hit();
                waited = true;
            }
            tokio::select! {
                () = sleep_until(until) => {}
                changed = faults.changed() => changed.expect("the sender lives as long as this"),
            }
        }
    }
}
