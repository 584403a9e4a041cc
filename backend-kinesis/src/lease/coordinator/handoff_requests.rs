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
const POLL_INTERVAL: Duration = Duration::from_millis(150);

/// With more open requests than this, one scan is cheaper than reading each lease.
const MANY: usize = 10;

/// The open requests.
#[derive(Debug, Default)]
pub(super) struct HandoffRequests {
    open: BTreeMap<Arc<str>, HandoffRequest>,
    poll_at: Option<Instant>,
}

/// One request for a lease.
#[derive(Debug)]
struct HandoffRequest {
    /// The owner must have handed over by then.
    overdue: Instant,
    /// Whether the request is stored in the lease.
    is_stored: bool,
}

impl HandoffRequests {
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
        self.poll_at.filter(|_| !self.is_empty())
    }
}

impl LeaseCoordinator {
    pub(super) fn request(&mut self, key: Arc<str>, now: Instant) {
        let owner = self.view.get(&key).and_then(|seen| seen.row.owner.clone());
        let Some(owner) = owner else {
            return;
        };
        let overdue = now + self.options.drain + self.options.failover;
        let request = HandoffRequest {
            overdue,
            is_stored: false,
        };
        self.requests.open.insert(key.clone(), request);
        let update = change::request(&owner, self.me());
        let table = self.table.clone();
        self.run_concurrently(async move {
            let attempt = table.change(&key, &update).await;
            move |coordinator: &mut Self| coordinator.on_requested(&key, attempt)
        });
    }

    fn on_requested(&mut self, key: &Arc<str>, attempt: Result<WriteOutcome, (Instant, Error)>) {
        let now = Instant::now();
        self.requests.poll_at = Some(now + POLL_INTERVAL);
        match attempt {
            Ok(WriteOutcome { row: Some(row), .. }) => {
                if let Some(request) = self.requests.open.get_mut(key) {
                    request.is_stored = true;
                }
                self.observe_row(row);
                self.close_requests(now);
            }
            Ok(_) => {
                self.requests.remove(key);
                self.view.forget(key);
            }
            Err((_, error)) => {
                self.requests.remove(key);
                self.schedule.decide_later(now);
                self.on_table_error(&error);
            }
        }
    }

    /// Polls the requested leases, and takes those whose owners did not hand over in time.
    pub(super) fn poll_requests(&mut self, now: Instant) {
        if self.requests.due().is_none_or(|time| time > now) {
            return;
        }
        let overdue = self
            .requests
            .open
            .iter_mut()
            .filter(|(_, request)| request.overdue <= now);
        let mut stolen = Vec::new();
        for (key, request) in overdue {
            request.overdue = now + self.options.failover / 3;
            stolen.push(key.clone());
        }
        for key in stolen {
            self.take(key, true);
        }
        self.requests.poll_at = None;
        if self.requests.open.len() > MANY {
            // Continued after the scan.
            return self.schedule.scan_within(now, Duration::ZERO);
        }
        let keys: Vec<_> = self.requests.open.keys().cloned().collect();
        let table = self.table.clone();
        self.run_concurrently(async move {
            let rows = join_all(keys.iter().map(|key| table.get(key))).await;
            move |coordinator: &mut Self| {
                for row in rows.into_iter().flatten().flatten() {
                    coordinator.observe_row(row);
                }
                coordinator.close_requests(Instant::now());
            }
        });
    }

    /// Closes the requests that were granted or have failed.
    pub(super) fn close_requests(&mut self, now: Instant) {
        let me = self.options.id.clone();
        let view = &self.view;
        let before = self.requests.open.len();
        // Any taker of a lease removes the request, and would need a new one.
        let stands = |row: &Row| row.own.requester.as_ref() == Some(&me) && row.can_be_requested();
        self.requests.open.retain(|key, request| {
            let row = view.get(key).map(|seen| &seen.row);
            !request.is_stored || row.is_some_and(stands)
        });
        if self.requests.open.len() < before {
            self.schedule.decide_at(now);
        }
        self.requests.poll_at = Some(now + POLL_INTERVAL);
    }

    /// Withdraws all requests.
    pub(super) fn withdraw_requests(&mut self) {
        for key in std::mem::take(&mut self.requests.open).into_keys() {
            if let Some(leaving) = &mut self.leaving {
                leaving.open += 1;
            }
            let update = change::withdraw(self.me());
            let table = self.table.clone();
            self.run_concurrently(async move {
                // If this fails, the lease is handed over, expires, and is taken by others.
                let _ = table.change(&key, &update).await;
                |coordinator: &mut Self| coordinator.on_request_finished()
            });
        }
    }
}
