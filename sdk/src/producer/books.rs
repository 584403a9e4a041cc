//! What a producer owes, in numbers: counters, the room for records in flight, and the failures
//! that nobody has read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError};

use crate::{Error, ErrorKind, Result};

/// Shared by the handles, the sender task and every receipt.
///
/// The counters are statistics: each is exact, and they order nothing between threads. What orders
/// is the lock of the page that an answer goes through: answers are counted before that lock is let
/// go, so that whoever has read a receipt finds it counted.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) stream: Arc<str>,
    pub(super) room: Room,
    pub(super) stored: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) waited: AtomicU64,
    pub(super) answered_bytes: AtomicU64,
    /// Why records go unanswered by the driver, once that is known; see
    /// [`last_word`](Self::last_word).
    last_word: OnceLock<Error>,
    unread: Mutex<Option<Unread>>,
}

/// Failures whose receipts were dropped, since they were last told.
#[derive(Debug)]
pub(super) struct Unread {
    first: Error,
    count: u64,
}

impl Books {
    pub(super) fn new(stream: Arc<str>, room: Room) -> Self {
        Self {
            stream,
            room,
            stored: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            answered_bytes: AtomicU64::new(0),
            last_word: OnceLock::new(),
            unread: Mutex::new(None),
        }
    }

    pub(super) fn answered(&self) -> u64 {
        self.stored.load(Relaxed) + self.failed.load(Relaxed)
    }

    /// Fixes what the records are answered that are given up from now on. The first call counts.
    pub(super) fn give_up(&self, error: Error) {
        let _ = self.last_word.set(error);
    }

    /// What a record is answered that is given up.
    pub(super) fn last_word(&self) -> Error {
        self.last_word.get().cloned().unwrap_or_else(|| {
            self.error(
                ErrorKind::Unavailable,
                "send",
                "the producer's task has ended, the record may or may not be stored",
            )
        })
    }

    pub(super) fn error(
        &self,
        kind: ErrorKind,
        operation: &'static str,
        message: impl Into<std::borrow::Cow<'static, str>>,
    ) -> Error {
        Error::new(kind, operation, message).with_stream(self.stream.clone())
    }

    /// Notes failures that no receipt will tell. The first since they were last told is logged at
    /// once; the others are logged as a number when they are told, since a broker that is down
    /// fails records by the thousand.
    pub(super) fn note_unread(&self, error: Error, count: u64) {
        let mut unread = lock(&self.unread);
        match &mut *unread {
            Some(unread) => unread.count += count,
            None => {
                *unread = Some(Unread {
                    first: error.clone(),
                    count,
                });
                drop(unread);
                tracing::event!(
                    name: "millstream.producer.failed",
                    target: "millstream",
                    tracing::Level::WARN,
                    stream = %self.stream,
                    records = count,
                    %error,
                    "a record failed and its receipt was dropped unread"
                );
            }
        }
    }

    /// Tells the failures that no receipt has told, as the one error of `operation`, and forgets
    /// them.
    pub(super) fn tell_unread(&self, operation: &'static str) -> Result<()> {
        let Some(Unread { first, count }) = lock(&self.unread).take() else {
            return Ok(());
        };
        if count > 1 {
            tracing::event!(
                name: "millstream.producer.failed",
                target: "millstream",
                tracing::Level::WARN,
                stream = %self.stream,
                records = count,
                error = %first,
                "records failed and their receipts were dropped unread"
            );
        }
        let message = match count {
            1 => format!(
                "a record whose receipt was dropped unread: {}",
                first.message()
            ),
            n => format!(
                "{n} records whose receipts were dropped unread, the first: {}",
                first.message()
            ),
        };
        let error = match first.partition() {
            Some(partition) => {
                Error::new(first.kind(), operation, message).with_partition(partition)
            }
            None => self.error(first.kind(), operation, message),
        };
        Err(error.with_source(first))
    }
}

/// The room for records in flight, in records and in bytes.
///
/// Both are fair: tokio's semaphore serves first come, first served, and its `try_acquire` gets
/// nothing while somebody waits. A send takes records first and bytes second, so two sends cannot
/// wait for each other. The permits are forgotten when the record is in; whoever answers gives them
/// back, for a whole batch of results at once.
#[derive(Debug)]
pub(super) struct Room {
    records: Semaphore,
    bytes: Semaphore,
    /// What the costliest record takes.
    most: u32,
}

/// Room for one record, taken and not yet used. Dropping it gives it back, so that a dropped `send`
/// leaves no trace.
pub(super) struct Place<'a> {
    record: SemaphorePermit<'a>,
    bytes: SemaphorePermit<'a>,
}

/// The producer is closed.
pub(super) struct Closed;

impl Room {
    pub(super) const MOST_BYTES: usize = Semaphore::MAX_PERMITS;

    pub(super) fn new(records: usize, bytes: usize) -> Self {
        Self {
            records: Semaphore::new(records),
            bytes: Semaphore::new(bytes),
            most: u32::try_from(bytes).unwrap_or(u32::MAX),
        }
    }

    /// What a record of `size` bytes takes of the room for bytes: all of it, if it is larger than
    /// that.
    pub(super) fn cost(&self, size: usize) -> u32 {
        u32::try_from(size).map_or(self.most, |size| size.min(self.most))
    }

    /// Takes room if there is some now.
    pub(super) fn try_take(&self, cost: u32) -> Result<Option<Place<'_>>, Closed> {
        let now = |permit| match permit {
            Ok(permit) => Ok(Some(permit)),
            Err(TryAcquireError::NoPermits) => Ok(None),
            Err(TryAcquireError::Closed) => Err(Closed),
        };
        let Some(record) = now(self.records.try_acquire())? else {
            return Ok(None);
        };
        let bytes = now(self.bytes.try_acquire_many(cost))?;
        Ok(bytes.map(|bytes| Place { record, bytes }))
    }

    /// Waits for room.
    pub(super) async fn take(&self, cost: u32) -> Result<Place<'_>, Closed> {
        let record = self.records.acquire().await.map_err(|_| Closed)?;
        let bytes = self.bytes.acquire_many(cost).await.map_err(|_| Closed)?;
        Ok(Place { record, bytes })
    }

    pub(super) fn give_back(&self, records: usize, bytes: usize) {
        self.records.add_permits(records);
        self.bytes.add_permits(bytes);
    }

    /// Ends all waiting, now and later.
    pub(super) fn close(&self) {
        self.records.close();
        self.bytes.close();
    }
}

impl Place<'_> {
    /// The record is in: the room is taken until its answer.
    pub(super) fn keep(self) {
        self.record.forget();
        self.bytes.forget();
    }
}

/// Locks what no panic can leave half done: every section under these locks is plain moves and
/// sums.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
