use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::driver::StoredRecord;
use crate::{Epoch, Headers, Partition, Position, Record};

/// A record handed to a member of a group, with where it came from.
///
/// Cheap to clone. It shares the memory of the batch it came in: one that is kept keeps the whole
/// batch.
#[derive(Clone)]
pub struct Delivery {
    batch: Arc<Batch>,
    index: u32,
    attempt: u32,
}

/// The records of one driver batch, shared by their deliveries.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) ownership: Arc<Ownership>,
    pub(crate) records: Vec<StoredRecord>,
}

/// One assignment of a partition to a member.
#[derive(Debug)]
pub(crate) struct Ownership {
    pub(crate) partition: Partition,
    pub(crate) epoch: Epoch,
    /// Cancelled when the partition is lost.
    pub(crate) lost: CancellationToken,
}

impl Delivery {
    pub(crate) fn new(batch: Arc<Batch>, index: u32, attempt: u32) -> Self {
        Self {
            batch,
            index,
            attempt,
        }
    }

    pub(crate) fn next_attempt(&self) -> Self {
        Self {
            batch: self.batch.clone(),
            index: self.index,
            attempt: self.attempt + 1,
        }
    }

    fn stored(&self) -> &StoredRecord {
        &self.batch.records[self.index as usize]
    }

    /// The key, if it has one.
    pub fn key(&self) -> Option<&Bytes> {
        self.stored().key.as_ref()
    }

    /// Returns the payload; empty for a [tombstone](Self::is_tombstone).
    pub fn payload(&self) -> &Bytes {
        static EMPTY: Bytes = Bytes::new();
        self.nullable_payload().unwrap_or(&EMPTY)
    }

    /// Returns the payload, or `None` for a [tombstone](Self::is_tombstone).
    pub fn nullable_payload(&self) -> Option<&Bytes> {
        self.stored().payload.as_ref()
    }

    /// Returns whether the record has no payload, not even an empty one: a tombstone, which states
    /// that its key is deleted (Kafka: null value). See [`Record::tombstone`].
    pub fn is_tombstone(&self) -> bool {
        self.nullable_payload().is_none()
    }

    /// The headers, in order.
    pub fn headers(&self) -> &Headers {
        &self.stored().headers
    }

    /// The broker's timestamp, or the producer's where it set one.
    pub fn timestamp(&self) -> SystemTime {
        self.stored().timestamp
    }

    /// The stream.
    pub fn stream(&self) -> &str {
        self.partition().stream()
    }

    /// The partition.
    pub fn partition(&self) -> &Partition {
        &self.batch.ownership.partition
    }

    /// The place in the partition.
    pub fn position(&self) -> Position {
        self.stored().position
    }

    /// The fencing token: a sink may refuse an epoch that is older than one it saw for this
    /// partition.
    pub fn epoch(&self) -> Epoch {
        self.batch.ownership.epoch
    }

    /// Which try this is, from 1. A crash begins again at 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether the partition was lost meanwhile: another member may be handling this record now.
    pub fn is_lost(&self) -> bool {
        self.batch.ownership.lost.is_cancelled()
    }

    /// Waits until the partition is lost. Cancel safe.
    ///
    /// The handler's own future is dropped at a loss without being asked; this is for work that it
    /// has started elsewhere.
    pub async fn lost(&self) {
        self.batch.ownership.lost.cancelled().await;
    }

    /// A record with the same key, payload, headers and timestamp, to be sent on.
    pub fn to_record(&self) -> Record {
        let stored = self.stored();
        Record {
            key: stored.key.clone(),
            payload: stored.payload.clone(),
            headers: stored.headers.clone(),
            timestamp: Some(stored.timestamp),
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("partition", self.partition())
            .field("position", &self.position())
            .field("epoch", &self.epoch())
            .field("attempt", &self.attempt)
            .field("key", &self.key())
            .field("bytes", &self.payload().len())
            .finish()
    }
}
