//! Nudges other members to scan the table. They then see changes at once that they would otherwise see at their
//! next scan, and so need not scan often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

use super::Member;
use super::attempt::Table;
use crate::lease::change;
use crate::lease::row::Row;

/// The number of a member's leases that are marked. The member notices the mark when it renews the first of them.
const LEASES: usize = 4;

/// The maximum duration of a nudge. After it, the others must find out by their own scans.
const PATIENCE: Duration = Duration::from_secs(1);

impl Member {
    /// Nudges the other members, if it is due.
    pub(super) fn nudge_if_due(&mut self, now: Instant) {
        if self.schedule.nudge.is_some_and(|time| time <= now) {
            self.schedule.nudged(now);
            let nudges = self.nudges();
            self.fly(async move {
                nudges.await;
                |_: &mut Self| {}
            });
        }
    }

    /// Nudges all other known members that support it.
    pub(super) fn nudges(&mut self) -> impl Future<Output = ()> + Send + 'static {
        let mark = self.random.u64(..);
        let mut owned: BTreeMap<&Arc<str>, Vec<&Row>> = BTreeMap::new();
        for (_, seen) in self.view.iter() {
            if let Some(owner) = &seen.row.owner
                && owner != self.me()
                && seen.row.can_be_asked()
            {
                owned.entry(owner).or_default().push(&seen.row);
            }
        }
        let mut rows = Vec::new();
        for of_one in owned.into_values() {
            // They are renewed in this order, so these renewals are far apart in time.
            let apart = of_one.len().div_ceil(LEASES);
            rows.extend(of_one.into_iter().step_by(apart).cloned());
        }
        let (table, me) = (self.table.clone(), self.me().clone());
        async move {
            let nudges = rows.iter().map(|row| nudge(&table, row, &me, mark));
            // A member without a nudge finds out by its own scan.
            let _ = timeout(PATIENCE, join_all(nudges)).await;
        }
    }

    /// Handles a nudge: scans at once, and again soon, because the sender may do more, and other members
    /// were nudged too.
    pub(super) fn nudged(&mut self, now: Instant) {
        self.schedule.expect_changes(now);
        self.schedule.scan_now(now);
    }
}

/// Nudges the owner of one lease, or, if the owner has changed, the new one.
async fn nudge(table: &Table, row: &Row, me: &Arc<str>, mark: u64) {
    let mut owner = row.owner.clone();
    for _ in 0..2 {
        let Some(id) = owner.filter(|id| id != me) else {
            return;
        };
        match table.change(&row.key, &change::nudge(&id, mark)).await {
            Ok(attempt) if !attempt.applied => {
                let row = attempt.row.filter(Row::can_be_asked);
                owner = row.and_then(|row| row.owner);
            }
            _ => return,
        }
    }
}
