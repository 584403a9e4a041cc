//! Exactly-once pipelines: output and progress are published in one transaction.
//!
//! The output of a settled record is buffered with its assignment. When a checkpoint is due, the
//! transaction takes the output up to each checkpointed position, and the driver stores both or
//! neither. So no output is visible whose record may be delivered again.
//!
//! Rejected: sending each result at once within an open transaction. That spreads the load, but the
//! output of a record above an unsettled one would become visible with the progress of another
//! partition, and be produced again. One stuck record would delay all partitions.

use super::Member;
use crate::consumer::runtime::bisection::Share;
use crate::consumer::runtime::handler::Handler;
use crate::consumer::runtime::output_buffer::{Origin, Outputs, Size};
use crate::driver::{CheckpointUpdate, Membership};
use crate::{Error, ErrorKind, Record, Result};

/// Output and progress that are stored in one step.
pub(super) struct Transaction {
    updates: Vec<CheckpointUpdate>,
    /// The output of all partitions, one after the other.
    outputs: Outputs,
    /// The number of deliveries with output of each checkpoint update.
    deliveries: Vec<usize>,
    /// Whether it is a part of a refused transaction.
    is_part: bool,
}

impl Transaction {
    pub(super) fn new(is_part: bool) -> Self {
        Self {
            updates: Vec::new(),
            outputs: Outputs::default(),
            deliveries: Vec::new(),
            is_part,
        }
    }

    /// Adds the progress of a partition, and its output up to that progress.
    pub(super) fn add(&mut self, update: CheckpointUpdate, outputs: Outputs) {
        self.updates.push(update);
        self.deliveries.push(outputs.deliveries());
        self.outputs.append(outputs);
    }

    pub(super) async fn publish(&self, membership: &dyn Membership, stream: &str) -> Result<()> {
        let records = self.outputs.records();
        membership.publish(stream, records, &self.updates).await
    }

    /// Divides the output among the partitions.
    fn into_shares(mut self) -> (Vec<CheckpointUpdate>, Vec<Outputs>) {
        let mut shares = Vec::with_capacity(self.updates.len());
        // From the end, so that nothing is moved twice.
        for deliveries in self.deliveries.iter().rev() {
            let before = self.outputs.deliveries() - deliveries;
            shares.push(self.outputs.split_off(before));
        }
        shares.reverse();
        (self.updates, shares)
    }
}

impl<W: Handler> Member<W> {
    /// Buffers the output of a settled delivery. A delivery without output has no `origin`.
    pub(super) fn buffer_output(
        &mut self,
        index: usize,
        origin: Option<Origin>,
        records: Vec<Record>,
    ) {
        if !W::PUBLISHES {
            return;
        }
        let assignment = &mut self.assignments[index];
        let watermark = assignment.window.watermark();
        match origin {
            Some(origin) => {
                self.checkpointer.buffered(records.len() as u64);
                self.buffered_output += assignment.outputs_mut().push(origin, watermark, records);
            }
            None => assignment.outputs_mut().advance(watermark),
        }
    }

    /// Returns whether so much output is buffered that no partition may run ahead.
    ///
    /// The bound is two transactions: one in flight, and one that fills. At the bound a partition still
    /// starts its first unsettled record: if output behind it waits for it, or if all output of the
    /// partition is published, since another partition may fill the buffer.
    pub(super) fn is_stalled(&self) -> bool {
        W::PUBLISHES
            && (self.buffered_output.records >= self.options.checkpoint_records.saturating_mul(2)
                || self.buffered_output.bytes >= self.options.buffer_bytes)
    }

    /// Returns whether a partition may start only its first unsettled record: because the buffer is
    /// full, or because the partition's share of half of it waits for that record, or for a delivery
    /// whose output was refused. A stuck partition leaves the other half to the others.
    pub(super) fn is_limited(&self, index: usize) -> bool {
        if !W::PUBLISHES {
            return false;
        }
        let assignment = &self.assignments[index];
        let waiting = match assignment.is_suspect || assignment.refused.is_some() {
            true => assignment.outputs().size(),
            false => assignment.outputs().out_of_order_size(),
        };
        let partitions = self.assignments.len();
        let records = self.options.checkpoint_records / partitions as u64;
        let bytes = self.options.buffer_bytes / 2 / partitions;
        self.is_stalled() || waiting.records >= records.max(1) || waiting.bytes >= bytes.max(1)
    }

