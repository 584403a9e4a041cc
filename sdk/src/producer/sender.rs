//! The task behind a producer: takes parcels in, makes calls of them, and brings the results to the
//! receipts.
//!
//! It is the only one that calls the driver, so the order of its calls is the order of the stream.
//! Every record that it has, wherever it is, goes with its [`Duty`]; the task may be cut off at any
//! await and by any panic, and each record is still answered once.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::backlog::{self, Backlog, Batch, Failure, Item, Most};
use super::books::Books;
use super::intake::{Intake, Parcel};
use super::receipt::{Answer, Duty, Round};
use crate::driver::{self, Limits, Pipelining, Rejected};
use crate::{Error, ErrorKind, Placed, Record, Result};

/// What `driver.close` gets when the flush has used up the close time-out.
const LEAST_TO_CLOSE: Duration = Duration::from_secs(1);

pub(super) struct Sender {
    pub(super) books: Arc<Books>,
    pub(super) intake: Arc<Intake>,
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

/// What a call owes: duties in the order of its records, and the keys that it binds.
struct Owed {
    duties: Vec<Owing>,
    keys: Vec<u64>,
}

/// One duty, for a whole parcel or for one record.
struct Owing {
    duty: Duty,
    deadline: Instant,
    attempts: u32,
}

/// A call that has ended; its results, or nothing if the driver panicked.
struct Ended {
    owed: Owed,
    results: Option<Vec<Result<Placed, Rejected>>>,
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
            let Some((records, owed)) = self.next_call() else {
                return;
            };
            let mut call = self.call(records, owed);
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
    fn next_call(&mut self) -> Option<(Vec<Record>, Owed)> {
        let whole = match self.pipelining {
            Pipelining::Ordered => true,
            Pipelining::ByKey { calls } => calls <= 1 && self.backlog.is_empty(),
        };
        if whole {
            return self.parcels.pop_front().map(Owed::whole);
        }
        for parcel in self.parcels.drain(..) {
            unpack(parcel, &self.books, &mut self.backlog);
        }
        self.backlog.take(Instant::now(), self.most).map(Owed::each)
    }

    fn call(&self, records: Vec<Record>, owed: Owed) -> BoxFuture<'static, Ended> {
        let driver = self.driver.clone();
        let books = self.books.clone();
        async move {
            let send = async { driver.send(records).await };
            let results = AssertUnwindSafe(send).catch_unwind().await.ok();
            if results.is_none() {
                tracing::event!(
                    name: "millstream.producer.panicked",
                    target: "millstream",
                    tracing::Level::ERROR,
                    stream = %books.stream,
                    "the backend's driver panicked"
                );
            }
            Ended { owed, results }
        }
        .boxed()
    }

    /// Brings the results of a call to the receipts, or back to the backlog.
    fn settle(&mut self, ended: Ended) {
        let Ended { mut owed, results } = ended;
        let retries = matches!(self.pipelining, Pipelining::ByKey { .. });
        let now = Instant::now();
        let lost = match results {
            Some(_) => {
                "the backend's driver answered too few results, the record may or may not be stored"
            }
            // Not retried: the records went down with the call.
            None => "the backend's driver panicked, the record may or may not be stored",
        };
        let mut results = results.unwrap_or_default().into_iter();
        let mut failures = Vec::new();
        let mut round = Round::new(self.books.clone());
        for Owing {
            duty,
            deadline,
            attempts,
        } in &mut owed.duties
        {
            let mut rejects = Vec::new();
            let later = duty.settle(&mut round, || match results.next() {
                Some(Ok(placed)) => Answer::Final(Ok(placed)),
                Some(Err(Rejected { record, error })) if retries => {
                    let again = error.is_retryable() && now < *deadline;
                    let answer = if again {
                        Answer::Later {
                            cost: self.books.room.cost(record.size()),
                        }
                    } else {
                        Answer::Final(Err(error.clone()))
                    };
                    rejects.push((record, error, again));
                    answer
                }
                Some(Err(Rejected { error, .. })) => Answer::Final(Err(error)),
                None => Answer::Final(Err(self.books.error(ErrorKind::Unavailable, "send", lost))),
            });
            let mut later = later.into_iter();
            for (record, error, again) in rejects {
                let key = record.key.as_deref().map(backlog::hash);
                failures.push((
                    error,
                    match again {
                        false => Failure::Final(key),
                        true => Failure::Again(Item {
                            key,
                            bytes: record.size(),
                            deadline: *deadline,
                            attempts: *attempts,
                            load: (
                                record,
                                later
                                    .next()
                                    .expect("one duty for each record to be tried again"),
                            ),
                        }),
                    },
                ));
            }
        }
        drop(round);
        self.note_retries(&failures);
        let failures = failures.into_iter().map(|(_, failure)| failure);
        self.backlog.done(owed.keys, failures, now);
    }

