//! Scans of the whole table.

use std::time::Duration;

use millstream_core::telemetry::{Causes, event};
use millstream_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, timeout};

use super::LeaseCoordinator;
use super::schedule::Interval;
use super::taking::VERY_OLD;
use crate::config::LeaseKeys;
use crate::lease::bootstrap;
use crate::lease::key::KeyForm;
use crate::lease::row::{Row, Unread, names};
use crate::lease::store::Item;
use crate::lease::view::Seen;

/// The timeout of a scan.
const PATIENCE: Duration = Duration::from_secs(60);

impl LeaseCoordinator {
    pub(super) fn scan(&mut self) {
        self.schedule.scan = None;
        let store = self.table.store.clone();
        let begun = Instant::now();
        self.run_concurrently(async move {
            let items = timeout(PATIENCE, store.scan(false)).await;
            let items = items.unwrap_or_else(|_| {
                let message = "the table could not be read within a minute";
                Err(Error::new(ErrorKind::Timeout, "lease", message))
            });
            move |coordinator: &mut Self| {
                if items.is_ok() {
                    coordinator.claims.scanned(begun);
                }
                coordinator.on_scanned(items);
            }
        });
    }

    /// Handles the result of a scan.
    pub(super) fn on_scanned(&mut self, items: Result<Vec<Item>>) {
        let now = Instant::now();
        let items = match items {
            Ok(items) => items,
            Err(error) => {
                event!(
                    debug, "millstream.kinesis.lease.unread", group = %self.options.group,
                    error = %Causes(&error), "the leases could not be read"
                );
                self.schedule.scan_later(now);
                self.on_scan_failed(now);
                return self.on_table_error(&error);
            }
        };
        self.trouble = None;
        let rows = self.read(&items);
        if let Err(error) = bootstrap::identify(&self.streams, self.options.keys, &rows) {
            return self.fail(error);
        }
        let owners = rows.iter().filter_map(|row| row.owner.clone());
        self.owners = owners.collect();
        let ours = |row: &Row| self.streams.parse(&row.key).is_some();
        let rows: Vec<Row> = rows.into_iter().filter(ours).collect();
        self.view.record_scan(rows, now);
        let view = &self.view;
        let row = |key: &str| view.get(key).map(|seen| &seen.row);
        self.renewer.observe(row, now);
        self.check_all_parents();
        self.on_renewer_events();
        self.close_requests(now);
        self.schedule.decide_at(now);
        self.audit_if_due();
        let interval = self.interval(now, items.len());
        self.schedule.scan_again(now, interval);
        self.rescan_if_stale(now);
    }

    /// Returns how long to wait for the next scan.
    fn interval(&self, now: Instant, rows: usize) -> Interval {
        let is_alone = self.view.len() > 0 && self.view.len() == self.renewer.len();
        let very_old = self.options.failover * VERY_OLD;
        // Its new owner takes it soon.
        let is_free = |seen: &Seen| seen.row.holder().is_none() && !seen.is_older(very_old, now);
        let is_restless = self.schedule.expects_changes(now)
            // A member without a lease cannot be notified.
            || self.renewer.is_empty()
            || !self.requests.is_empty()
            || self.waits_for_java()
            || self.view.iter().any(|(_, seen)| is_free(seen));
        match (is_restless, is_alone) {
            (true, _) => Interval::Restless { rows },
            (false, true) => Interval::Alone,
            (false, false) => Interval::Quiet { rows },
        }
    }

    /// Returns whether a lease waits for a parent whose owner does not notify others at shard end.
    fn waits_for_java(&self) -> bool {
        let blocked = self.renewer.blocked();
        let parents = blocked.flat_map(|lease| self.keys_of(lease.lease, lease.parents));
        let mut parents = parents.filter_map(|key| self.view.get(&key));
        parents.any(|parent| !parent.row.is_ended() && !parent.row.can_be_requested())
    }

    /// Returns the leases among the rows. Others are passed over: whoever wrote them, this member goes on.
    fn read(&mut self, items: &[Item]) -> Vec<Row> {
        let mut rows = Vec::with_capacity(items.len());
        for item in items {
            match Row::read(item) {
                Ok(row) if self.streams.has_form(KeyForm::of(&row.key)) => rows.push(row),
                // It is of a stream that is not read here: each stream keeps the format of its keys.
                Ok(_) if self.options.keys == LeaseKeys::Auto => {}
                Ok(row) => {
                    self.pass_over(&row.key, "it is a lease of another form than `leases.keys`")
                }
                Err(Unread::Other) => {}
                Err(Unread::Lacks(attribute)) => {
                    let key = item.get(names::KEY).and_then(|key| key.as_s().ok());
                    let key = key.map_or("", String::as_str);
                    self.pass_over(
                        key,
                        &format!("it has no attribute {attribute} that can be read"),
                    );
                }
            }
        }
        rows
    }

    fn pass_over(&mut self, row: &str, reason: &str) {
        if self.passed_over.insert(row.into()) {
            event!(
                warn, "millstream.kinesis.lease.skipped_row",
                group = %self.options.group, table = self.table.store.table(), row, reason,
                "a row of the table of leases is passed over: if it is a lease, nobody reads its shard"
            );
        }
    }

    /// Records one row as it is now.
    pub(super) fn observe_row(&mut self, row: Row) {
        let now = Instant::now();
        if row.owner.as_ref() != Some(self.me()) {
            self.schedule.decide_at(now);
        }
        self.view.record(row, now);
    }
}