    /// Returns whether no record that starts now can change what a partition waits for: its output
    /// waits for parts of a refused transaction, or for the failure policy. A drain continues: it works
    /// through everything that was begun.
    pub(super) fn waits_to_publish(&self, index: usize) -> bool {
        let assignment = &self.assignments[index];
        W::PUBLISHES
            && (assignment.is_suspect || assignment.refused.is_some())
            && assignment.drain_by.is_none()
    }

    /// Returns whether all output of a partition is published.
    pub(super) fn has_published(&self, index: usize) -> bool {
        self.assignments[index].outputs().is_published()
    }

    /// Subtracts output from the buffered amount.
    pub(super) fn release_output(&mut self, size: Size) {
        let stalled = self.is_stalled();
        self.buffered_output -= size;
        if stalled && !self.is_stalled() {
            self.mark_all_runnable();
        }
    }

    /// Queues all assignments to start everything that they can.
    pub(super) fn mark_all_runnable(&mut self) {
        let all = self.indexes();
        all.into_iter().for_each(|index| self.mark_runnable(index));
    }

    /// Builds the transaction of checkpoint updates, with the output below them.
    pub(super) fn transaction(&mut self, updates: Vec<CheckpointUpdate>) -> Transaction {
        let mut transaction = Transaction::new(false);
        for update in updates {
            let index = self.assignment_of(&update.partition, update.epoch);
            let outputs = index.map(|index| {
                let assignment = &mut self.assignments[index];
                match assignment.refused {
                    // All output of its partition is behind it.
                    Some(_) => Outputs::default(),
                    None => {
                        let watermark = assignment.window.watermark();
                        assignment.outputs_mut().take_below(watermark)
                    }
                }
            });
            transaction.add(update, outputs.unwrap_or_default());
        }
        transaction
    }

    pub(super) fn on_published(&mut self, transaction: Transaction, result: Result<()>) {
        match result {
            Ok(()) => self.on_stored(transaction),
            Err(error) => self.on_not_stored(transaction, error),
        }
    }

    fn on_stored(&mut self, transaction: Transaction) {
        let size = transaction.outputs.size();
        self.control.counters.published.add(size.records);
        self.handler.on_published(size.records);
        for update in &transaction.updates {
            self.on_checkpointed(update);
            if let Some(index) = self.assignment_of(&update.partition, update.epoch) {
                self.assignments[index].outputs_mut().published();
                if transaction.is_part {
                    self.part_is_done(index);
                }
                self.mark_runnable(index);
            }
        }
        self.release_output(size);
    }

    fn on_not_stored(&mut self, transaction: Transaction, error: Error) {
        let deliveries = transaction.outputs.deliveries();
        let is_part = transaction.is_part;
        // Without output, the error cannot be about a record.
        let is_refused = error.kind().concerns_record() && deliveries > 0;
        let (updates, outputs) = transaction.into_shares();
        let mut shares = Vec::new();
        let mut refused_alone = None;
        for (update, outputs) in updates.iter().zip(outputs) {
            let share = outputs.deliveries();
            match self.assignment_of(&update.partition, update.epoch) {
                Some(index) if is_refused && share == 1 && deliveries == 1 => {
                    refused_alone = Some((index, outputs));
                }
                Some(index) => {
                    self.assignments[index].outputs_mut().put_back(outputs);
                    shares.push(Share {
                        index,
                        deliveries: share,
                    });
                }
                // The partition was lost in the meantime. Its next owner produces the output again.
                None => self.release_output(outputs.size()),
            }
        }
        if is_refused {
            self.on_refused(&shares, &error, is_part);
            if let Some((index, outputs)) = refused_alone {
                self.on_refused_alone(index, outputs, error);
            }
        } else if error.kind() == ErrorKind::Fenced || error.is_retryable() {
            // A driver gives one transaction a few seconds. A transaction that needs more, for example under a
            // quota, would never be published as a whole.
            if error.kind() == ErrorKind::Timeout && deliveries > 1 {
                self.publish_in_parts(&shares);
            } else if is_part {
                self.bisection.put_back(shares);
            }
            self.on_checkpoint_failed(&updates, error);
        } else {
            // The error affects the membership, not only partitions that are still owned.
            self.on_fatal(error);
        }
    }
}
