//! Exactly-once pipelines: output is published together with the progress behind it, in one step.
//!
//! The results of a settled record are staged with their assignment. When a checkpoint is due, the
//! call takes for each mark what was made up to it, and the driver stores both or neither. So
//! nobody reads a result whose record may come again.
//!
//! Rejected: to send each result at once inside an open transaction. It spreads the load, but what
//! was sent for a record beyond a hole would become visible with the progress of another partition,
//! and come again; so one stuck record would hold up the progress of all.

use super::Member;
use crate::consumer::runtime::handler::Handler;
use crate::consumer::runtime::output_buffer::Size;
use crate::driver::{CheckpointUpdate, Membership};
use crate::{ErrorKind, Record, Result};

/// What is stored in one step.
pub(super) struct Transaction {
    marks: Vec<CheckpointUpdate>,
    /// What was made of all partitions, one after the other.
    records: Vec<Record>,
    /// How many of them belong to each mark.
    counts: Vec<usize>,
}

impl Transaction {
    pub(super) async fn publish(&self, membership: &dyn Membership, stream: &str) -> Result<()> {
        membership.publish(stream, &self.records, &self.marks).await
    }
}

impl<W: Handler> Member<W> {
    /// Stages what was made of a record that is settled.
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

    /// Whether so much waits to be published that no partition runs ahead.
    ///
    /// Two calls' worth: one under way, one that fills. A partition still starts its first unsettled
    /// record then, if it was passed by, for what lies behind it is published only after it; or if
    /// all that was made of the partition is published, since another partition may be what fills
    /// the buffer.
    pub(super) fn is_stalled(&self) -> bool {
        W::PUBLISHES
            && (self.buffered_output.records >= self.options.checkpoint_records.saturating_mul(2)
                || self.buffered_output.bytes >= self.options.buffer_bytes)
    }

    /// Whether a partition starts no more than its first unsettled record: because too much waits, or
    /// because as much as its share of half of that waits for this record. So one that is stuck
    /// leaves the other half to the other partitions.
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

    /// Whether all that was made of a partition is published.
    pub(super) fn has_published(&self, index: usize) -> bool {
        self.assignments[index].outputs.is_published()
    }

    /// Takes in that something is not staged any more.
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

    /// Takes what was made below the marks out of its staging.
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
                // Lost meanwhile: its next owner makes it again.
                None => self.release_output(Size::of(&share)),
            }
        }
        if error.kind() == ErrorKind::Fenced || error.is_retryable() {
            self.on_checkpoint_failed(&marks, error);
        } else {
            // It is about all of them, whatever has become of their partitions.
            self.on_fatal(error);
        }
    }
}
