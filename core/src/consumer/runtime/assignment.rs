//! One partition that this member owns: what was received, how far it is settled, and how it
//! leaves.

use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use foldhash::fast::FixedState;
use tokio::time::Instant;

use super::output_buffer::OutputBuffer;
use super::run::Run;
use super::stall::StallDetector;
use super::window::{NO_KEY, Window};
use crate::consumer::delivery::{FetchedBatch, Ownership};
use crate::driver::{CheckpointUpdate, StoredRecord};
use crate::sync::lock;
use crate::{
    Batch, Delivery, Epoch, Headers, Lag, OldestUnsettled, Partition, PartitionStats, Position,
};

#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) ownership: Arc<Ownership>,
    pub(crate) window: Window,
    /// Output of its records that is not published. It is dropped with the assignment: the next owner
    /// produces it again.
    pub(crate) outputs: OutputBuffer,
    /// The batches from the one of the first unsettled record on.
    chunks: VecDeque<Chunk>,
    /// How many records the chunks hold, and their bytes.
    held: usize,
    bytes: usize,
    /// The bytes that the member has counted for it.
    pub(crate) counted_bytes: usize,
    /// Records settled behind an unsettled one since the last look for what can be dropped.
    settled_ahead: usize,
    /// How many records were received: the number of the next one.
    received: u64,
    /// The last position below the first chunk.
    settled_before: Option<Position>,
    /// The last position that the broker has as this group's progress.
    pub(crate) stored: Option<Position>,
    pub(crate) leaving: Leaving,
    /// Until when its handlers may settle what is in flight, once it drains.
    pub(crate) drain_by: Option<Instant>,
    pub(crate) paused: Paused,
    /// What waits for its next attempt, by its first number.
    pub(crate) waiting: BTreeMap<u64, Run>,
    /// How many records were started and given up unsettled.
    pub(crate) abandoned: usize,
    /// When its next batch is handed out although it is not full.
    pub(crate) batch_due: Option<Instant>,
    pub(crate) stall: StallDetector,
    /// Whether it waits in the queue of those that may start something.
    pub(crate) queued: bool,
    /// Whether it waits to be looked at for its release.
    pub(crate) release_queued: bool,
    /// Whether it waits for the next checkpoint.
    pub(crate) dirty: bool,
    stats: Arc<Mutex<PartitionStats>>,
}

/// Consecutive numbers, with those of their records that are still held.
///
/// Of settled records behind an unsettled one nothing is held but what a checkpoint can need: the
/// watermark stops only right before an unsettled record or at the end of a chunk, so the positions
/// there are enough.
#[derive(Debug)]
struct Chunk {
    first: u64,
    len: u64,
    /// The position of its last record.
    last: Position,
    received_at: Instant,
    /// The numbers that the records of the batch have. Unset: all of the chunk.
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

/// How far an assignment is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It stays.
    Active,
    /// No more records will come; when all are settled it is completed.
    Ended,
    /// It goes to another member: it drains until the deadline at most, and is then released.
    Revoked {
        /// When handlers that are still in flight are dropped.
        drained_by: Instant,
        /// When it is released even if its last progress could not be stored.
        released_by: Instant,
    },
    /// The driver was called; its result is pending.
    Releasing,
}

/// Why the driver was asked for no more records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Paused {
    pub(crate) by_user: bool,
    pub(crate) by_window: bool,
    pub(crate) by_buffer: bool,
    /// The member closes: what it would still receive is for the next owner.
    pub(crate) by_shutdown: bool,
}

impl Paused {
    pub(crate) fn any(self) -> bool {
        self.by_user || self.by_window || self.by_buffer || self.by_shutdown
    }
}

impl Assignment {
    pub(crate) fn new(
        partition: Partition,
        epoch: Epoch,
        resume_after: Option<Position>,
        stream_id: Option<Arc<str>>,
    ) -> Self {
        let stats = PartitionStats {
            epoch,
            settled: resume_after,
            unsettled: 0,
            oldest_unsettled: None,
            paused: false,
            lag: Lag::default(),
        };
        Self {
            ownership: Arc::new(Ownership::new(partition, epoch, stream_id)),
            window: Window::default(),
            outputs: OutputBuffer::default(),
            chunks: VecDeque::new(),
            held: 0,
            bytes: 0,
            counted_bytes: 0,
            settled_ahead: 0,
            received: 0,
            settled_before: resume_after,
            stored: resume_after,
            leaving: Leaving::Active,
            drain_by: None,
            paused: Paused::default(),
            waiting: BTreeMap::new(),
            abandoned: 0,
            batch_due: None,
            stall: StallDetector::default(),
            queued: false,
            release_queued: false,
            dirty: false,
            stats: Arc::new(Mutex::new(stats)),
        }
    }

    pub(crate) fn partition(&self) -> &Partition {
        &self.ownership.partition
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.ownership.epoch
    }

    pub(crate) fn stats(&self) -> &Arc<Mutex<PartitionStats>> {
        &self.stats
    }

