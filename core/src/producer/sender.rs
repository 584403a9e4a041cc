//! The task of a producer: takes batches, sends them to the driver, and passes the results to the
//! receipts.
//!
//! Only this task calls the driver, so the order of its calls is the order of the stream.
//! Every record that it has, wherever it is, has its [`Completer`] with it. The task may be aborted at
//! any await and by any panic, and each record is still completed once.

use std::collections::{BTreeMap, VecDeque};
use std::future::{pending, poll_fn};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::accounting::Accounting;
use super::accumulator::{RecordAccumulator, RecordBatch};
use super::key_queue::{BatchLimits, KeyOrderedQueue};
use super::receipt::{Completer, Outcome, WakeBatch};
use super::request::{SendRequest, SendResult, into_items, key};
use crate::driver::{self, Pipelining, Rejected, StreamLimits};
use crate::telemetry::{Causes, event};
use crate::{Error, ErrorKind, Record, Result};

/// The time for `driver.close` when the flush has used up the close timeout.
const MIN_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a call of the driver may last before it is taken to be held up by some of its records.
const HELD_UP: Duration = Duration::from_millis(500);

pub(super) struct Sender {
    accounting: Arc<Accounting>,
    accumulator: Arc<RecordAccumulator>,
    driver: Arc<dyn driver::Producer>,
    most: BatchLimits,
    pipelining: Pipelining,
    close_timeout: Duration,
    /// Batches that were taken from the accumulator and not handled yet.
    batches: VecDeque<RecordBatch>,
    /// Requests of the last batch that was divided, which come before `batches`.
    divided: VecDeque<SendRequest>,
    /// Records that are handled one by one. Empty with `Ordered`; with one call at a time, empty until
    /// a record fails.
    queue: KeyOrderedQueue<(Record, Completer)>,
    calls: FuturesUnordered<BoxFuture<'static, SendResult>>,
    /// When each call in flight has begun, by their numbers.
    begun: BTreeMap<u64, Instant>,
    last_call: u64,
}

impl Sender {
    pub(super) fn new(
        accounting: Arc<Accounting>,
        accumulator: Arc<RecordAccumulator>,
        driver: Arc<dyn driver::Producer>,
        limits: StreamLimits,
        close_timeout: Duration,
    ) -> Self {
        Self {
            accounting,
            accumulator,
            pipelining: driver.pipelining(),
            driver,
            most: BatchLimits {
                records: limits.batch_records,
                bytes: limits.batch_bytes,
            },
            close_timeout,
            batches: VecDeque::new(),
            divided: VecDeque::new(),
            queue: KeyOrderedQueue::new(),
            calls: FuturesUnordered::new(),
            begun: BTreeMap::new(),
            last_call: 0,
        }
    }

    /// Runs until the accumulator is closed and all records are completed, then closes the driver.
    /// Returns the result of [`close`](crate::Producer::close).
    pub(super) async fn run(mut self) -> Result<()> {
        let mut closing = None;
        loop {
            self.start_calls().await;
            if closing.is_none() && self.accumulator.is_closed() {
                closing = Some(Instant::now() + self.close_timeout);
            }
            if closing.is_some() && self.is_idle() {
                break;
            }
            let wants_records = self.may_call();
            let retry = self.queue.next_due().filter(|_| wants_records);
            tokio::select! {
                biased;
                Some(ended) = self.calls.next() => self.settle(ended),
                () = sleep_until_opt(closing) => break,
                () = sleep_until_opt(retry) => {}
                () = poll_fn(|cx| self.accumulator.poll(cx, wants_records, closing.is_some())) => {}
            }
        }
        self.close(closing.unwrap_or_else(Instant::now)).await
    }

    fn is_idle(&self) -> bool {
        self.calls.is_empty()
            && self.batches.is_empty()
            && self.divided.is_empty()
            && self.queue.is_empty()
            && self.accumulator.is_empty()
    }

    /// Returns whether the driver accepts one more call.
    fn may_call(&self) -> bool {
        match self.pipelining {
            Pipelining::Ordered => true,
            Pipelining::ByKey { calls } => self.calls.len() < calls.max(1),
        }
    }

