//! What the clones of a producer share.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use super::books::{Books, Room};
use super::intake::{Intake, Refused};
use super::options::Options;
use super::sender::Sender;
use super::{Producer, ProducerStats, limits};
use crate::driver::{self, Limits};
use crate::telemetry::tell;
use crate::{Error, ErrorKind, Receipt, Record, Result};

/// The user's end of a producer. Owns the sender task: [`close`](Self::close) joins it, dropping
/// lets it end by itself.
pub(super) struct Handle {
    /// The connection that it was opened from. Weak: it is compared, never used, and a producer must
    /// not keep a connection open by that.
    backend: Weak<dyn driver::Backend>,
    books: Arc<Books>,
    intake: Arc<Intake>,
    limits: Limits,
    /// The end of the task, for everyone who waits for it.
    ended: Shared<BoxFuture<'static, Result<()>>>,
}

pub(super) fn open(
    backend: &Arc<dyn driver::Backend>,
    stream: Arc<str>,
    driver: Arc<dyn driver::Producer>,
    options: &Options,
) -> Producer {
    let limits = driver.limits();
    let room = Room {
        records: options.in_flight_records as u64,
        bytes: options.in_flight_bytes as u64,
    };
    let books = Arc::new(Books::new(stream, room));
    let intake = Arc::new(Intake::new(books.clone(), limits, options.timeout));
    let sender = Sender::new(
        books.clone(),
        intake.clone(),
        driver,
        limits,
        options.close_timeout,
    );
    let task = tokio::spawn(sender.run());
    let stream = books.stream.clone();
    let ended = async move {
        // The one way for the task not to answer is that its runtime has ended: a panic of the
        // driver is caught where it is called.
        task.await.unwrap_or_else(|failure| {
            let message = "the producer's task was cut off, records may or may not be stored";
            let error = Error::new(ErrorKind::Unavailable, "close", message);
            Err(error.with_stream(stream).with_source(failure))
        })
    };
    tell!(
        info, "millstream.producer.opened", stream = %books.stream, "producer opened"
    );
    Producer(Arc::new(Handle {
        backend: Arc::downgrade(backend),
        books,
        intake,
        limits,
        ended: ended.boxed().shared(),
    }))
}

impl Handle {
    /// Takes the record out when it is sent, and leaves it otherwise.
    pub(super) async fn send(&self, record: &mut Record) -> Result<Receipt> {
        let size = limits::check(&self.limits, self.stream(), record)?;
        let sent = match self.intake.push(record, size) {
            Err(Refused::Full) => {
                self.books.waited.fetch_add(1, Relaxed);
                self.intake.push_in_turn(record, size).await
            }
            sent => sent,
        };
        sent.map_err(|_| self.closed())
    }

    pub(super) fn check(&self, record: &Record) -> Result<()> {
        limits::check(&self.limits, self.stream(), record)?;
        match self.intake.is_closed() {
            true => Err(self.closed()),
            false => Ok(()),
        }
    }

    pub(super) fn is_of(&self, backend: &Arc<dyn driver::Backend>) -> bool {
        std::ptr::addr_eq(self.backend.as_ptr(), Arc::as_ptr(backend))
    }

    fn closed(&self) -> Error {
        let message = "the producer was closed, open a new one";
        self.books.error(ErrorKind::Closed, "send", message)
    }

    pub(super) async fn flush(&self) -> Result<()> {
        for era in self.intake.turn_era() {
            era.cancelled().await;
        }
        self.books.tell_unread("flush")
    }

    pub(super) async fn close(&self) -> Result<()> {
        self.intake.close();
        self.ended.clone().await
    }

    pub(super) fn stats(&self) -> ProducerStats {
        let books = &self.books;
        // In this order, so that nothing is answered that was not sent.
        let stored = books.stored.load(Relaxed);
        let failed = books.failed.load(Relaxed);
        let answered_bytes = books.answered_bytes.load(Relaxed);
        let (sent, sent_bytes) = self.intake.sent();
        ProducerStats {
            sent,
            stored,
            failed,
            retried: books.retried.load(Relaxed),
            in_flight: sent - stored - failed,
            in_flight_bytes: sent_bytes - answered_bytes,
            waited: books.waited.load(Relaxed),
        }
    }

    pub(super) fn stream(&self) -> &str {
        &self.books.stream
    }
}

/// The last clone is gone: the task sends what is left and closes the driver, within the close
/// time-out, with nobody waiting.
impl Drop for Handle {
    fn drop(&mut self) {
        self.intake.close();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("stream", &self.stream())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
