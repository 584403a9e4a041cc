//! The leases that a reset owns, and their renewal.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream as futures};
use millstream_core::Result;
use tokio::time::{Instant, sleep_until};

use super::{AT_ONCE, PATIENCE};
use crate::connection::retry;
use crate::lease::change;
use crate::lease::row::Row;
use crate::lease::store::{LeaseStore, Outcome, Update};

/// The minimum time between two attempts to renew a lease.
const PAUSE: Duration = Duration::from_millis(150);

/// The leases that one call owns.
#[derive(Debug)]
pub(super) struct Holding<'a> {
    store: &'a dyn LeaseStore,
    failover: Duration,
    /// The owner's ID, unique for each call.
    me: String,
    leases: Mutex<BTreeMap<Arc<str>, Lease>>,
}

#[derive(Debug)]
struct Lease {
    row: Row,
    /// The time just before the request of the last change.
    renewed: Instant,
}

impl<'a> Holding<'a> {
    pub(super) fn new(store: &'a dyn LeaseStore, failover: Duration) -> Self {
        Self {
            store,
            failover,
            me: format!("reset-{:032x}", fastrand::u128(..)),
            leases: Mutex::default(),
        }
    }

    pub(super) fn me(&self) -> &str {
        &self.me
    }

    pub(super) fn owns(&self, row: &Row) -> bool {
        row.owner.as_deref() == Some(&self.me)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.leases().contains_key(key)
    }

    pub(super) fn keys(&self) -> Vec<Arc<str>> {
        self.leases().keys().cloned().collect()
    }

    pub(super) fn lose(&self, key: &str) {
        self.leases().remove(key);
    }

    /// Changes a lease that is not held. Returns whether it is held then.
    pub(super) async fn acquire(&self, key: &Arc<str>, update: &Update) -> Result<bool> {
        let renewed = Instant::now();
        let request = || self.store.update(key, update);
        // A change that was applied without a response is refused at the next attempt, and shows its row.
        let row = row(retry("reset", PATIENCE, request).await?);
        let Some(row) = row.filter(|row| self.owns(row)) else {
            return Ok(false);
        };
        self.leases().insert(key.clone(), Lease { row, renewed });
        Ok(true)
    }

    /// Applies the last change to a held lease, after which it has no owner. Returns false if it is another worker's
    /// already.
    pub(super) async fn release(
        &self,
        key: &str,
        change: impl Fn(&Row, &str) -> Update,
    ) -> Result<bool> {
        loop {
            let before = self.leases().get(key).map(|lease| lease.row.clone());
            let Some(before) = before else {
                return Ok(false);
            };
            let update = change(&before, &self.me);
            let request = || self.store.update(key, &update);
            let outcome = retry("reset", PATIENCE, request).await?;
            let is_applied = matches!(outcome, Outcome::Applied(_));
            match row(outcome) {
                // It was renewed meanwhile.
                Some(row) if self.owns(&row) => self.renewed(row, None),
                row => {
                    self.lose(key);
                    // Only its owner releases a lease: the first response was lost.
                    let is_released =
                        |row: Row| row.owner.is_none() && row.counter == before.counter + 1;
                    return Ok(is_applied || row.is_some_and(is_released));
                }
            }
        }
    }

    /// Renews all held leases as long as it runs.
    pub(super) async fn renew(&self) -> Infallible {
        loop {
            let renewals = self.due().into_iter().map(|row| self.renew_one(row));
            let renewals = futures::iter(renewals).buffer_unordered(AT_ONCE);
            renewals.for_each(async |()| {}).await;
            sleep_until(self.next_renewal()).await;
        }
    }

    async fn renew_one(&self, held: Row) {
        let before = Instant::now();
        let update = change::keep(&held, &self.me);
        let request = || self.store.update(&held.key, &update);
        // After an error, the next attempt shows whether the lease is still owned.
        let Ok(outcome) = retry("reset", self.failover / 4, request).await else {
            return;
        };
        match row(outcome) {
            Some(row) if self.owns(&row) => self.renewed(row, Some(before)),
            _ => self.lose(&held.key),
        }
    }

    /// Records a held lease as it is now, unless it was released meanwhile.
    fn renewed(&self, row: Row, at: Option<Instant>) {
        if let Some(lease) = self.leases().get_mut(&row.key) {
            lease.renewed = at.unwrap_or(lease.renewed);
            lease.row = row;
        }
    }

    fn due(&self) -> Vec<Row> {
        let leases = self.leases();
        let due = leases
            .values()
            .filter(|lease| lease.renewed.elapsed() >= self.interval());
        due.map(|lease| lease.row.clone()).collect()
    }

    fn next_renewal(&self) -> Instant {
        let now = Instant::now();
        let leases = self.leases();
        let first = leases.values().map(|lease| lease.renewed).min();
        (first.unwrap_or(now) + self.interval()).max(now + PAUSE)
    }

    fn interval(&self) -> Duration {
        self.failover / 3
    }

    fn leases(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the row that a change has shown.
fn row(outcome: Outcome) -> Option<Row> {
    let (Outcome::Applied(item) | Outcome::Refused(Some(item))) = outcome else {
        return None;
    };
    Row::read(&item).ok()
}
