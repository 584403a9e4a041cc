//! The state shared by the clones of a producer.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use super::accounting::{Accounting, InFlightLimits};
use super::accumulator::{PushError, RecordAccumulator};
use super::options::ProducerOptions;
use super::sender::Sender;
use super::{Producer, ProducerStats, limits};
use crate::driver::{self, StreamLimits};
use crate::telemetry::event;
use crate::{Error, ErrorKind, Receipt, Record, Result};

/// The handle's end of a producer. Owns the sender task: [`close`](Self::close) joins it. If this is dropped,
/// the task ends by itself.
pub(super) struct ProducerInner {
    /// The connection that the producer was opened from. Weak: it is compared, never used, and a producer must
    /// not keep a connection open only for that.
    backend: Weak<dyn driver::Backend>,
    accounting: Arc<Accounting>,
    accumulator: Arc<RecordAccumulator>,
    limits: StreamLimits,
    /// Weak, as the task owns it: a closed producer holds no part of its connection, however long the
    /// handle lives.
    driver: Weak<dyn driver::Producer>,
    /// The end of the task, shared by all callers that wait for it.
    ended: Shared<BoxFuture<'static, Result<()>>>,
}

pub(super) fn open(
    backend: &Arc<dyn driver::Backend>,
    stream: Arc<str>,
    driver: Arc<dyn driver::Producer>,
    options: &ProducerOptions,
) -> Producer {
    let limits = driver.limits();
    let in_flight_limits = InFlightLimits {
        records: options.in_flight_records as u64,
        bytes: options.in_flight_bytes as u64,
    };
    let accounting = Arc::new(Accounting::new(stream, in_flight_limits));
    let accumulator = Arc::new(RecordAccumulator::new(
        accounting.clone(),
        limits,
        options.timeout,
    ));
    let weak_driver = Arc::downgrade(&driver);
    let sender = Sender::new(
        accounting.clone(),
        accumulator.clone(),
        driver,
        limits,
        options.close_timeout,
    );
    let task = tokio::spawn(sender.run());
    let stream = accounting.stream.clone();
    let ended = async move {
        // The task returns nothing only if its runtime has ended: a panic of the
        // driver is caught where the driver is called.
        task.await.unwrap_or_else(|failure| {
            let message = "the producer's task was aborted, records may or may not be stored";
            let error = Error::new(ErrorKind::Unavailable, "close", message);
            Err(error.with_stream(stream).with_source(failure))
        })
    };
    event!(
        info, "millstream.producer.opened", stream = %accounting.stream, "producer opened"
    );
    Producer::new(ProducerInner {
        backend: Arc::downgrade(backend),
        accounting,
        accumulator,
        limits,
        driver: weak_driver,
        ended: ended.boxed().shared(),
    })
}

impl ProducerInner {
    /// Sends a record. It is moved out of `record` only if it is sent.
    pub(super) async fn send(&self, record: &mut Record) -> Result<Receipt> {
        let size = limits::check(&self.limits, self.stream(), record)?;
        let sent = match self.accumulator.push(record, size) {
            Err(PushError::Full) => {
                self.accounting.waited.fetch_add(1, Relaxed);
                self.accumulator.push_wait(record, size).await
            }
            sent => sent,
        };
        sent.map_err(|_| self.closed())
    }

    pub(super) fn check(&self, record: &Record) -> Result<()> {
        limits::check(&self.limits, self.stream(), record)?;
        match self.driver.upgrade() {
            Some(driver) if !self.accumulator.is_closed() => driver.validate(record),
            _ => Err(self.closed()),
        }
    }

    pub(super) fn count_published(&self, records: u64) {
        self.accounting.published.fetch_add(records, Relaxed);
    }

    pub(super) fn belongs_to(&self, backend: &Arc<dyn driver::Backend>) -> bool {
        std::ptr::addr_eq(self.backend.as_ptr(), Arc::as_ptr(backend))
    }

    fn closed(&self) -> Error {
        let message = "the producer was closed, open a new one";
        self.accounting.error(ErrorKind::Closed, "send", message)
    }

    /// Flushes on behalf of a handle that has reported the first `seen` failures.
    ///
    /// The start of the report is read before the wait: flushes of one handle that overlap all
    /// report the failures that they have waited for.
    pub(super) async fn flush(&self, seen: &AtomicU64) -> Result<()> {
        let from = self.accounting.report_start(seen.load(Relaxed));
        for generation in self.accumulator.next_generation() {
            generation.cancelled().await;
        }
        let (total, result) = self.accounting.report_since(from, "flush");
        seen.fetch_max(total, Relaxed);
        result
    }

    pub(super) fn unobserved_errors(&self) -> u64 {
        self.accounting.unobserved_errors()
    }

    pub(super) async fn close(&self) -> Result<()> {
        self.accumulator.close();
        self.ended.clone().await
    }

    pub(super) fn stats(&self) -> ProducerStats {
        let accounting = &self.accounting;
        // Read in this order, so that no record is counted as completed and not as sent.
        let stored = accounting.stored.load(Relaxed);
        let failed = accounting.failed.load(Relaxed);
        let published = accounting.published.load(Relaxed);
        let completed_bytes = accounting.completed_bytes.load(Relaxed);
        let (sent, sent_bytes) = self.accumulator.sent();
        ProducerStats {
            sent: sent + published,
            stored: stored + published,
            failed,
            retried: accounting.retried.load(Relaxed),
            in_flight: sent - stored - failed,
            in_flight_bytes: sent_bytes - completed_bytes,
            waited: accounting.waited.load(Relaxed),
        }
    }

    pub(super) fn stream(&self) -> &str {
        &self.accounting.stream
    }
}

/// Closes the producer when the last clone is dropped: the task sends the records that are left and closes the
/// driver, within the close timeout. No caller waits for it.
impl Drop for ProducerInner {
    fn drop(&mut self) {
        self.accumulator.close();
    }
}

impl fmt::Debug for ProducerInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("stream", &self.stream())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
