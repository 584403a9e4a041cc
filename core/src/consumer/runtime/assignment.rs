//! One partition that this member owns: its records, its progress, and its departure.

use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::FixedState;
use slab::Slab;
use tokio::time::Instant;

use super::output_buffer::{Origin, OutputBuffer};
use super::published_stats::PublishedStats;
use super::refused_delivery::RefusedDelivery;
use super::run::Run;
use super::spare_memory::SpareMemory;
use super::stall::StallDetector;
use super::window::{NO_KEY, Window, WindowEntry};
use crate::consumer::delivery::{FetchedBatch, Ownership, copy};
use crate::driver::{CheckpointUpdate, Membership, StoredRecord};
use crate::{Batch, Delivery, Epoch, Lag, OldestUnsettled, Partition, Position};

#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) ownership: Arc<Ownership>,
    pub(crate) window: Window,
    /// The unpublished output of its records, if it ever had any. It is dropped with the assignment, and
    /// the next owner produces it again.
    outputs: Option<Box<OutputBuffer>>,
    /// Whether its output is in parts of a refused transaction that are left.
    pub(crate) is_suspect: bool,
    /// The delivery whose output the broker has refused. No later output is published or
    /// checkpointed until the failure policy has settled it.
    pub(crate) refused: Option<Box<RefusedDelivery>>,
    /// The received records, from the chunk of the first unsettled one on.
    chunks: VecDeque<Chunk>,
    /// How many records the chunks hold, and their bytes.
    held: usize,
    bytes: usize,
    /// The bytes that the member's budget has counted for it.
    pub(crate) counted_bytes: usize,
    /// How many records were settled above the watermark since settled records were last dropped.
    settled_out_of_order: usize,
    /// How many records were received, which is the number of the next one.
    received: u64,
    /// The last position before the first chunk.
    settled_before: Option<Position>,
    /// The last position that was checkpointed.
    pub(crate) stored: Option<Position>,
    pub(crate) leaving: Leaving,
    /// The end of its drain, once it drains.
    pub(crate) drain_by: Option<Instant>,
    pub(crate) paused: Paused,
    /// The runs that wait for their next attempt, by their first number.
    pub(crate) waiting: BTreeMap<u64, Run>,
    /// How many runs wait until their dead letters are stored.
    pub(crate) storing_letters: usize,
    /// The attempts that are settled from outside, by their place.
    pub(crate) outstanding: Slab<Outstanding>,
    /// How many records were started and abandoned unsettled.
    pub(crate) abandoned: usize,
    /// When its next batch is handed out even if it is not full.
    pub(crate) batch_due: Option<Instant>,
    pub(crate) stall: StallDetector,
    /// Whether it is in the queue of runnable assignments.
    pub(crate) queued: bool,
    /// Whether it is in the queue of release checks.
    pub(crate) release_queued: bool,
    /// Whether the next checkpoint includes it.
    pub(crate) dirty: bool,
    stats: Arc<PublishedStats>,
}

/// Memory for the records of assignments. Those without records have none of their own.
#[derive(Debug, Default)]
pub(crate) struct RecordMemory {
    entries: SpareMemory<WindowEntry>,
    chunks: SpareMemory<Chunk>,
}

/// Consecutive numbers, and the records of those that are still held.
///
/// Of settled records above the watermark, only the positions that a checkpoint may need are held. The
/// watermark stops only before an unsettled record or at the end of a chunk, so these are enough.
#[derive(Debug)]
struct Chunk {
    first: u64,
    len: u64,
    /// The position of its last record.
    last: Position,
    received_at: Instant,
    /// The numbers of the records in the batch. Unset: all numbers of the chunk.
    kept: Option<Vec<Kept>>,
    bytes: usize,
    batch: Arc<FetchedBatch>,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    number: u64,
    /// The position of the record before it.
    before: Option<Position>,
}