    /// Takes records in.
    pub(crate) fn receive(&mut self, records: Vec<StoredRecord>, lag: Lag, now: Instant) {
        self.show_lag(lag);
        let Some(last) = records.last().map(|record| record.position) else {
            return;
        };
        self.window.reserve(records.len());
        let mut bytes = 0;
        for record in &records {
            self.window.push(key_hash(record.key.as_ref()));
            bytes += size(record);
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
        lock(&self.stats).lag = lag;
    }

    /// The delivery of a number that is not settled.
    pub(crate) fn delivery(&self, number: u64) -> Delivery {
        let chunk = self.chunk(number);
        Delivery::new(chunk.batch.clone(), chunk.index(number) as u32, 1)
    }

    /// Takes the next batch, if nothing of the partition is with the handler. One that is not full is
    /// taken when its first record has waited for as long as a batch may, or when nothing more is
    /// received until it settles.
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

    /// How many records of a range hold `most` bytes together, at least one.
    fn records_within(&self, numbers: Range<u64>, most: usize) -> u64 {
        let mut bytes = 0_usize;
        let fits = |number: &u64| {
            let chunk = self.chunk(*number);
            bytes = bytes.saturating_add(size(&chunk.batch.records[chunk.index(*number)]));
            bytes <= most
        };
        let fitting = numbers.take_while(fits).count() as u64;
        fitting.max(1)
    }

    /// Whether more records may come before anything is settled.
    fn may_receive(&self) -> bool {
        self.leaving == Leaving::Active && !self.paused.by_window && !self.paused.by_buffer
    }

    /// Gives a started number up: it stays unsettled, and comes again.
    pub(crate) fn abandon(&mut self, number: u64) {
        self.window.abandon(number);
        self.abandoned += 1;
    }

    /// How many records were started and are not settled.
    pub(crate) fn begun(&self) -> usize {
        self.window.running() + self.abandoned
    }

    /// The record that all others wait for to be passed by the checkpoint.
    pub(crate) fn oldest_unsettled(&self) -> Option<Delivery> {
        (self.window.len() > 0).then(|| self.delivery(self.window.watermark()))
    }

    /// Settles a number, and drops the batches that are no longer needed.
    pub(crate) fn settle(&mut self, number: u64) {
        self.window.settle(number);
        let watermark = self.window.watermark();
        if number >= watermark {
            self.settled_ahead += 1;
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
            self.settled_ahead = 0;
        }
    }

    /// Drops settled records behind an unsettled one, once they may be half of what is held: so each
    /// record is looked at and copied a few times at most.
    ///
    /// A handler that is pending keeps the batch that its delivery came in.
    pub(crate) fn drop_settled(&mut self) {
        if self.settled_ahead == 0 || self.settled_ahead * 2 < self.held {
            return;
        }
        self.settled_ahead = 0;
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

    /// The last position up to which all is settled.
    pub(crate) fn settled(&self) -> Option<Position> {
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

    /// The progress that the broker does not have yet.
    pub(crate) fn mark(&self) -> Option<CheckpointUpdate> {
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

    /// Whether nothing is in flight and nothing more will start.
    pub(crate) fn is_drained(&self) -> bool {
        self.window.running() == 0 && !self.window.has_startable()
    }

    /// Bytes of all records that are held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Brings what users see up to date. Called once for many records, not for each.
    pub(crate) fn refresh_stats(&self) {
        let mut stats = lock(&self.stats);
        stats.settled = self.settled();
        stats.unsettled = self.window.len();
        stats.paused = self.paused.any();
        let watermark = stats.settled;
        if (stats.oldest_unsettled.as_ref())
            .is_some_and(|oldest| Some(oldest.position) <= watermark)
        {
            stats.oldest_unsettled = None;
        }
    }

    /// Shows users what the partition waits for.
    pub(crate) fn show_oldest(&self, oldest: Option<OldestUnsettled>) {
        lock(&self.stats).oldest_unsettled = oldest;
    }

    fn chunk(&self, number: u64) -> &Chunk {
        // Nearly always the newest one.
        let newest = self
            .chunks
            .back()
            .expect("a number that is not settled lies in a chunk");
        if newest.first <= number {
            return newest;
        }
        &self.chunks[self.chunks.partition_point(|chunk| chunk.first <= number) - 1]
    }
}

impl Chunk {
    /// Where in the batch the record of an unsettled number is.
    fn index(&self, number: u64) -> usize {
        match &self.kept {
            None => (number - self.first) as usize,
            Some(kept) => kept.partition_point(|kept| kept.number < number),
        }
    }

    /// The position of the record before `number`, which is unsettled or follows the last one.
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

    /// Drops what is settled. `before` is the position of the record before the chunk.
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
        // Copied, since the payloads of one fetch may share one buffer, which lives as long as one
        // of them.
        let records: Vec<StoredRecord> = left.iter().map(|index| copy(&records[*index])).collect();
        self.kept = Some(kept);
        self.bytes = records.iter().map(size).sum();
        self.batch = Arc::new(FetchedBatch::new(self.batch.ownership.clone(), records));
    }
}

fn size(record: &StoredRecord) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    length(&record.payload) + length(&record.key) + record.headers.size()
}

/// Copies a record into memory of its own.
fn copy(record: &StoredRecord) -> StoredRecord {
    let own = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
    let mut headers = Headers::new();
    headers.extend(
        (&record.headers)
            .into_iter()
            .map(|(name, value)| (name, value.map(own))),
    );
    StoredRecord {
        position: record.position,
        timestamp: record.timestamp,
        key: record.key.as_ref().map(own),
        payload: record.payload.as_ref().map(own),
        headers,
    }
}

fn key_hash(key: Option<&Bytes>) -> u64 {
    /// Fixed, so that a replay of a seed meets the same collisions.
    const HASHER: FixedState = FixedState::with_seed(0);

    match key {
        None => NO_KEY,
        Some(key) => match HASHER.hash_one(&**key) {
            NO_KEY => !NO_KEY,
            hash => hash,
        },
    }
}
