//! Checkpoints: when they are due, and their results.
//!
//! At most one call is in flight. It has the progress of all partitions that moved since the last
//! one, so the cost depends on time and not on the number of records.

use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::transaction::Transaction;
use super::{Member, RETRY};
use crate::consumer::runtime::assignment::Assignment;
use crate::consumer::runtime::handler::Handler;
use crate::driver::CheckpointUpdate;
use crate::telemetry::{Causes, event};
use crate::{Error, ErrorKind, Result};

/// The result of a checkpoint call.
pub(super) enum CheckpointResult {
    /// Only progress: the updates and the result of each.
    Alone(Vec<CheckpointUpdate>, Vec<Result<()>>),
    /// Progress and output: one result for all.
    Published(Transaction, Result<()>),
}

/// The checkpoints of one member.
pub(super) struct Checkpointer {
    /// How often a checkpoint is due.
    interval: Duration,
    /// When the next checkpoint is due, if anything is dirty.
    due: Instant,
    /// Assignments whose watermark may have moved since their last checkpoint, each once.
    dirty: Vec<usize>,
    /// Records settled since the last call.
    settled: u64,
    /// Output records buffered since the last call.
    buffered: u64,
    /// Whether a leaving partition waits for its checkpoint.
    urgent: bool,
    /// Whether the last call failed. The next one then waits until it is due, even if it is urgent.
    failed: bool,
    /// Why the last failed call has failed.
    last_error: Option<Error>,
    /// Whether the next call is for a part of a refused transaction, if there is one.
    part_first: bool,
    under_way: Option<BoxFuture<'static, CheckpointResult>>,
}

impl Checkpointer {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            due: Instant::now() + interval,
            dirty: Vec::new(),
            settled: 0,
            buffered: 0,
            urgent: false,
            failed: false,
            last_error: None,
            part_first: false,
            under_way: None,
        }
    }

    /// Returns when a checkpoint is due without another event.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.under_way.is_none() && !self.dirty.is_empty()).then_some(self.due)
    }

    /// Counts settled records, and includes their partition in the next checkpoint.
    pub(super) fn settled(&mut self, assignment: &mut Assignment, index: usize, records: u64) {
        self.settled += records;
        if !std::mem::replace(&mut assignment.dirty, true) {
            self.dirty.push(index);
        }
    }

    /// Counts output records that wait for the next call.
    pub(super) fn buffered(&mut self, records: u64) {
        self.buffered += records;
    }

    /// Drops a call that is in flight.
    pub(super) fn abandon(&mut self) {
        self.under_way = None;
    }

    /// Requests a checkpoint as soon as none is in flight.
    pub(super) fn request_now(&mut self) {
        self.urgent = true;
    }

    /// Returns the error of the last failed call.
    pub(super) fn take_last_error(&mut self) -> Option<Error> {
        self.last_error.take()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_none()
    }
}

fn missing_result() -> Error {
    let message = "the driver returned no result for this partition";
    Error::new(ErrorKind::Unavailable, "checkpoint", message)
}

impl<W: Handler> Member<W> {
    pub(super) fn poll_checkpoint(&mut self, cx: &mut Context<'_>) -> bool {
        self.begin_checkpoint();
        let Some(call) = &mut self.checkpointer.under_way else {
            return false;
        };
        let Poll::Ready(stored) = call.as_mut().poll(cx) else {
            return false;
        };
        self.checkpointer.under_way = None;
        match stored {
            CheckpointResult::Alone(updates, results) => {
                let mut results = results.into_iter();
                for update in &updates {
                    // An update without a result is not stored.
                    match results.next().unwrap_or_else(|| Err(missing_result())) {
                        Ok(()) => self.on_checkpointed(update),
                        Err(error) => {
                            self.on_checkpoint_failed(std::slice::from_ref(update), error)
                        }
                    }
                }
            }
            CheckpointResult::Published(transaction, result) => {
                self.on_published(transaction, result)
            }
        }
        true
    }

    /// Begins a call, if none is in flight and one is due. Whole checkpoints and the parts of refused
    /// transactions take turns, so that neither delays the other.
    fn begin_checkpoint(&mut self) {
        if self.checkpointer.under_way.is_some() || self.membership_lost {
            return;
        }
        let part_first = self.checkpointer.part_first;
        let mut call = match part_first {
            true => self.begin_part(),
            false => self.begin_due(),
        };
        match call {
            Some(_) => self.checkpointer.part_first = !part_first,
            // The turn is kept: after a failure neither may be due yet.
            None if part_first => call = self.begin_due(),
            None => call = self.begin_part(),
        }
        self.checkpointer.under_way = call;
    }