/// A run whose attempt is settled from outside.
#[derive(Debug)]
pub(crate) struct Outstanding {
    /// The serial number of the attempt.
    pub(crate) serial: u64,
    /// When to check whether the attempt has taken too long, if it has a time limit.
    pub(crate) expires: Option<Instant>,
    pub(crate) run: Run,
}

/// The state of an assignment's departure from the member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It stays.
    Active,
    /// The partition has ended. It is completed when all records are settled.
    Ended,
    /// It moves to another member: it is drained, and then released.
    Revoked {
        /// When handlers that are still in flight are dropped.
        drained_by: Instant,
        /// When it is released even if its last progress could not be stored.
        released_by: Instant,
    },
    /// The driver was called, and its result is pending.
    Releasing,
}

/// Why reading the partition is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Paused {
    pub(crate) by_user: bool,
    pub(crate) by_max_unsettled: bool,
    pub(crate) by_buffer: bool,
    /// The member closes. New records are left to the next owner.
    pub(crate) by_shutdown: bool,
}

impl Paused {
    pub(crate) fn any(self) -> bool {
        self.by_user || self.by_max_unsettled || self.by_buffer || self.by_shutdown
    }
}

impl Assignment {
    pub(crate) fn new(
        partition: Partition,
        epoch: Epoch,
        resume_after: Option<Position>,
        stream_id: Option<Arc<str>>,
    ) -> Self {
        Self {
            ownership: Arc::new(Ownership::new(partition, epoch, stream_id)),
            window: Window::default(),
            outputs: None,
            is_suspect: false,
            refused: None,
            chunks: VecDeque::new(),
            held: 0,
            bytes: 0,
            counted_bytes: 0,
            settled_out_of_order: 0,
            received: 0,
            settled_before: resume_after,
            stored: resume_after,
            leaving: Leaving::Active,
            drain_by: None,
            paused: Paused::default(),
            waiting: BTreeMap::new(),
            storing_letters: 0,
            outstanding: Slab::new(),
            abandoned: 0,
            batch_due: None,
            stall: StallDetector::default(),
            queued: false,
            release_queued: false,
            dirty: false,
            stats: Arc::new(PublishedStats::new(epoch, resume_after)),
        }
    }

    pub(crate) fn partition(&self) -> &Partition {
        &self.ownership.partition
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.ownership.epoch
    }

    pub(crate) fn stats(&self) -> &Arc<PublishedStats> {
        &self.stats
    }

    /// Returns the unpublished output of its records.
    pub(crate) fn outputs(&self) -> &OutputBuffer {
        static NONE: OutputBuffer = OutputBuffer::new();
        self.outputs.as_deref().unwrap_or(&NONE)
    }

    pub(crate) fn outputs_mut(&mut self) -> &mut OutputBuffer {
        self.outputs
            .get_or_insert_with(|| Box::new(OutputBuffer::new()))
    }

    /// Adds received records.
    pub(crate) fn receive(
        &mut self,
        records: Vec<StoredRecord>,
        lag: Lag,
        now: Instant,
        memory: &mut RecordMemory,
    ) {
        self.show_lag(lag);
        let Some(last) = records.last().map(|record| record.position) else {
            return;
        };
        self.window.reserve(records.len(), &mut memory.entries);
        memory.chunks.lend(&mut self.chunks);
        let mut bytes = 0;
        for record in &records {
            self.window.push(key_hash(record.key.as_ref()));
            bytes += record.size();
        }
        let first = self.received;
        let len = records.len() as u64;
        self.received += len;
        self.held += records.len();
        self.bytes += bytes;
        let batch = Arc::new(FetchedBatch::new(self.ownership.clone(), records));
        self.chunks.push_back(Chunk {
            first,
            len,
            last,
            received_at: now,
            kept: None,
            bytes,
            batch,
        });
    }

    pub(crate) fn show_lag(&self, lag: Lag) {
        self.stats.set_lag(lag);
    }

