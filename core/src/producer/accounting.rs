//! What a producer owes, in numbers: counters, the bounds of what is in flight, and the failures
//! that nobody has read.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::Notify;

use crate::sync::lock;
use crate::telemetry::event;
use crate::{Error, ErrorKind, Result};

/// Shared by the handles, the sender task and every receipt.
///
/// The counters are statistics: each is exact, and they order nothing between threads. What orders
/// is the lock of the batch that an answer goes through: answers are counted before that lock is let
/// go, so that whoever has read a receipt finds it counted.
#[derive(Debug)]
pub(super) struct Accounting {
    pub(super) stream: Arc<str>,
    pub(super) limits: InFlightLimits,
    pub(super) stored: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) waited: AtomicU64,
    pub(super) completed_bytes: AtomicU64,
    /// Told after each batch of answers, when they are counted. It remembers one telling, so a
    /// `send` that has just found no room misses none.
    pub(super) capacity_freed: Notify,
    /// Why records go unanswered by the driver, once that is known; see
    /// [`terminal_error`](Self::terminal_error).
    terminal_error: OnceLock<Error>,
    unobserved: Mutex<Option<UnobservedErrors>>,
}

/// Failures whose receipts were dropped, since they were last told.
#[derive(Debug)]
pub(super) struct UnobservedErrors {
    first: Error,
    count: u64,
}

impl Accounting {
    pub(super) fn new(stream: Arc<str>, limits: InFlightLimits) -> Self {
        Self {
            stream,
            limits,
            stored: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            completed_bytes: AtomicU64::new(0),
            capacity_freed: Notify::new(),
            terminal_error: OnceLock::new(),
            unobserved: Mutex::new(None),
        }
    }

    pub(super) fn completed(&self) -> u64 {
        self.stored.load(Relaxed) + self.failed.load(Relaxed)
    }

    /// Fixes what the records are answered that are given up from now on. The first call counts.
    pub(super) fn set_terminal_error(&self, error: Error) {
        let _ = self.terminal_error.set(error);
    }

    /// What a record is answered that is given up.
    pub(super) fn terminal_error(&self) -> Error {
        self.terminal_error.get().cloned().unwrap_or_else(|| {
            self.error(
                ErrorKind::Timeout,
                "send",
                "the producer's task has ended, the record may or may not be stored",
            )
        })
    }

    pub(super) fn error(
        &self,
        kind: ErrorKind,
        operation: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Error {
        Error::new(kind, operation, message).with_stream(self.stream.clone())
    }

    /// Notes failures that no receipt will tell. The first since they were last told is logged at
    /// once; the others are logged as a number when they are told, since a broker that is down
    /// fails records by the thousand.
    pub(super) fn record_unobserved_error(&self, error: Error, count: u64) {
        let mut unread = lock(&self.unobserved);
        match &mut *unread {
            Some(unread) => unread.count += count,
            None => {
                *unread = Some(UnobservedErrors {
                    first: error.clone(),
                    count,
                });
                drop(unread);
                event!(
                    warn, "millstream.producer.failed", stream = %self.stream, records = count,
                    %error, "a record failed and its receipt was dropped unread"
                );
            }
        }
    }

    /// Tells the failures that no receipt has told, as the one error of `operation`, and forgets
    /// them.
    pub(super) fn take_unobserved_errors(&self, operation: &'static str) -> Result<()> {
        let Some(UnobservedErrors { first, count }) = lock(&self.unobserved).take() else {
            return Ok(());
        };
        if count > 1 {
            event!(
                warn, "millstream.producer.failed", stream = %self.stream, records = count,
                error = %first, "records failed and their receipts were dropped unread"
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

/// The last receipt is gone, and nobody can be told any more.
impl Drop for Accounting {
    fn drop(&mut self) {
        let _logged = self.take_unobserved_errors("close");
    }
}

/// The bounds of what may be in flight.
///
/// How much of it is taken is no number of its own: it is what was sent (counted by the accumulator)
/// less what was answered (counted here).
#[derive(Debug, Clone, Copy)]
pub(super) struct InFlightLimits {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl InFlightLimits {
    /// What a record of `size` bytes takes of the room for bytes: all of it, if it is larger than
    /// that.
    pub(super) fn charge(self, size: usize) -> u64 {
        self.bytes.min(size as u64)
    }
}
