//! Requests leases from their owners instead of stealing them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use millstream_core::Error;
use tokio::time::Instant;

use super::LeaseCoordinator;
use crate::lease::change;
use crate::lease::row::Row;
use crate::lease::table::WriteOutcome;

/// The interval at which requested leases are polled. It is the maximum delay that polling adds to a
/// handover.
const LOOK: Duration = Duration::from_millis(150);

/// With more open requests than this, one scan is cheaper than reading each lease.
const MANY: usize = 10;

/// The open requests.
#[derive(Debug, Default)]
pub(super) struct Asks {
    open: BTreeMap<Arc<str>, Ask>,
    look: Option<Instant>,
}

/// One request for a lease.
#[derive(Debug)]
struct Ask {
    /// The owner must have handed over by then.
    overdue: Instant,
    /// Whether the request is stored in the lease.
    heard: bool,
}

impl Asks {
    pub(super) fn has(&self, key: &str) -> bool {
        self.open.contains_key(key)
    }

    pub(super) fn remove(&mut self, key: &str) -> bool {
        self.open.remove(key).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Returns when the requests are polled next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.look.filter(|_| !self.is_empty())
    }
}

impl LeaseCoordinator {
    pub(super) fn ask(&mut self, key: Arc<str>, now: Instant) {
        let owner = self.view.get(&key).and_then(|seen| seen.row.owner.clone());
        let Some(owner) = owner else {
            return;
        };
        let overdue = now + self.options.drain + self.options.failover;
        let ask = Ask {
            overdue,
            heard: false,
        };
        self.asks.open.insert(key.clone(), ask);
        let update = change::ask(&owner, self.me());
        let table = self.table.clone();
        self.fly(async move {
            let attempt = table.change(&key, &update).await;
            move |coordinator: &mut Self| coordinator.asked(&key, attempt)
        });
    }

    fn asked(&mut self, key: &Arc<str>, attempt: Result<WriteOutcome, (Instant, Error)>) {
        let now = Instant::now();
        self.asks.look = Some(now + LOOK);
        match attempt {
            Ok(WriteOutcome { row: Some(row), .. }) => {
                if let Some(ask) = self.asks.open.get_mut(key) {
                    ask.heard = true;
                }
                self.saw(row);
                self.settle_asks(now);
            }
            Ok(_) => {
                self.asks.remove(key);
                self.view.forget(key);
            }
            Err((_, error)) => {
                self.asks.remove(key);
                self.schedule.decide_later(now);
                self.on_table_error(&error);
            }
        }
    }

    /// Polls the requested leases, and takes those whose owners did not hand over in time.
    pub(super) fn tend_asks(&mut self, now: Instant) {
        if self.asks.due().is_none_or(|time| time > now) {
            return;
        }
        let overdue = self
            .asks
            .open
            .iter_mut()
            .filter(|(_, ask)| ask.overdue <= now);
        let mut stolen = Vec::new();
        for (key, ask) in overdue {
            ask.overdue = now + self.options.failover / 3;
            stolen.push(key.clone());
        }
        for key in stolen {
            self.take(key, true);
        }
        self.asks.look = None;
        if self.asks.open.len() > MANY {
            // Continued after the scan.
            return self.schedule.scan_within(now, Duration::ZERO);
        }
        let keys: Vec<_> = self.asks.open.keys().cloned().collect();
        let table = self.table.clone();
        self.fly(async move {
            let rows = join_all(keys.iter().map(|key| table.get(key))).await;
            move |coordinator: &mut Self| {
                for row in rows.into_iter().flatten().flatten() {
                    coordinator.saw(row);
                }
                coordinator.settle_asks(Instant::now());
            }
        });
    }

    /// Closes the requests that were granted or have failed.
    pub(super) fn settle_asks(&mut self, now: Instant) {
        let me = self.options.id.clone();
        let view = &self.view;
        let before = self.asks.open.len();
        // Any taker of a lease removes the request, and would need a new one.
        let stands = |row: &Row| row.own.asker.as_ref() == Some(&me) && row.can_be_asked();
        self.asks.open.retain(|key, ask| {
            let row = view.get(key).map(|seen| &seen.row);
            !ask.heard || row.is_some_and(stands)
        });
        if self.asks.open.len() < before {
            self.schedule.decide_at(now);
        }
        self.asks.look = Some(now + LOOK);
    }

    /// Withdraws all requests.
    pub(super) fn withdraw_asks(&mut self) {
        for key in std::mem::take(&mut self.asks.open).into_keys() {
            if let Some(leaving) = &mut self.leaving {
                leaving.open += 1;
            }
            let update = change::withdraw(self.me());
            let table = self.table.clone();
            self.fly(async move {
                // If this fails, the lease is handed over, expires, and is taken by others.
                let _ = table.change(&key, &update).await;
                |coordinator: &mut Self| coordinator.told()
            });
        }
    }
}