    /// Returns the delivery of a number that is not settled.
    pub(crate) fn delivery(&self, number: u64) -> Delivery {
        let chunk = self.chunk(number);
        Delivery::new(chunk.batch.clone(), chunk.index(number) as u32, 1)
    }

    /// Returns the origin of the output of a number that is not settled yet.
    pub(crate) fn origin(&self, number: u64, delivery: Delivery) -> Origin {
        Origin {
            number,
            delivery,
            before: self.position_before(number),
        }
    }

    /// Starts the next batch, if none is with the handler. A batch that is not full starts when its
    /// first record has waited for the longest allowed time, or when no more records can be received
    /// before it settles.
    pub(crate) fn next_batch(&mut self, batch: Batch, now: Instant) -> Option<Range<u64>> {
        self.batch_due = None;
        let next = self.window.next_run(batch.records)?;
        let len = match batch.bytes {
            Some(most) => self.records_within(next.clone(), most),
            None => next.end - next.start,
        };
        let is_full = len == batch.records as u64 || next.start + len < next.end;
        let waits = batch.after.filter(|_| !is_full && self.may_receive());
        if let Some(after) = waits {
            let due = self.chunk(next.start).received_at + after;
            if due > now {
                self.batch_due = Some(due);
                return None;
            }
        }
        Some(self.window.start_run(next.start..next.start + len))
    }

    /// Returns how many records from the start of a range have at most `most` bytes together. Returns at least
    /// one.
    fn records_within(&self, numbers: Range<u64>, most: usize) -> u64 {
        let mut bytes = 0_usize;
        let fits = |number: &u64| {
            let chunk = self.chunk(*number);
            bytes = bytes.saturating_add(chunk.batch.records[chunk.index(*number)].size());
            bytes <= most
        };
        let fitting = numbers.take_while(fits).count() as u64;
        fitting.max(1)
    }

    /// Returns whether more records may be received before any is settled.
    fn may_receive(&self) -> bool {
        self.leaving == Leaving::Active && !self.paused.by_max_unsettled && !self.paused.by_buffer
    }

    /// Abandons a started number: it stays unsettled and is delivered again.
    pub(crate) fn abandon(&mut self, number: u64) {
        if let Some(refused) = self.refused.as_mut().filter(|refused| refused.is(number)) {
            refused.in_flight = false;
            return;
        }
        self.window.abandon(number);
        self.abandoned += 1;
    }

    /// Returns the run of the first unsettled number, if it waits for its next attempt or for a
    /// settlement.
    pub(crate) fn first_run(&self) -> Option<&Run> {
        let first = self.first_unsettled();
        let waiting = self.waiting.get(&first);
        waiting.or_else(|| {
            let mut outstanding = self.outstanding.iter().map(|(_, kept)| &kept.run);
            outstanding.find(|run| run.first() == Some(first))
        })
    }

    /// Returns how many records were started and are not settled.
    pub(crate) fn begun(&self) -> usize {
        self.window.running() + self.abandoned + usize::from(self.refused.is_some())
    }

    /// Returns how many records are with the handler, with their retries or with the failure policy.
    pub(crate) fn in_flight(&self) -> usize {
        let refused = self.refused.as_ref();
        self.window.running() + usize::from(refused.is_some_and(|refused| refused.in_flight))
    }

    /// Returns the first number that is not settled.
    pub(crate) fn first_unsettled(&self) -> u64 {
        let refused = self.refused.as_ref();
        refused.map_or(self.window.watermark(), |refused| refused.origin.number)
    }

    /// Returns how many records were received from the first unsettled one on.
    pub(crate) fn unsettled(&self) -> usize {
        (self.received - self.first_unsettled()) as usize
    }

    /// Returns the first unsettled record, which holds the checkpoint.
    pub(crate) fn oldest_unsettled(&self) -> Option<Delivery> {
        if let Some(refused) = &self.refused {
            return Some(refused.origin.delivery.clone());
        }
        (self.window.len() > 0).then(|| self.delivery(self.window.watermark()))
    }

