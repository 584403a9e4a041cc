//! Exactly-once chains: what was made is published with the progress behind it, in one step.
//!
//! The results of a settled record are staged with their assignment. When a checkpoint is due, the
//! call takes for each mark what was made up to it, and the driver stores both or neither. So
//! nobody reads a result whose record may come again.
//!
//! *Lost:* to send each result at once inside an open transaction. It spreads the load, but what
//! was sent for a record beyond a hole would become visible with the progress of another partition,
//! and come again; so one stuck record would hold up the progress of all.

use super::Session;
use crate::driver::{Mark, Membership};
use crate::runtime::attempt::Work;
use crate::runtime::staging::Volume;
use crate::{ErrorKind, Record, Result};

/// What is stored in one step.
pub(super) struct Publication {
    marks: Vec<Mark>,
    /// What was made of all partitions, one after the other.
    records: Vec<Record>,
    /// How many of them belong to each mark.
    shares: Vec<usize>,
}

impl Publication {
    pub(super) async fn publish(&self, membership: &dyn Membership, stream: &str) -> Result<()> {
        membership.publish(stream, &self.records, &self.marks).await
    }
}

impl<W: Work> Session<W> {
    /// Stages what was made of a record that is settled.
    pub(super) fn stage(&mut self, index: usize, number: u64, records: Vec<Record>) {
        if records.is_empty() {
            return;
        }
        let volume = Volume::of(&records);
        self.staged += volume;
        self.progress.made(volume.records);
        let assignment = &mut self.assignments[index];
        let watermark = assignment.window.watermark();
        assignment.staging.push(number, watermark, records);
    }

    /// Whether so much is staged that nothing more is made before some of it is published.
    ///
    /// Two calls' worth: one under way, one that fills. A partition still starts its first unsettled
    /// record then, for what lies behind it is published only after it.
    pub(super) fn is_stalled(&self) -> bool {
        self.work.publishes_to().is_some()
            && (self.staged.records >= self.options.checkpoint_records.saturating_mul(2)
                || self.staged.bytes >= self.options.buffer_bytes)
    }

    /// Takes in that something is not staged any more.
    pub(super) fn unstage(&mut self, volume: Volume) {
        let stalled = self.is_stalled();
        self.staged -= volume;
        if stalled && !self.is_stalled() {
            self.queue_all();
        }
    }

    /// Queues all assignments, to start what they can.
    pub(super) fn queue_all(&mut self) {
        let all: Vec<usize> = self.assignments.iter().map(|(index, _)| index).collect();
        all.into_iter().for_each(|index| self.queue(index));
    }

    /// Takes what was made below the marks out of its staging.
    pub(super) fn publication(&mut self, marks: Vec<Mark>) -> Publication {
        let mut records = Vec::new();
        let mut shares = Vec::with_capacity(marks.len());
        for mark in &marks {
            let before = records.len();
            if let Some(index) = self.find(&mark.partition, mark.epoch) {
                let assignment = &mut self.assignments[index];
                let watermark = assignment.window.watermark();
                records.append(&mut assignment.staging.take(watermark));
            }
            shares.push(records.len() - before);
        }
        Publication {
            marks,
            records,
            shares,
        }
    }

    pub(super) fn on_published(&mut self, publication: Publication, result: Result<()>) {
        let Err(error) = result else {
            let volume = Volume::of(&publication.records);
            self.board.counters.published.add(volume.records);
            for mark in &publication.marks {
                self.on_stored(mark);
            }
            self.unstage(volume);
            return;
        };
        let Publication {
            marks,
            records,
            shares,
        } = publication;
        let mut records = records.into_iter();
        for (mark, share) in marks.iter().zip(shares) {
            let share: Vec<Record> = records.by_ref().take(share).collect();
            match self.find(&mark.partition, mark.epoch) {
                Some(index) => self.assignments[index].staging.put_back(share),
                // Lost meanwhile: its next owner makes it again.
                None => self.unstage(Volume::of(&share)),
            }
        }
        if error.kind() == ErrorKind::Fenced || error.is_retryable() {
            self.on_unstored(&marks, error);
        } else {
            // It is about all of them, whatever has become of their partitions.
            self.on_refused(error);
        }
    }
}
