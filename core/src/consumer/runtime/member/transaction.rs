//! Exactly-once pipelines: output and progress are published in one transaction.
//!
//! The output of a settled record is buffered with its assignment. When a checkpoint is due, the
//! transaction takes the output up to each checkpointed position, and the driver stores both or
//! neither. So no output is visible whose record may be delivered again.
//!
//! Rejected: to send each result at once within an open transaction. That spreads the load, but the
//! output of a record above an unsettled one would become visible with the progress of another
//! partition, and be produced again. One stuck record would hold up all partitions.

use super::Member;
use crate::consumer::runtime::handler::Handler;
use crate::consumer::runtime::output_buffer::Size;
use crate::driver::{CheckpointUpdate, Membership};
use crate::{ErrorKind, Record, Result};

/// Output and progress that are stored in one step.
pub(super) struct Transaction {
    marks: Vec<CheckpointUpdate>,
    /// The output of all partitions, one after the other.
    records: Vec<Record>,
    /// The number of records of each checkpoint update.
    counts: Vec<usize>,
}

impl Transaction {
    pub(super) async fn publish(&self, membership: &dyn Membership, stream: &str) -> Result<()> {
        membership.publish(stream, &self.records, &self.marks).await
    }
}

impl<W: Handler> Member<W> {
    /// Buffers the output of a settled record.
    pub(super) fn buffer_output(&mut self, index: usize, number: u64, records: Vec<Record>) {
        if !W::PUBLISHES {
            return;
        }
        let volume = Size::of(&records);
        self.buffered_output += volume;
        self.checkpointer.made(volume.records);
        let assignment = &mut self.assignments[index];
        let watermark = assignment.window.watermark();
        assignment.outputs.push(number, watermark, records);
    }

    /// Returns whether so much output is buffered that no partition may run ahead.
    ///
    /// The bound is two transactions: one under way, one that fills. At the bound a partition still
    /// starts its first unsettled record: if output behind it waits for it, or if all output of the
    /// partition is published, since another partition may fill the buffer.
    pub(super) fn is_stalled(&self) -> bool {
        W::PUBLISHES
            && (self.buffered_output.records >= self.options.checkpoint_records.saturating_mul(2)
                || self.buffered_output.bytes >= self.options.buffer_bytes)
    }

    /// Returns whether a partition may start only its first unsettled record: because the buffer is
    /// full, or because the partition's share of half of it waits for that record. A stuck partition
    /// leaves the other half to the others.
    pub(super) fn is_limited(&self, index: usize) -> bool {
        if !W::PUBLISHES {
            return false;
        }
        let ahead = self.assignments[index].outputs.ahead();
        let partitions = self.assignments.len();
        let records = self.options.checkpoint_records / partitions as u64;
        let bytes = self.options.buffer_bytes / 2 / partitions;
        self.is_stalled() || ahead.records >= records.max(1) || ahead.bytes >= bytes.max(1)
    }

    /// Returns whether all output of a partition is published.
    pub(super) fn has_published(&self, index: usize) -> bool {
        self.assignments[index].outputs.is_published()
    }

    /// Removes output from the count of what is buffered.
    pub(super) fn release_output(&mut self, volume: Size) {
        let stalled = self.is_stalled();
        self.buffered_output -= volume;
        if stalled && !self.is_stalled() {
            self.mark_all_runnable();
        }
    }

    /// Queues all assignments, to start what they can.
    pub(super) fn mark_all_runnable(&mut self) {
        let all = self.indexes();
        all.into_iter().for_each(|index| self.mark_runnable(index));
    }

    /// Builds the transaction of checkpoint updates, with the output below them.
    pub(super) fn transaction(&mut self, marks: Vec<CheckpointUpdate>) -> Transaction {
        let mut records = Vec::new();
        let mut counts = Vec::with_capacity(marks.len());
        for mark in &marks {
            let before = records.len();
            if let Some(index) = self.assignment_of(&mark.partition, mark.epoch) {
                let assignment = &mut self.assignments[index];
                let watermark = assignment.window.watermark();
                records.append(&mut assignment.outputs.take(watermark));
            }
            counts.push(records.len() - before);
        }
        Transaction {
            marks,
            records,
            counts,
        }
    }

    pub(super) fn on_published(&mut self, transaction: Transaction, result: Result<()>) {
        let Err(error) = result else {
            let volume = Size::of(&transaction.records);
            self.control.counters.published.add(volume.records);
            self.handler.on_published(volume.records);
            for mark in &transaction.marks {
                self.on_checkpointed(mark);
                if let Some(index) = self.assignment_of(&mark.partition, mark.epoch) {
                    self.assignments[index].outputs.published();
                    self.mark_runnable(index);
                }
            }
            self.release_output(volume);
            return;
        };
        let Transaction {
            marks,
            records,
            counts,
        } = transaction;
        let mut records = records.into_iter();
        for (mark, count) in marks.iter().zip(counts) {
            let share: Vec<Record> = records.by_ref().take(count).collect();
            match self.assignment_of(&mark.partition, mark.epoch) {
                Some(index) => self.assignments[index].outputs.put_back(share),
                // The partition was lost meanwhile. Its next owner produces the output again.
                None => self.release_output(Size::of(&share)),
            }
        }
        if error.kind() == ErrorKind::Fenced || error.is_retryable() {
            self.on_checkpoint_failed(&marks, error);
        } else {
            // The error concerns the membership, not only partitions that are still owned.
            self.on_fatal(error);
        }
    }
}