    /// Settles a number, and drops the batches that are no longer needed.
    pub(crate) fn settle(&mut self, number: u64) {
        self.window.settle(number);
        let watermark = self.window.watermark();
        if number >= watermark {
            self.settled_out_of_order += 1;
            return;
        }
        while let Some(chunk) = self.chunks.front() {
            if chunk.first + chunk.len > watermark {
                break;
            }
            self.settled_before = Some(chunk.last);
            self.held -= chunk.batch.records.len();
            self.bytes -= chunk.bytes;
            self.chunks.pop_front();
        }
        if self.chunks.is_empty() {
            self.settled_out_of_order = 0;
        }
    }

    /// Returns the memory for records, if all of them are settled.
    pub(crate) fn return_memory(&mut self, memory: &mut RecordMemory) {
        if self.chunks.is_empty() {
            self.window.return_memory(&mut memory.entries);
            memory.chunks.take_back(&mut self.chunks);
        }
    }

    /// Drops settled records above the watermark when they may be half of all held records, so that
    /// each record is copied only a few times.
    ///
    /// A pending handler keeps the whole batch of its delivery in memory.
    pub(crate) fn drop_settled(&mut self) {
        if self.settled_out_of_order == 0 || self.settled_out_of_order * 2 < self.held {
            return;
        }
        self.settled_out_of_order = 0;
        self.held = 0;
        self.bytes = 0;
        let mut before = self.settled_before;
        for chunk in &mut self.chunks {
            chunk.drop_settled(&self.window, before);
            before = Some(chunk.last);
            self.held += chunk.batch.records.len();
            self.bytes += chunk.bytes;
        }
    }

    /// Returns the last position up to which all records are settled.
    pub(crate) fn settled(&self) -> Option<Position> {
        let refused = self.refused.as_ref();
        if let Some(refused) = refused.filter(|_| !failpoint!(RefusalPassed)) {
            return refused.origin.before;
        }
        let watermark = if failpoint!(CheckpointGap) {
            self.window.past_settled()
        } else {
            self.window.watermark()
        };
        match self.chunks.front() {
            Some(chunk) if chunk.first < watermark => {
                self.chunk(watermark - 1).position_before(watermark)
            }
            _ => self.settled_before,
        }
    }

    /// Returns the progress that is not checkpointed yet.
    pub(crate) fn next_update(&self) -> Option<CheckpointUpdate> {
        let position = self
            .settled()
            .filter(|settled| Some(*settled) > self.stored)?;
        Some(CheckpointUpdate {
            partition: self.partition().clone(),
            epoch: self.epoch(),
            position,
        })
    }

    /// Begins to drain, or brings the end of the drain forward.
    pub(crate) fn drain(&mut self, deadline: Instant) {
        self.window.drain();
        self.drain_by = Some(self.drain_by.map_or(deadline, |by| by.min(deadline)));
    }

    /// Returns whether nothing is in flight and nothing more will start.
    pub(crate) fn is_drained(&self) -> bool {
        self.in_flight() == 0 && !self.window.has_startable()
    }

    /// Returns the bytes of all records that are held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Pauses a partition that holds more than its share while the budget is used up, until it holds
    /// half of its share. Returns whether it was paused now.
    pub(crate) fn pause_beyond(
        &mut self,
        share: usize,
        full: bool,
        membership: &dyn Membership,
    ) -> bool {
        let enough = match self.paused.by_buffer {
            true => share / 2,
            false => share,
        };
        let by_buffer = full && self.counted_bytes > enough;
        let changes = by_buffer != self.paused.by_buffer;
        if changes {
            self.pause(
                Paused {
                    by_buffer,
                    ..self.paused
                },
                membership,
            );
        }
        changes && by_buffer
    }

