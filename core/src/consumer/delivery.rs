use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::driver::StoredRecord;
use crate::sync::lock;
use crate::{Epoch, Headers, Partition, Position, Record};

/// A record that was delivered to a member of a group, with its origin.
///
/// Cheap to clone. It shares the memory of the batch that it was received in: a delivery that is kept
/// keeps the whole batch in memory.
#[derive(Clone)]
pub struct Delivery {
    batch: Arc<FetchedBatch>,
    index: u32,
    attempt: u32,
}

/// The records of one driver batch, shared by their deliveries.
#[derive(Debug)]
pub(crate) struct FetchedBatch {
    pub(crate) ownership: Arc<Ownership>,
    pub(crate) records: Vec<StoredRecord>,
    expired: ExpiredAttempts,
}

impl FetchedBatch {
    pub(crate) fn new(ownership: Arc<Ownership>, records: Vec<StoredRecord>) -> Self {
        Self {
            ownership,
            records,
            expired: ExpiredAttempts::default(),
        }
    }
}

/// The attempts of a batch whose handlers took too long and were dropped. Kept for the batch, so
/// that a delivery needs no token of its own.
#[derive(Debug, Default)]
struct ExpiredAttempts {
    any: AtomicBool,
    /// Index and attempt.
    list: Mutex<Vec<(u32, u32)>>,
    changed: Notify,
}

impl ExpiredAttempts {
    fn contains(&self, index: u32, attempt: u32) -> bool {
        self.any.load(SeqCst)
            && lock(&self.list)
                .iter()
                .any(|(expired, last)| *expired == index && attempt <= *last)
    }

    fn insert(&self, index: u32, attempt: u32) {
        let mut list = lock(&self.list);
        list.retain(|(expired, _)| *expired != index);
        list.push((index, attempt));
        self.any.store(true, SeqCst);
        drop(list);
        self.changed.notify_waiters();
    }
}

/// One assignment of a partition to a member.
#[derive(Debug)]
pub(crate) struct Ownership {
    pub(crate) partition: Partition,
    pub(crate) epoch: Epoch,
    stream_id: Option<Arc<str>>,
    /// Cancelled when the partition is lost.
    lost: CancellationToken,
    /// Set before `lost` is cancelled. Reading it takes no lock.
    is_lost: AtomicBool,
    pub(crate) pull: PullProgress,
}

/// How far a pull consumer has pulled a partition. Accessed under the lock of its
/// [`Handover`](crate::consumer::handover::Handover).
#[derive(Debug, Default)]
pub(crate) struct PullProgress {
    /// The first number above all that were pulled.
    pub(crate) end: AtomicU64,
    /// Whether deliveries from `end` on are left to the next owner.
    pub(crate) reclaimed: AtomicBool,
}

impl Ownership {
    pub(crate) fn new(partition: Partition, epoch: Epoch, stream_id: Option<Arc<str>>) -> Self {
        Self {
            partition,
            epoch,
            stream_id,
            lost: CancellationToken::new(),
            is_lost: AtomicBool::new(false),
            pull: PullProgress::default(),
        }
    }

    /// Marks the partition as lost.
    pub(crate) fn mark_lost(&self) {
        self.is_lost.store(true, SeqCst);
        self.lost.cancel();
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(SeqCst)
    }