    fn note_retries(&self, failures: &[(Error, Failure<(Record, Duty)>)]) {
        let mut again = failures
            .iter()
            .filter(|(_, failure)| matches!(failure, Failure::Again(_)));
        let Some((error, _)) = again.next() else {
            return;
        };
        let records = again.count() as u64 + 1;
        self.books.retried.fetch_add(records, Relaxed);
        tracing::event!(
            name: "millstream.producer.retried",
            target: "millstream",
            tracing::Level::DEBUG,
            stream = %self.books.stream,
            records,
            %error,
            "records failed and are tried again"
        );
    }

    /// Answers `Timeout` to what is left, closes the driver, and sums up.
    async fn close(mut self, deadline: Instant) -> Result<()> {
        let unanswered = self.unanswered();
        let cut_off = (unanswered > 0).then(|| {
            let message = format!("not answered when the close time-out of {:?} was over", self.close_timeout);
            self.books.give_up(self.books.error(ErrorKind::Timeout, "send", message));
            self.log_unsent(unanswered, "the close time-out was over");
            self.drop_all();
            let message = format!(
                "{unanswered} records were not answered within the close time-out of {:?}, raise it or send less",
                self.close_timeout
            );
            self.books.error(ErrorKind::Timeout, "close", message)
        });
        let unread = self.books.tell_unread("close");
        let closed = self.close_driver(deadline).await;
        tracing::event!(
            name: "millstream.producer.closed",
            target: "millstream",
            tracing::Level::INFO,
            stream = %self.books.stream,
            stored = self.books.stored.load(Relaxed),
            failed = self.books.failed.load(Relaxed),
            "producer closed"
        );
        match cut_off {
            Some(error) => Err(match unread {
                Ok(()) => error,
                Err(unread) => error.with_source(unread),
            }),
            None => unread.and(closed),
        }
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
        tracing::event!(
            name: "millstream.producer.unsent",
            target: "millstream",
            tracing::Level::ERROR,
            stream = %self.books.stream,
            records,
            reason,
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
        // A failure that was noted after the last telling has its log line, by the first of them or
        // by its number.
        let _ = self.books.tell_unread("close");
    }
}

impl Owed {
    fn whole(parcel: Parcel) -> (Vec<Record>, Self) {
        let Parcel {
            records,
            duty,
            deadline,
        } = parcel;
        let duties = vec![Owing {
            duty,
            deadline,
            attempts: 0,
        }];
        (
            records,
            Self {
                duties,
                keys: Vec::new(),
            },
        )
    }

    fn each(batch: Batch<(Record, Duty)>) -> (Vec<Record>, Self) {
        let Batch { items, keys, .. } = batch;
        let (records, duties) = items
            .into_iter()
            .map(
                |Item {
                     deadline,
                     attempts,
                     load: (record, duty),
                     ..
                 }| {
                    (
                        record,
                        Owing {
                            duty,
                            deadline,
                            attempts,
                        },
                    )
                },
            )
            .unzip();
        (records, Self { duties, keys })
    }
}

fn unpack(parcel: Parcel, books: &Books, backlog: &mut Backlog<(Record, Duty)>) {
    let Parcel {
        records,
        duty,
        deadline,
    } = parcel;
    let mut costs = records.iter().map(|record| books.room.cost(record.size()));
    let duties = duty.split(|| costs.next().expect("one record for each duty"));
    for (record, duty) in records.into_iter().zip(duties) {
        backlog.push(Item {
            key: record.key.as_deref().map(backlog::hash),
            bytes: record.size(),
            deadline,
            attempts: 0,
            load: (record, duty),
        });
    }
}

/// Sleeps until then, or for ever.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}