    /// Sets the pauses, and notifies the driver if anything changes for it.
    pub(crate) fn pause(&mut self, paused: Paused, membership: &dyn Membership) {
        let before = std::mem::replace(&mut self.paused, paused);
        match (before.any(), paused.any()) {
            (false, true) => membership.pause(self.partition(), self.epoch()),
            (true, false) => membership.resume(self.partition(), self.epoch()),
            _ => return,
        }
        self.refresh_stats();
    }

    /// Updates the published statistics. Called once for many records.
    pub(crate) fn refresh_stats(&self) {
        self.stats
            .set_progress(self.settled(), self.unsettled(), self.paused.any());
    }

    /// Publishes the oldest unsettled record in the statistics.
    pub(crate) fn show_oldest(&self, oldest: Option<OldestUnsettled>) {
        self.stats.set_oldest_unsettled(oldest);
    }

    fn chunk(&self, number: u64) -> &Chunk {
        &self.chunks[self.chunk_index(number)]
    }

    fn chunk_index(&self, number: u64) -> usize {
        // It is nearly always the oldest or the newest chunk.
        let (Some(oldest), Some(newest)) = (self.chunks.front(), self.chunks.back()) else {
            unreachable!("a number that is not settled lies in a chunk");
        };
        if newest.first <= number {
            return self.chunks.len() - 1;
        }
        if number < oldest.first + oldest.len {
            return 0;
        }
        self.chunks.partition_point(|chunk| chunk.first <= number) - 1
    }

    /// Returns the position of the record before a number that is not settled.
    fn position_before(&self, number: u64) -> Option<Position> {
        let index = self.chunk_index(number);
        if self.chunks[index].first < number {
            return self.chunks[index].position_before(number);
        }
        match index.checked_sub(1) {
            Some(before) => Some(self.chunks[before].last),
            None => self.settled_before,
        }
    }
}

impl Chunk {
    /// Returns the index in the batch of an unsettled number.
    fn index(&self, number: u64) -> usize {
        match &self.kept {
            None => (number - self.first) as usize,
            Some(kept) => kept.partition_point(|kept| kept.number < number),
        }
    }

    /// Returns the position of the record before `number`, which is unsettled or follows the last one.
    fn position_before(&self, number: u64) -> Option<Position> {
        if number == self.first + self.len {
            return Some(self.last);
        }
        let index = self.index(number);
        match &self.kept {
            None => Some(self.batch.records[index - 1].position),
            Some(kept) => kept.get(index).map_or(Some(self.last), |kept| kept.before),
        }
    }

    /// Drops settled records. `before` is the position of the record before the chunk.
    fn drop_settled(&mut self, window: &Window, before: Option<Position>) {
        let records = &self.batch.records;
        let number = |index: usize| match &self.kept {
            None => self.first + index as u64,
            Some(kept) => kept[index].number,
        };
        let left: Vec<usize> = (0..records.len())
            .filter(|index| !window.is_settled(number(*index)))
            .collect();
        if left.len() == records.len() {
            return;
        }
        let kept = |index: &usize| Kept {
            number: number(*index),
            before: match &self.kept {
                Some(kept) => kept[*index].before,
                None if *index == 0 => before,
                None => Some(records[*index - 1].position),
            },
        };
        let kept = left.iter().map(kept).collect();
        // Copied, because the payloads of one fetch may share one buffer.
        let records: Vec<StoredRecord> = left.iter().map(|index| copy(&records[*index])).collect();
        self.kept = Some(kept);
        self.bytes = records.iter().map(StoredRecord::size).sum();
        self.batch = Arc::new(FetchedBatch::new(self.batch.ownership.clone(), records));
    }
}

fn key_hash(key: Option<&Bytes>) -> u64 {
    /// Fixed, so that a replay of a seed has the same collisions.
    const HASHER: FixedState = FixedState::with_seed(0);

    match key {
        None => NO_KEY,
        Some(key) => match HASHER.hash_one(&**key) {
            NO_KEY => !NO_KEY,
            hash => hash,
        },
    }
}