    /// Starts all calls that can be started with the available records.
    ///
    /// Each call is polled once before the next one is made: that defines "the order of the
    /// calls" for a driver of `Pipelining::Ordered`. A call that is ready at once is
    /// handled here, without a detour through the set.
    async fn start_calls(&mut self) {
        if self.batches.is_empty() && self.may_call() {
            self.accumulator.take(&mut self.batches);
        }
        while self.may_call() {
            let Some(call) = self.next_call() else {
                return;
            };
            self.last_call += 1;
            self.begun.insert(self.last_call, Instant::now());
            let (driver, accounting) = (self.driver.clone(), self.accounting.clone());
            let mut call = call.make(self.last_call, driver, accounting);
            match poll_fn(|cx| Poll::Ready(call.poll_unpin(cx))).await {
                Poll::Ready(ended) => self.settle(ended),
                Poll::Pending => self.calls.push(call),
            }
            // With a driver that is always ready, this loop would occupy its thread.
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Returns the next call, if there is one. A batch is sent unchanged if no key can be bound: with
    /// `Ordered`, and with one call at a time as long as nothing has failed. Otherwise each record is
    /// handled on its own. While a call is held up, a batch is divided by the routes of its records.
    fn next_call(&mut self) -> Option<SendRequest> {
        let whole = match self.pipelining {
            Pipelining::Ordered => true,
            Pipelining::ByKey { calls } => calls <= 1 && self.queue.is_empty(),
        };
        if whole {
            if self.divided.is_empty() && self.is_held_up() {
                let batch = self.batches.pop_front()?;
                let route = |record: &Record| self.driver.route(record);
                self.divided = SendRequest::by_route(batch, self.accounting.limits, route).into();
            }
            let divided = self.divided.pop_front();
            return divided.or_else(|| self.batches.pop_front().map(SendRequest::from_batch));
        }
        for batch in self.batches.drain(..) {
            for waiting in into_items(batch, self.accounting.limits) {
                self.queue.push(waiting);
            }
        }
        let batch = self.queue.take(Instant::now(), self.most)?;
        Some(SendRequest::from_items(batch))
    }

    /// Returns whether a call lasts so long that its results may wait for a few of its records.
    fn is_held_up(&self) -> bool {
        let is_ordered = matches!(self.pipelining, Pipelining::Ordered);
        let oldest = self.begun.first_key_value().filter(|_| is_ordered);
        oldest.is_some_and(|(_, begun)| begun.elapsed() >= HELD_UP)
    }

    /// Passes the results of a call to the receipts, or the records back to the queue.
    fn settle(
        &mut self,
        SendResult {
            id,
            mut pending,
            results,
        }: SendResult,
    ) {
        self.begun.remove(&id);
        let now = Instant::now();
        let retries = matches!(self.pipelining, Pipelining::ByKey { .. });
        let missing = match results {
            Some(_) => "the backend's driver returned too few results",
            // There is nothing to retry: the records were lost with the call.
            None => "the backend's driver panicked",
        };
        let mut results = results.unwrap_or_default().into_iter();
        let mut again = Vec::new();
        let mut reason = None;
        let mut failed = Vec::new();
        let mut wakes = WakeBatch::new(self.accounting.clone());
        for completion in &mut pending.completions {
            let may_retry = retries && now < completion.deadline;
            let unclear = completion.unclear;
            let later = completion
                .completer
                .settle(&mut wakes, || match results.next() {
                    Some(Ok(stored)) => Outcome::Final(Ok(stored)),
                    Some(Err(Rejected { record, error })) if may_retry && error.is_retryable() => {
                        let charge = self.accounting.limits.charge(record.size());
                        let load = (record, error);
                        Outcome::Retry { charge, load }
                    }
                    Some(Err(Rejected { record, error })) => {
                        failed.extend(key(&record));
                        Outcome::Final(Err(self.final_error(error, unclear)))
                    }
                    None => {
                        let message = format!("{missing}, the record may or may not be stored");
                        let error = self.accounting.error(ErrorKind::Timeout, "send", message);
                        Outcome::Final(Err(error))
                    }
                });
            for ((record, error), completer) in later {
                again.push(completion.again(*record, &error, completer));
                reason.get_or_insert(error);
            }
        }
        // Before the completions are dropped: a flush that waits for them must find its receipts resolved.
        drop(wakes);
        if let Some(error) = reason {
            self.note_retries(again.len() as u64, &error);
        }
        self.queue.done(pending.keys, failed, again, now);
    }

    /// Returns the error of a receipt after the last attempt. A refusal says nothing about an earlier
    /// attempt that timed out.
    fn final_error(&self, error: Error, unclear: bool) -> Error {
        if !unclear || error.kind() == ErrorKind::Timeout {
            return error;
        }
        let message = "refused, but an earlier attempt timed out and may have stored the record";
        self.accounting
            .error(ErrorKind::Timeout, "send", message)
            .with_source(error)
    }

    fn note_retries(&self, records: u64, error: &Error) {
        self.accounting.retried.fetch_add(records, Relaxed);
        event!(
            debug, "millstream.producer.retried", stream = %self.accounting.stream, records,
            error = %Causes(error),
            "records failed and will be retried"
        );
    }

    /// Fails the records that are left with `Timeout`, closes the driver, and returns the result of the close.
    async fn close(mut self, deadline: Instant) -> Result<()> {
        let flushed = self.fail_remaining();
        let unread = self.accounting.report_unreported("close");
        let closed = self.close_driver(deadline).await;
        event!(
            info, "millstream.producer.closed", stream = %self.accounting.stream,
            stored = self.accounting.stored.load(Relaxed) + self.accounting.published.load(Relaxed),
            failed = self.accounting.failed.load(Relaxed),
            "producer closed"
        );
        match (flushed, unread) {
            (Err(expired), Err(unread)) => Err(expired.with_source(unread)),
            (flushed, unread) => flushed.and(unread).and(closed),
        }
    }

    fn fail_remaining(&mut self) -> Result<()> {
        let incomplete = self.incomplete();
        if incomplete == 0 {
            return Ok(());
        }
        let error = |operation, message| {
            let message = format!(
                "{message} within the close timeout of {:?}, raise it or send less",
                self.close_timeout
            );
            self.accounting
                .error(ErrorKind::Timeout, operation, message)
        };
        self.accounting
            .set_terminal_error(error("send", "not acknowledged".into()));
        let failed = error(
            "close",
            format!("{incomplete} records were not acknowledged"),
        );
        self.log_abandoned(incomplete, "the close timeout has expired");
        self.drop_all();
        Err(failed)
    }

    async fn close_driver(&mut self, deadline: Instant) -> Result<()> {
        let (driver, accounting) = (&self.driver, &self.accounting);
        let deadline = deadline.max(Instant::now() + MIN_CLOSE_TIMEOUT);
        let close = AssertUnwindSafe(async { driver.close().await }).catch_unwind();
        let error = |kind, message| accounting.error(kind, "close", message);
        match timeout_at(deadline, close).await {
            Ok(Ok(closed)) => closed,
            Ok(Err(_)) => Err(error(
                ErrorKind::Unavailable,
                "the backend's driver panicked",
            )),
            Err(_) => Err(error(
                ErrorKind::Timeout,
                "everything is completed, but the backend's driver did not close in time",
            )),
        }
    }

    /// Returns how many records are not completed.
    fn incomplete(&self) -> u64 {
        self.accumulator.sent().0 - self.accounting.completed()
    }

    fn log_abandoned(&self, records: u64, reason: &str) {
        event!(
            error, "millstream.producer.unsent", stream = %self.accounting.stream, records, reason,
            "records were abandoned, they may or may not be stored"
        );
    }

    /// Drops every record with its completer. Each fails with the terminal error.
    fn drop_all(&mut self) {
        self.calls.clear();
        self.divided.clear();
        self.queue = KeyOrderedQueue::new();
        self.batches.clear();
        self.accumulator.abandon();
    }
}

/// Completes the records that are left: the task or its runtime has ended, and nothing else would.
impl Drop for Sender {
    fn drop(&mut self) {
        let batches = self.accumulator.abandon();
        let incomplete = self.incomplete();
        if incomplete > 0 {
            self.log_abandoned(incomplete, "the runtime of the producer has ended");
        }
        drop(batches);
        self.drop_all();
    }
}

/// Sleeps until `when`, or forever if it is `None`.
async fn sleep_until_opt(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}
