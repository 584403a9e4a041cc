//! One partition that this member owns: what was received, how far it is settled, and how it
//! leaves.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use foldhash::fast::FixedState;
use tokio::time::Instant;

use super::output_buffer::OutputBuffer;
use super::window::{NO_KEY, Window};
use crate::consumer::delivery::{Batch, Ownership};
use crate::driver::{CheckpointUpdate, StoredRecord};
use crate::sync::lock;
use crate::{Delivery, Epoch, Lag, Partition, PartitionStats, Position};

#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) ownership: Arc<Ownership>,
    pub(crate) window: Window,
    /// What was made of its records and is not published. It goes with the assignment: when that is
    /// lost, the next owner makes it again.
    pub(crate) outputs: OutputBuffer,
    /// The batches that still hold an unsettled record.
    chunks: VecDeque<Chunk>,
    /// How many records were received: the number of the next one.
    received: u64,
    /// The last position below the first chunk.
    settled_before: Option<Position>,
    /// The last position that the broker has as this group's progress.
    pub(crate) stored: Option<Position>,
    pub(crate) leaving: Leaving,
    pub(crate) paused: Paused,
    /// Whether it waits in the queue of those that may start something.
    pub(crate) queued: bool,
    /// Whether it waits for the next checkpoint.
    pub(crate) dirty: bool,
    stats: Arc<Mutex<PartitionStats>>,
}

#[derive(Debug)]
struct Chunk {
    first: u64,
    bytes: usize,
    batch: Arc<Batch>,
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
    /// The driver was told; its answer is awaited.
    Releasing,
}

/// Why the driver was asked for no more records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Paused {
    pub(crate) by_user: bool,
    pub(crate) by_window: bool,
    pub(crate) by_buffer: bool,
}

impl Paused {
    pub(crate) fn any(self) -> bool {
        self.by_user || self.by_window || self.by_buffer
    }
}

impl Assignment {
    pub(crate) fn new(partition: Partition, epoch: Epoch, resume_after: Option<Position>) -> Self {
        let stats = PartitionStats {
            epoch,
            settled: resume_after,
            unsettled: 0,
            lag: Lag::default(),
        };
        Self {
            ownership: Arc::new(Ownership::new(partition, epoch)),
            window: Window::default(),
            outputs: OutputBuffer::default(),
            chunks: VecDeque::new(),
            received: 0,
            settled_before: resume_after,
            stored: resume_after,
            leaving: Leaving::Active,
            paused: Paused::default(),
            queued: false,
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

    /// Takes records in and answers their bytes.
    pub(crate) fn receive(&mut self, records: Vec<StoredRecord>, lag: Lag) -> usize {
        self.window.reserve(records.len());
        let mut bytes = 0;
        for record in &records {
            self.window.push(key_hash(record.key.as_ref()));
            bytes += record.payload.as_ref().map_or(0, Bytes::len)
                + record.key.as_ref().map_or(0, Bytes::len)
                + record.headers.size();
        }
        let first = self.received;
        self.received += records.len() as u64;
        let batch = Arc::new(Batch::new(self.ownership.clone(), records));
        self.chunks.push_back(Chunk {
            first,
            bytes,
            batch,
        });
        self.show_lag(lag);
        bytes
    }

    pub(crate) fn show_lag(&self, lag: Lag) {
        lock(&self.stats).lag = lag;
    }

    /// The delivery of a number that is not settled.
    pub(crate) fn delivery(&self, number: u64) -> Delivery {
        let chunk = self.chunk(number);
        Delivery::new(chunk.batch.clone(), (number - chunk.first) as u32, 1)
    }

    /// Settles a number, and answers the bytes of the batches that are no more needed.
    pub(crate) fn settle(&mut self, number: u64) -> usize {
        self.window.settle(number);
        let watermark = self.window.watermark();
        let mut bytes = 0;
        while let Some(chunk) = self.chunks.front() {
            if chunk.first + chunk.batch.records.len() as u64 > watermark {
                break;
            }
            self.settled_before = chunk.batch.records.last().map(|record| record.position);
            bytes += chunk.bytes;
            self.chunks.pop_front();
        }
        bytes
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
                let last = self.chunk(watermark - 1);
                Some(last.batch.records[(watermark - 1 - last.first) as usize].position)
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

    /// Whether nothing is in flight and nothing more will start.
    pub(crate) fn is_drained(&self) -> bool {
        self.window.running() == 0 && !self.window.has_startable()
    }

    /// Bytes of all batches that are held.
    pub(crate) fn bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes).sum()
    }

    /// Brings what is shown to users up to date.
    pub(crate) fn refresh_stats(&self) {
        let mut stats = lock(&self.stats);
        stats.settled = self.settled();
        stats.unsettled = self.window.len();
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