    /// Begins to publish a part of a refused transaction. It is due at once.
    fn begin_part(&mut self) -> Option<BoxFuture<'static, CheckpointResult>> {
        if self.checkpointer.failed && self.checkpointer.due > self.now {
            return None;
        }
        let transaction = self.part_of_refused()?;
        self.checkpointer.failed = false;
        Some(self.publish(transaction))
    }

    fn publish(&self, transaction: Transaction) -> BoxFuture<'static, CheckpointResult> {
        let membership = self.membership.clone();
        let stream = self.handler.output_stream().cloned();
        let stream = stream.expect("a handler with output has a stream for it");
        Box::pin(async move {
            let result = transaction.publish(&*membership, &stream).await;
            CheckpointResult::Published(transaction, result)
        })
    }

    /// Begins a checkpoint, if one is due.
    fn begin_due(&mut self) -> Option<BoxFuture<'static, CheckpointResult>> {
        let stalled = self.is_stalled();
        let last = self.closing.is_some() && self.under_way() == 0;
        let checkpointer = &mut self.checkpointer;
        let enough = self.options.checkpoint_records;
        let early = last
            || checkpointer.urgent
            || checkpointer.settled >= enough
            || checkpointer.buffered >= enough
            || stalled;
        let due = (early && !checkpointer.failed) || checkpointer.due <= self.now;
        if !due || checkpointer.dirty.is_empty() {
            return None;
        }
        checkpointer.due = self.now + checkpointer.interval;
        checkpointer.settled = 0;
        checkpointer.buffered = 0;
        checkpointer.urgent = false;
        checkpointer.failed = false;
        let mut updates = Vec::with_capacity(checkpointer.dirty.len());
        let assignments = &mut self.assignments;
        checkpointer.dirty.retain(|index| {
            let Some(assignment) = assignments.get_mut(*index) else {
                return false;
            };
            if assignment.is_suspect && assignment.refused.is_none() {
                // Its progress is stored with its parts.
                return assignment.dirty;
            }
            if std::mem::take(&mut assignment.dirty) {
                updates.extend(assignment.next_update());
            }
            false
        });
        if updates.is_empty() {
            return None;
        }
        if self.handler.output_stream().is_some() {
            let transaction = self.transaction(updates);
            return Some(self.publish(transaction));
        }
        let membership = self.membership.clone();
        Some(Box::pin(async move {
            let results = membership.checkpoint(&updates).await;
            CheckpointResult::Alone(updates, results)
        }))
    }

    pub(super) fn on_checkpointed(&mut self, update: &CheckpointUpdate) {
        let Some(index) = self.assignment_of(&update.partition, update.epoch) else {
            return;
        };
        self.control.counters.checkpoints.add(1);
        event!(
            debug, "millstream.consumer.checkpointed", group = %self.group,
            partition = %update.partition, epoch = %update.epoch, position = %update.position,
            "checkpointed"
        );
        self.assignments[index].stored = Some(update.position);
        self.check_release(index);
    }

    /// Handles checkpoint updates that were not stored. Partitions that are no longer owned are
    /// ignored.
    pub(super) fn on_checkpoint_failed(&mut self, updates: &[CheckpointUpdate], error: Error) {
        let mut ends_membership = false;
        for update in updates {
            let Some(index) = self.assignment_of(&update.partition, update.epoch) else {
                continue;
            };
            if error.kind() == ErrorKind::Fenced {
                event!(
                    warn, "millstream.consumer.fenced", group = %self.group,
                    partition = %update.partition, epoch = %update.epoch, error = %Causes(&error),
                    "checkpoint refused: the partition has a newer owner"
                );
                self.on_lost(index);
            } else if error.is_retryable() {
                event!(
                    warn, "millstream.consumer.checkpoint_delayed", group = %self.group,
                    partition = %update.partition, error = %Causes(&error),
                    "checkpoint not stored, the next one includes it"
                );
                self.checkpointer
                    .settled(&mut self.assignments[index], index, 0);
                self.check_release(index);
                self.checkpointer.failed = true;
                self.checkpointer.last_error = Some(error.clone());
                self.checkpointer.due = self.now + RETRY.min(self.checkpointer.interval);
            } else {
                ends_membership = true;
            }
        }
        if ends_membership {
            self.on_fatal(error);
        }
    }

    pub(super) fn on_fatal(&mut self, error: Error) {
        self.membership_lost = true;
        self.fail(error.with_group(self.group.clone()));
    }
}
