//! The task behind a producer: takes parcels in, makes calls of them, and brings the results to the
//! receipts.
//!
//! It is the only one that calls the driver, so the order of its calls is the order of the stream.
//! Every record that it has, wherever it is, goes with its [`Duty`]; the task may be cut off at any
//! await and by any panic, and each record is still answered once.

use std::collections::VecDeque;
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

use super::backlog::{Backlog, Most};
use super::books::Books;
use super::call::{Call, Ended, key, unpack};
use super::intake::{Intake, Parcel};
use super::receipt::{Answer, Duty, Round};
use crate::driver::{self, Limits, Pipelining, Rejected};
use crate::telemetry::tell;
use crate::{Error, ErrorKind, Record, Result};

/// What `driver.close` gets when the flush has used up the close time-out.
const LEAST_TO_CLOSE: Duration = Duration::from_secs(1);

pub(super) struct Sender {
    books: Arc<Books>,
    intake: Arc<Intake>,
    driver: Arc<dyn driver::Producer>,
    most: Most,
    pipelining: Pipelining,
    close_timeout: Duration,
    /// Taken in, not yet looked at.
    parcels: VecDeque<Parcel>,
    /// Looked at one by one. Empty under `Ordered`; with one call at a time empty until something
    /// fails.
    backlog: Backlog<(Record, Duty)>,
    calls: FuturesUnordered<BoxFuture<'static, Ended>>,
}

impl Sender {
    pub(super) fn new(
        books: Arc<Books>,
        intake: Arc<Intake>,
        driver: Arc<dyn driver::Producer>,
        limits: Limits,
        close_timeout: Duration,
    ) -> Self {
        Self {
            books,
            intake,
            pipelining: driver.pipelining(),
            driver,
            most: Most {
                records: limits.batch_records,
                bytes: limits.batch_bytes,
            },
            close_timeout,
            parcels: VecDeque::new(),
            backlog: Backlog::new(),
            calls: FuturesUnordered::new(),
        }
    }

    /// Runs until the intake is closed and all is answered, then closes the driver. Answers what
    /// [`close`](crate::Producer::close) answers.
    pub(super) async fn run(mut self) -> Result<()> {
        let mut closing = None;
        loop {
            self.start_calls().await;
            if closing.is_none() && self.intake.is_closed() {
                closing = Some(Instant::now() + self.close_timeout);
            }
            if closing.is_some() && self.is_idle() {
                break;
            }
            let hungry = self.may_call();
            let retry = self.backlog.next_due().filter(|_| hungry);
            tokio::select! {
                biased;
                Some(ended) = self.calls.next() => self.settle(ended),
                () = at(closing) => break,
                () = at(retry) => {}
                () = poll_fn(|cx| self.intake.poll(cx, hungry, closing.is_some())) => {}
            }
        }
        self.close(closing.unwrap_or_else(Instant::now)).await
    }

    fn is_idle(&self) -> bool {
        self.calls.is_empty()
            && self.parcels.is_empty()
            && self.backlog.is_empty()
            && self.intake.is_empty()
    }

    /// Whether the driver takes one more call.
    fn may_call(&self) -> bool {
        match self.pipelining {
            Pipelining::Ordered => true,
            Pipelining::ByKey { calls } => self.calls.len() < calls.max(1),
        }
    }

