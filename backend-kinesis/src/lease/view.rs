//! The member's view of the table, and its age: the base of all its decisions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::row::Row;

/// A lease as it was last seen.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) row: Row,
    /// When its counter was first seen with this value, by this member's clock. The owner has not renewed it
    /// since, but may have done so just before. So the failover time counts from here.
    pub(crate) since: Instant,
    /// When it was last seen with this value.
    pub(crate) last_seen: Instant,
}

/// The leases of the member's streams.
#[derive(Debug)]
pub(crate) struct View {
    leases: BTreeMap<Arc<str>, Seen>,
    failover: Duration,
}

impl Seen {
    pub(crate) fn is_older(&self, than: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= than
    }

    /// Returns whether it was seen again when its owner should have renewed it. Before that, only this member's
    /// own scans may be late.
    pub(crate) fn is_silent(&self, renewal: Duration) -> bool {
        self.last_seen.saturating_duration_since(self.since) >= renewal
    }
}

impl View {
    pub(crate) fn new(failover: Duration) -> Self {
        Self {
            leases: BTreeMap::new(),
            failover,
        }
    }

    /// Records a whole scan. Rows that it does not contain are forgotten.
    pub(crate) fn record_scan(&mut self, rows: Vec<Row>, now: Instant) {
        let mut before = std::mem::take(&mut self.leases);
        for row in rows {
            if let Some((key, seen)) = before.remove_entry(&row.key) {
                self.leases.insert(key, seen);
            }
            self.record(row, now);
        }
    }

    /// Records one row.
    pub(crate) fn record(&mut self, row: Row, now: Instant) {
        let Some(seen) = self.leases.get_mut(&row.key) else {
            let key = row.key.clone();
            let seen = Seen {
                row,
                since: now,
                last_seen: now,
            };
            self.leases.insert(key, seen);
            return;
        };
        // A scan may be slightly outdated. A counter that stays smaller belongs to a row that was
        // deleted and created again.
        if row.counter < seen.row.counter && !seen.is_older(self.failover, now) {
            return;
        }
        if row.counter != seen.row.counter {
            seen.since = now;
        }
        seen.last_seen = now;
        seen.row = row;
    }

    pub(crate) fn forget(&mut self, key: &str) {
        self.leases.remove(key);
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Seen> {
        self.leases.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Seen)> {
        self.leases.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }
}
