//! The state of the network between one client and the target.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::carry::Direction;

/// Clones share the state.
#[derive(Debug, Clone, Default)]
pub(super) struct Network(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    faults: watch::Sender<NetworkFaults>,
    hits: AtomicU64,
    connections: AtomicU64,
    /// When all bytes that were sent in each direction have passed.
    passed: [Mutex<Option<Instant>>; 2],
}

/// The faults that are in effect.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct NetworkFaults {
    pub(super) is_cut: bool,
    pub(super) swallows_responses: bool,
    pub(super) frozen_until: Option<Instant>,
    pub(super) delay: Duration,
    /// The bytes per second of all connections together in one direction; 0 for no limit.
    pub(super) rate: u32,
    /// Connections with a lower number are stranded.
    pub(super) stranded_below: u64,
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

    /// Counts a new connection, and returns its number.
    pub(super) fn connect(&self) -> u64 {
        self.0.connections.fetch_add(1, Relaxed)
    }

    pub(super) fn strand(&self) {
        let opened = self.0.connections.load(Relaxed);
        self.change(|faults| faults.stranded_below = opened);
    }

    /// Waits forever if this connection is stranded.
    pub(super) async fn forwarded(&self, connection: u64) {
        if connection < self.0.faults.borrow().stranded_below {
            self.hit();
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn rate(&self) -> u32 {
        self.0.faults.borrow().rate
    }

    /// Waits until these bytes have passed in a direction.
    pub(super) async fn passed(&self, direction: Direction, bytes: usize) {
        let rate = self.rate();
        if rate == 0 {
            return;
        }
        self.hit();
        let until = {
            let passed = &self.0.passed[direction as usize];
            let mut passed = passed.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let takes = Duration::from_secs_f64(bytes as f64 / f64::from(rate));
            let begins = passed.map_or(now, |passed| passed.max(now));
            *passed.insert(begins + takes)
        };
        sleep_until(until).await;
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
