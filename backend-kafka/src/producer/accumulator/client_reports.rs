//! Collects the delivery reports of one client, until the accumulator processes them.
//!
//! The thread that serves the reports owns this value, so the report of a stored record takes no lock.

use std::mem;
use std::sync::Arc;

use millstream_core::Error;

use super::collateral::CollateralRecords;
use crate::native::delivery::{Batch, Disposition, Report};
use crate::producer::batch_limit::BatchLimit;
use crate::producer::delivery_errors::{is_unknown_topic, is_unsent};

pub(in crate::producer) struct ClientReports {
    /// The size limit of the client's batches.
    limit: BatchLimit,
    /// The number of reported records of each partition queue. Mostly of one queue, as a request is for one
    /// partition.
    pub(super) reported: Vec<(usize, usize)>,
    pub(super) highest_partition: i32,
    /// Whether any record was stored.
    pub(super) any_stored: bool,
    /// Batches with records that were not sent.
    pub(super) unsent: Vec<Arc<Batch>>,
    pub(super) unknown_topic: Vec<RejectedRecord>,
    pub(super) collateral: CollateralRecords,
}

/// A record that has no result yet, and the report that is its result if it cannot be sent again.
pub(super) struct RejectedRecord {
    pub(super) batch: Arc<Batch>,
    pub(super) index: usize,
    pub(super) report: Report,
}

impl ClientReports {
    /// Creates an empty collection. `limit` is the size limit of the client's batches.
    pub(in crate::producer) fn new(limit: BatchLimit) -> Self {
        Self {
            limit,
            reported: Vec::new(),
            highest_partition: 0,
            any_stored: false,
            unsent: Vec::new(),
            unknown_topic: Vec::new(),
            collateral: CollateralRecords::default(),
        }
    }

    /// Handles a report. `rejection` is the result of records that were not sent. Without it, they are sent again.
    pub(in crate::producer) fn on_report(
        &mut self,
        batch: &Arc<Batch>,
        index: usize,
        report: Report,
        rejection: Option<&Error>,
    ) -> Disposition {
        self.count(batch, index, report);
        match rejection {
            Some(error) if is_unsent(report) => batch.give_up(index, error),
            None if is_unsent(report) => {
                if !self.unsent.last().is_some_and(|b| Arc::ptr_eq(b, batch)) {
                    self.unsent.push(batch.clone());
                }
                return Disposition::Open;
            }
            None if self.collateral.keep(batch, index, report, self.limit) => {
                return Disposition::Open;
            }
            _ if is_unknown_topic(report) => {
                self.unknown_topic.push(RejectedRecord {
                    batch: batch.clone(),
                    index,
                    report,
                });
                return Disposition::Open;
            }
            _ => batch.report(index, report),
        }
        Disposition::Answered
    }

    fn count(&mut self, batch: &Batch, index: usize, report: Report) {
        if let Report::Stored { partition, .. } = report {
            self.highest_partition = self.highest_partition.max(partition);
            self.any_stored = true;
        }
        let Some(queue) = batch.partition_queue(index) else {
            return;
        };
        match self.reported.last_mut() {
            Some((last, count)) if *last == queue => *count += 1,
            _ => self.reported.push((queue, 1)),
        }
    }

    /// Discards the counts. The counts of a detached client no longer matter.
    pub(in crate::producer) fn discard_counts(&mut self) {
        self.reported.clear();
        self.any_stored = false;
    }

    /// Returns whether records were returned that may be sent again.
    pub(in crate::producer) fn has_returned(&self) -> bool {
        !self.unsent.is_empty() || !self.unknown_topic.is_empty()
    }

    /// Returns whether records were returned that must be sent in smaller batches.
    pub(in crate::producer) fn needs_smaller_batches(&self) -> bool {
        self.collateral.needs_smaller_batches()
    }

    pub(super) fn take_any_stored(&mut self) -> bool {
        mem::take(&mut self.any_stored)
    }
}