    /// Waits until the partition is lost. Cancel safe.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

/// Copies a record into its own memory.
pub(crate) fn copy(record: &StoredRecord) -> StoredRecord {
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

impl Delivery {
    pub(crate) fn new(batch: Arc<FetchedBatch>, index: u32, attempt: u32) -> Self {
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

    /// Returns whether both are from one batch.
    pub(crate) fn shares_batch(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.batch, &other.batch)
    }

    /// Returns how many records the batch of this delivery has.
    pub(crate) fn batch_len(&self) -> usize {
        self.batch.records.len()
    }

    /// Copies the record into its own batch.
    pub(crate) fn detach(&mut self) {
        let record = copy(self.stored());
        let ownership = self.batch.ownership.clone();
        *self = Self::new(
            Arc::new(FetchedBatch::new(ownership, vec![record])),
            0,
            self.attempt,
        );
    }

    /// Returns the number of bytes of key, payload and headers.
    pub(crate) fn size(&self) -> usize {
        self.stored().size()
    }

    fn stored(&self) -> &StoredRecord {
        &self.batch.records[self.index as usize]
    }

    /// Returns the key, if the record has one.
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

    /// Returns the headers, in order.
    pub fn headers(&self) -> &Headers {
        &self.stored().headers
    }

    /// Returns the broker's timestamp, or the producer's if it set one.
    pub fn timestamp(&self) -> SystemTime {
        self.stored().timestamp
    }

    /// Returns the name of the stream.
    pub fn stream(&self) -> &str {
        self.partition().stream()
    }

    /// Returns the partition.
    pub fn partition(&self) -> &Partition {
        &self.batch.ownership.partition
    }

    /// Returns the id of the stream, which stays the same as long as the stream exists, and changes when
    /// it is deleted and created again under its name (Kafka: topic id; Kinesis: ARN and creation time).
    ///
    /// Positions start again in a new stream. A sink that stores positions must store the id with them,
    /// as part of their key. Otherwise it mistakes the records of the new stream for those that it has
    /// applied. Ids can be compared for equality and have no order.
    ///
    /// `None` if the backend does not know it: the broker has no ids (Kafka before 2.8), or did not
    /// report it when the partition was assigned. Then a new stream looks like the old one.
    pub fn stream_id(&self) -> Option<&str> {
        self.batch.ownership.stream_id.as_deref()
    }

    /// Returns the position in the partition.
    ///
    /// A sink that skips what it has applied must compare positions **per key** with
    /// [`run`](crate::ConsumerGroup::run): handlers of different keys end in any order, so one position
    /// of the partition says nothing about the records before it. One position per partition is enough
    /// only with batches ([`run_batches`](crate::ConsumerGroup::run_batches)).
    pub fn position(&self) -> Position {
        self.stored().position
    }

    /// Returns the fencing token, which grows each time the partition gets a new owner.
    ///
    /// A sink can store the largest epoch of each partition of each [stream](Self::stream_id), and
    /// refuse an older one in the transaction that applies the record: it comes from a member that was
    /// paused or cut off, and does not know yet that it has lost the partition. An epoch alone does not
    /// say which records were applied; the [position](Self::position) does.
    pub fn epoch(&self) -> Epoch {
        self.batch.ownership.epoch
    }

    /// Returns the number of this attempt, from 1. An attempt that failed because a dependency was
    /// [unavailable](crate::Failure::unavailable) is not counted. After a crash the count starts again
    /// at 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns whether this attempt is no longer wanted: its partition was lost, or its handler
    /// exceeded [`handler_timeout`](crate::ConsumerGroup::handler_timeout). Another member, or the next
    /// attempt, may have the record now.
    pub fn is_lost(&self) -> bool {
        self.batch.ownership.is_lost() || self.batch.expired.contains(self.index, self.attempt)
    }

    /// Waits until [`is_lost`](Self::is_lost) returns true.
    ///
    /// This is for work that a handler has started elsewhere: the handler's own future is dropped at that time.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn lost(&self) {
        let expired = async {
            loop {
                let changed = self.batch.expired.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.is_lost() {
                    return;
                }
                changed.await;
            }
        };
        tokio::select! {
            biased;
            () = self.batch.ownership.lost() => {}
            () = expired => {}
        }
    }

    /// Marks this attempt as expired: its handler was dropped for taking too long.
    pub(crate) fn expire(&self) {
        self.batch.expired.insert(self.index, self.attempt);
    }

    pub(crate) fn ownership(&self) -> &Arc<Ownership> {
        &self.batch.ownership
    }

    /// Returns a record with the same key, payload, headers and timestamp, to be sent on.
    ///
    /// A broker that deletes records by their timestamps (Kafka's `retention.ms`) deletes a copy of an old
    /// record soon after it is stored. Set [`timestamp`](Record::timestamp) to keep it longer.
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