    /// Starts all calls that may be started with what is there now.
    ///
    /// Each call is polled once before the next one is made: that is what "in the order of the
    /// calls" means to a driver of `Pipelining::Ordered`. A driver that answers at once is done
    /// with here, without a trip through the set.
    async fn start_calls(&mut self) {
        if self.parcels.is_empty() && self.may_call() {
            self.intake.take(&mut self.parcels);
        }
        while self.may_call() {
            let Some(call) = self.next_call() else {
                return;
            };
            let mut call = call.make(self.driver.clone(), self.books.clone());
            match poll_fn(|cx| Poll::Ready(call.poll_unpin(cx))).await {
                Poll::Ready(ended) => self.settle(ended),
                Poll::Pending => self.calls.push(call),
            }
            // With a driver that is always ready, this loop would keep its thread for itself.
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Whole parcels go as they are where no key can be bound: with `Ordered`, and with one call at
    /// a time as long as nothing has failed. Otherwise each record is looked at.
    fn next_call(&mut self) -> Option<Call> {
        let whole = match self.pipelining {
            Pipelining::Ordered => true,
            Pipelining::ByKey { calls } => calls <= 1 && self.backlog.is_empty(),
        };
        if whole {
            return self.parcels.pop_front().map(Call::whole);
        }
        for parcel in self.parcels.drain(..) {
            for waiting in unpack(parcel, self.books.room) {
                self.backlog.push(waiting);
            }
        }
        let batch = self.backlog.take(Instant::now(), self.most)?;
        Some(Call::each(batch))
    }

    /// Brings the results of a call to the receipts, or the records back to the backlog.
    fn settle(&mut self, Ended { mut owed, results }: Ended) {
        let now = Instant::now();
        let retries = matches!(self.pipelining, Pipelining::ByKey { .. });
        let missing = match results {
            Some(_) => "the backend's driver answered too few results",
            // Nothing to retry: the records went down with the call.
            None => "the backend's driver panicked",
        };
        let mut results = results.unwrap_or_default().into_iter();
        let mut again = Vec::new();
        let mut reason = None;
        let mut failed = Vec::new();
        let mut round = Round::new(self.books.clone());
        for debt in &mut owed.debts {
            let may_retry = retries && now < debt.deadline;
            let unclear = debt.unclear;
            let later = debt.duty.settle(&mut round, || match results.next() {
                Some(Ok(placed)) => Answer::Final(Ok(placed)),
                Some(Err(Rejected { record, error })) if may_retry && error.is_retryable() => {
                    let cost = self.books.room.cost(record.size());
                    let load = (record, error);
                    Answer::Later { cost, load }
                }
                Some(Err(Rejected { record, error })) => {
                    failed.extend(key(&record));
                    Answer::Final(Err(self.last_answer(error, unclear)))
                }
                None => {
                    let message = format!("{missing}, the record may or may not be stored");
                    let error = self.books.error(ErrorKind::Timeout, "send", message);
                    Answer::Final(Err(error))
                }
            });
            for ((record, error), duty) in later {
                again.push(debt.again(record, &error, duty));
                reason.get_or_insert(error);
            }
        }
        // Before the debts are dropped: a flush that waits for them finds its receipts told.
        drop(round);
        if let Some(error) = reason {
            self.note_retries(again.len() as u64, &error);
        }
        self.backlog.done(owed.keys, failed, again, now);
    }

    /// What a receipt tells of the last attempt. A refusal says nothing of an attempt before it
    /// that timed out.
    fn last_answer(&self, error: Error, unclear: bool) -> Error {
        if !unclear || error.kind() == ErrorKind::Timeout {
            return error;
        }
        let message = "refused at last, but an attempt before timed out and may have stored it";
        self.books
            .error(ErrorKind::Timeout, "send", message)
            .with_source(error)
    }

    fn note_retries(&self, records: u64, error: &Error) {
        self.books.retried.fetch_add(records, Relaxed);
        tell!(
            debug, "millstream.producer.retried", stream = %self.books.stream, records, %error,
            "records failed and are tried again"
        );
    }

    /// Answers `Timeout` to what is left, closes the driver, and sums up.
    async fn close(mut self, deadline: Instant) -> Result<()> {
        let flushed = self.cut_off();
        let unread = self.books.tell_unread("close");
        let closed = self.close_driver(deadline).await;
        tell!(
            info, "millstream.producer.closed", stream = %self.books.stream,
            stored = self.books.stored.load(Relaxed), failed = self.books.failed.load(Relaxed),
            "producer closed"
        );
        match (flushed, unread) {
            (Err(cut_off), Err(unread)) => Err(cut_off.with_source(unread)),
            (flushed, unread) => flushed.and(unread).and(closed),
        }
    }

    fn cut_off(&mut self) -> Result<()> {
        let unanswered = self.unanswered();
        if unanswered == 0 {
            return Ok(());
        }
        let error = |operation, message| {
            let message = format!(
                "{message} within the close time-out of {:?}, raise it or send less",
                self.close_timeout
            );
            self.books.error(ErrorKind::Timeout, operation, message)
        };
        self.books.give_up(error("send", "not answered".into()));
        let told = error("close", format!("{unanswered} records were not answered"));
        self.log_unsent(unanswered, "the close time-out was over");
        self.drop_all();
        Err(told)
    }

    async fn close_driver(&mut self, deadline: Instant) -> Result<()> {
        let (driver, books) = (&self.driver, &self.books);
        let deadline = deadline.max(Instant::now() + LEAST_TO_CLOSE);
        let close = AssertUnwindSafe(async { driver.close().await }).catch_unwind();
        let error = |kind, message| books.error(kind, "close", message);
        match timeout_at(deadline, close).await {
            Ok(Ok(closed)) => closed,
            Ok(Err(_)) => Err(error(
                ErrorKind::Unavailable,
                "the backend's driver panicked",
            )),
            Err(_) => Err(error(
                ErrorKind::Timeout,
                "everything is answered, but the backend's driver did not close in time",
            )),
        }
    }

    fn unanswered(&self) -> u64 {
        self.intake.sent().0 - self.books.answered()
    }

    fn log_unsent(&self, records: u64, reason: &str) {
        tell!(
            error, "millstream.producer.unsent", stream = %self.books.stream, records, reason,
            "records were given up, they may or may not be stored"
        );
    }

    /// Drops every record with its duty; each is answered the last word.
    fn drop_all(&mut self) {
        self.calls.clear();
        self.backlog = Backlog::new();
        self.parcels.clear();
        self.intake.abandon();
    }
}

/// The task has ended, or its runtime has: nobody would answer any more.
impl Drop for Sender {
    fn drop(&mut self) {
        let parcels = self.intake.abandon();
        let unanswered = self.unanswered();
        if unanswered > 0 {
            self.log_unsent(unanswered, "the runtime of the producer has ended");
        }
        drop(parcels);
        self.drop_all();
    }
}

/// Sleeps until then, or for ever.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}
