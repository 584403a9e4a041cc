//! In-flight accounting of a producer: counters, bounds, and the failures that no receipt reported.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::Notify;

use super::failures::{FailureReport, UnobservedFailures};
use crate::sync::lock;
use crate::telemetry::{Causes, event};
use crate::{Error, ErrorKind, Result};

/// In-flight accounting. Shared by the handles, the sender task and every receipt.
///
/// The counters are statistics: each is exact, and they establish no order between threads. The order comes
/// from the lock of a result's batch: a result is counted before that lock is
/// released, so a task that has read a receipt finds it counted.
#[derive(Debug)]
pub(super) struct Accounting {
    pub(super) stream: Arc<str>,
    pub(super) limits: InFlightLimits,
    pub(super) stored: AtomicU64,
    /// Records that pipelines have published to the stream, in addition to those that were sent.
    pub(super) published: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) waited: AtomicU64,
    pub(super) completed_bytes: AtomicU64,
    /// Notified after each batch of results, when they are counted. It keeps one permit, so a `send`
    /// that has just found no room misses no notification.
    pub(super) capacity_freed: Notify,
    /// Why the driver returns no more results, once that is known; see
    /// [`terminal_error`](Self::terminal_error).
    terminal_error: OnceLock<Error>,
    unobserved: Mutex<UnobservedFailures>,
    /// The number of recorded failures, for handles that are cloned: a clone takes no lock.
    unobserved_count: AtomicU64,
}

impl Accounting {
    pub(super) fn new(stream: Arc<str>, limits: InFlightLimits) -> Self {
        Self {
            stream,
            limits,
            stored: AtomicU64::new(0),
            published: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            completed_bytes: AtomicU64::new(0),
            capacity_freed: Notify::new(),
            terminal_error: OnceLock::new(),
            unobserved: Mutex::default(),
            unobserved_count: AtomicU64::new(0),
        }
    }

    pub(super) fn completed(&self) -> u64 {
        self.stored.load(Relaxed) + self.failed.load(Relaxed)
    }

    /// Sets the error of all records that are abandoned from now on. Only the first call has an effect.
    pub(super) fn set_terminal_error(&self, error: Error) {
        let _ = self.terminal_error.set(error);
    }

    /// Returns the error of an abandoned record.
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

    /// Records failures that no receipt will report.
    ///
    /// The first since the last report is logged at once. The others are logged as a number when
    /// they are reported, since a broker that is down fails thousands of records.
    pub(super) fn record_unobserved_error(&self, error: Error, count: u64) {
        let is_first = lock(&self.unobserved).record(error.clone(), count);
        self.unobserved_count.fetch_add(count, Relaxed);
        if is_first {
            event!(
                warn, "millstream.producer.failed", stream = %self.stream, records = count,
                error = %Causes(&error), "a record failed and its receipt was dropped unread"
            );
        }
    }

    /// Returns how many failures no receipt has reported so far.
    pub(super) fn unobserved_errors(&self) -> u64 {
        self.unobserved_count.load(Relaxed)
    }

    /// Returns where the next report begins for a handle that has reported the first `seen`
    /// failures.
    pub(super) fn report_start(&self, seen: u64) -> u64 {
        lock(&self.unobserved).start(seen)
    }

    /// Reports the failures from number `from` on as one error of `operation`, and returns how many
    /// there have been in all.
    pub(super) fn report_since(&self, from: u64, operation: &'static str) -> (u64, Result<()>) {
        let (total, report) = {
            let mut unobserved = lock(&self.unobserved);
            (unobserved.total(), unobserved.report_since(from))
        };
        (
            total,
            report.map_or(Ok(()), |report| Err(self.summary(report, operation))),
        )
    }

    /// Reports the failures that no flush has reported, as one error of `operation`.
    pub(super) fn report_unreported(&self, operation: &'static str) -> Result<()> {
        let from = self.report_start(u64::MAX);
        self.report_since(from, operation).1
    }

    fn summary(&self, report: FailureReport, operation: &'static str) -> Error {
        let FailureReport {
            first,
            count,
            unreported,
        } = report;
        if unreported > 1 {
            event!(
                warn, "millstream.producer.failed", stream = %self.stream, records = unreported,
                error = %Causes(&first), "records failed and their receipts were dropped unread"
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
        error.with_source(first)
    }
}

/// Logs the failures that were not reported: the last receipt was dropped, and nothing can report them
/// any more.
impl Drop for Accounting {
    fn drop(&mut self) {
        let _logged = self.report_unreported("close");
    }
}

/// The bounds of the amount in flight.
///
/// The amount in flight is not counted by itself: it is the amount sent (counted by the accumulator)
/// minus the amount completed (counted here).
#[derive(Debug, Clone, Copy)]
pub(super) struct InFlightLimits {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl InFlightLimits {
    /// Returns the bytes that a record of `size` bytes takes: all of them, if it is larger.
    pub(super) fn charge(self, size: usize) -> u64 {
        self.bytes.min(size as u64)
    }
}
