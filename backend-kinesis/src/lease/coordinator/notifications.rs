//! Notifies other members, so that they scan the table. They then see changes at once that they would otherwise see at their
//! next scan, and so need not scan often.
//!
//! Only members that may have something to do are notified: the owner of a lease that others have unblocked, and those
//! that are preferred for a free lease. If all were, a reshard of a large group would write more notifications than renewals.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::LeaseCoordinator;
use crate::lease::change;
use crate::lease::row::Row;
use crate::lease::table::Table;
use crate::lease::taker::preferred;

/// The number of a member's leases that are marked. The member notices the mark when it renews the first of them.
const LEASES: usize = 4;

/// The maximum number of leases that are marked at once. If many members are notified, fewer leases of each are marked.
const MARKS: usize = 64;

/// The number of members that are notified of a free lease: one of them may be unable to take it.
const TAKERS: usize = 2;

/// The maximum duration of a notification. After it, the others must find out by their own scans.
const PATIENCE: Duration = Duration::from_secs(1);

impl LeaseCoordinator {
    /// Notifies the other members whom these leases concern, at once or together with the next allowed notification.
    pub(super) fn notify_about(&mut self, leases: impl IntoIterator<Item = Arc<str>>) {
        self.changed.extend(leases);
        self.schedule.notify_soon(Instant::now());
    }

    /// Notifies the other members, if it is due.
    pub(super) fn notify_if_due(&mut self, now: Instant) {
        if self.schedule.notify.is_some_and(|time| time <= now) {
            self.schedule.notified(now);
            let notifications = self.notifications();
            self.run_concurrently(async move {
                notifications.await;
                |_: &mut Self| {}
            });
        }
    }

    /// Notifies the members whom the changed leases concern.
    pub(super) fn notifications(&mut self) -> impl Future<Output = ()> + Send + 'static {
        let mark = self.random.u64(..);
        let changed = std::mem::take(&mut self.changed);
        let rows = self.rows_to_mark(&changed);
        let (table, me) = (self.table.clone(), self.me().clone());
        async move {
            let notifications = rows.iter().map(|row| notify(&table, row, &me, mark));
            // A member that is not notified finds out by its own scan.
            let _ = timeout(PATIENCE, join_all(notifications)).await;
        }
    }

    /// Returns the leases that are marked: some of each member whom the changed leases concern.
    fn rows_to_mark(&self, changed: &BTreeSet<Arc<str>>) -> Vec<Row> {
        let mut workers = BTreeSet::new();
        let mut members: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
        for (_, seen) in self.view.iter() {
            let Some(owner) = &seen.row.owner else {
                continue;
            };
            workers.insert(owner);
            if owner != self.me() && seen.row.can_be_requested() {
                members.entry(owner).or_default().push(&seen.row);
            }
        }
        let target = self.view.len().div_ceil(workers.len().max(1));
        let lacking = members.iter().filter(|(_, rows)| rows.len() < target);
        let lacking: Vec<&str> = lacking.map(|(id, _)| *id).collect();
        let mut concerned = BTreeSet::new();
        for key in changed {
            let owner = self
                .view
                .get(key)
                .and_then(|seen| seen.row.owner.as_deref());
            match owner {
                Some(owner) => concerned.extend([owner]),
                None => concerned.extend(preferred(&lacking, key, TAKERS)),
            }
        }
        members.retain(|id, _| concerned.contains(id));
        let of_each = (MARKS / members.len().max(1)).clamp(1, LEASES);
        let rows = members.into_values().take(MARKS).flat_map(|rows| {
            // They are renewed in this order, so these renewals are far apart in time.
            let apart = rows.len().div_ceil(of_each);
            rows.into_iter().step_by(apart)
        });
        rows.cloned().collect()
    }

    /// Handles a notification: scans at once, and again soon, because the sender may do more, and other members
    /// were notified too.
    pub(super) fn on_notified(&mut self, now: Instant) {
        self.schedule.expect_changes(now);
        self.schedule.scan_now(now);
    }
}

/// Notifies the owner of one lease, or, if the owner has changed, the new one.
async fn notify(table: &Table, row: &Row, me: &Arc<str>, mark: u64) {
    let mut owner = row.owner.clone();
    for _ in 0..2 {
        let Some(id) = owner.filter(|id| id != me) else {
            return;
        };
        match table.change(&row.key, &change::notify(&id, mark)).await {
            Ok(attempt) if !attempt.applied => {
                let row = attempt.row.filter(Row::can_be_requested);
                owner = row.and_then(|row| row.owner);
            }
            _ => return,
        }
    }
}
