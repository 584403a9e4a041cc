//! Maintenance for the whole group. The elected leader creates missing leases (shard sync), the holders delete leases
//! at shard end, and every member checks whether the streams and the fleet have changed.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::telemetry::{Causes, event};
use millstream_core::{Error, ErrorKind, Result};
use tokio::time::Instant;

use super::LeaseCoordinator;
use crate::lease::key::Stream;
use crate::lease::row::Row;
use crate::lease::shards::{self, Created, known};
use crate::lease::{bootstrap, change, cleanup, election};

impl LeaseCoordinator {
    pub(super) fn maintain(&mut self, now: Instant) {
        if self.schedule.audit <= now {
            self.schedule.audit_again(now);
            // The audit uses the result of the scan.
            self.auditing = true;
            self.schedule.scan_within(now, Duration::ZERO);
        }
        if self.schedule.cleanup <= now {
            self.schedule.clean_again(now);
            if self.options.cleanup {
                self.clean();
            }
        }
        if self.schedule.check <= now {
            let is_leader = self.is_leader();
            if self.schedule.check_again(now, is_leader) {
                self.check();
            }
        }
    }

    fn is_leader(&self) -> bool {
        election::is_elected(self.owners.iter().map(|id| &**id), &self.options.id)
    }

    /// Audits the leases for missing ones, if it is due and this member is the leader.
    pub(super) fn audit_if_due(&mut self) {
        if !std::mem::take(&mut self.auditing) || self.leaving.is_some() {
            return;
        }
        if !self.is_leader() {
            return;
        }
        let streams: Vec<Stream> = self.streams.iter().cloned().collect();
        for stream in streams {
            let rows = self.rows_of(&stream);
            if rows.iter().any(|row| row.range.is_none()) {
                self.fill_ranges(stream);
            } else if self.audit.finds(&stream.name, &rows) {
                self.sync(&stream.name);
            }
        }
    }

    /// Runs a shard sync of a stream: creates the leases that it lacks.
    pub(super) fn sync(&mut self, name: &str) {
        let Some(stream) = self.streams.get(name).cloned() else {
            return;
        };
        let rows = self.rows_of(&stream);
        let known = known(&stream, &rows);
        let (store, source) = (self.table.store.clone(), self.options.source.clone());
        let start = self.options.start;
        self.run_concurrently(async move {
            let created = shards::sync(&*store, &*source, &stream, &known, start).await;
            move |coordinator: &mut Self| coordinator.synced(stream, created)
        });
    }

    fn synced(&mut self, stream: Stream, created: Result<Created>) {
        match created {
            Ok(created) => {
                self.shards.insert(stream.name, created.shards);
                if !created.rows.is_empty() {
                    self.notify_about(created.rows.iter().map(|row| row.key.clone()));
                }
                for row in created.rows {
                    self.observe_row(row);
                }
            }
            Err(error) => self.log_failure(&error, "the leases of a stream were not synced"),
        }
    }

    /// Adds the ranges that rows lack, so that the next audit can check them.
    fn fill_ranges(&mut self, stream: Stream) {
        let rows = self.rows_of(&stream);
        let lacking = rows.into_iter().filter(|row| row.range.is_none());
        let lacking: Vec<Arc<str>> = lacking.map(|row| row.key).collect();
        let (table, source) = (self.table.clone(), self.options.source.clone());
        self.run_concurrently(async move {
            let filled: Result<Vec<Row>> = async {
                let shards = source.shards(&stream.name).await?;
                let mut rows = Vec::new();
                for shard in shards {
                    let key = stream.key(&shard.id);
                    if lacking.contains(&key) {
                        let update = change::range(shard.range.first, shard.range.last);
                        let attempt = table.change(&key, &update).await;
                        rows.extend(attempt.map_err(|(_, error)| error)?.row);
                    }
                }
                Ok(rows)
            }
            .await;
            move |coordinator: &mut Self| match filled {
                Ok(rows) => rows
                    .into_iter()
                    .for_each(|row| coordinator.observe_row(row)),
                Err(error) => coordinator.log_failure(&error, "ranges of leases were not added"),
            }
        });
    }

    fn rows_of(&self, stream: &Stream) -> Vec<Row> {
        let of_stream = |row: &&Row| {
            let lease = self.streams.parse(&row.key);
            lease.is_some_and(|lease| lease.stream == stream.name)
        };
        let rows = self.view.iter().map(|(_, seen)| &seen.row);
        rows.filter(of_stream).cloned().collect()
    }

    /// Deletes held leases that are no longer needed.
    fn clean(&mut self) {
        let ended = self.renewer.ended();
        let ended: Vec<_> = ended
            .map(|(lease, row)| (lease.clone(), row.clone()))
            .collect();
        for (lease, row) in ended {
            let Some(stream) = self.streams.get(&lease.stream).cloned() else {
                continue;
            };
            let (store, source) = (self.table.store.clone(), self.options.source.clone());
            let me = self.options.id.clone();
            self.run_concurrently(async move {
                let deleted = cleanup::clean(&*store, &*source, &stream, &lease, &row, &me).await;
                move |coordinator: &mut Self| match deleted {
                    Ok(true) => {
                        coordinator.renewer.forget(&row.key);
                        coordinator.view.forget(&row.key);
                        // The deletion of the parents' rows unblocks the children.
                        coordinator.check_all_parents();
                    }
                    Ok(false) => {}
                    Err(error) => {
                        coordinator.log_failure(&error, "a finished lease was not deleted")
                    }
                }
            });
        }
    }

    /// Checks whether the streams and the fleet have changed.
    fn check(&mut self) {
        let (store, source) = (self.table.store.clone(), self.options.source.clone());
        let streams: Vec<Stream> = self.streams.iter().cloned().collect();
        self.run_concurrently(async move {
            let mut described = Vec::new();
            let checked: Result<()> = async {
                bootstrap::refuse_native(&*store).await?;
                for stream in &streams {
                    let info = source.info(&stream.name).await?;
                    bootstrap::same_stream(stream, &info)?;
                    described.push(info);
                }
                Ok(())
            }
            .await;
            move |coordinator: &mut Self| {
                for info in described {
                    coordinator.on_described(info);
                }
                if let Err(error) = checked {
                    match error.kind() {
                        ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Unsupported => {
                            coordinator.fail(error);
                        }
                        _ => coordinator.log_failure(&error, "the streams could not be described"),
                    }
                }
            }
        });
    }

    fn log_failure(&mut self, error: &Error, what: &'static str) {
        event!(
            debug, "millstream.kinesis.lease.upkeep_failed", group = %self.options.group,
            error = %Causes(error), "{what}"
        );
    }
}
