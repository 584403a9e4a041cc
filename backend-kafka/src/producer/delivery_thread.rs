//! The thread of a client: takes its reports, lets the next records go, and sees to its end.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use millstream_core::telemetry::event;
use millstream_core::{Error, ErrorKind};
use tokio::sync::mpsc;

use super::Native;
use super::accumulator::{LOOK_EVERY, end_without_topic, is_back, is_unknown_topic};
use super::batch_limit::BatchLimit;
use super::collateral::CollateralRecords;
use super::in_flight_throttle::InFlightThrottle;
use super::linger_flusher::LingerFlusher;
use super::record_sender::RecordSender;
use crate::error;
use crate::native::delivery::{Batch, Report};
use crate::native::produce::Polled;

/// How long the reports of an ended client are waited for before more is taken back.
const TURN: Duration = Duration::from_millis(100);

/// How long the answers to what was sent are waited for when a client ends.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// What one event has told of records on queues: mostly of one queue, as a request is of one
/// partition.
#[derive(Debug, Default)]
pub(super) struct ReportSummary {
    queues: Vec<(usize, usize)>,
    partition: i32,
    /// Whether any record was stored.
    stored: bool,
}

impl ReportSummary {
    fn count(&mut self, batch: &Batch, index: usize, report: Report) {
        if let Report::Stored { partition, .. } = report {
            self.partition = self.partition.max(partition);
            self.stored = true;
        }
        let Some(queue) = batch.partition_queue(index) else {
            return;
        };
        match self.queues.last_mut() {
            Some((last, count)) if *last == queue => *count += 1,
            _ => self.queues.push((queue, 1)),
        }
    }

    /// Returns whether any record was stored since the last call.
    pub(super) fn tell(&mut self, throttle: &mut InFlightThrottle, now: Instant) -> bool {
        for (queue, records) in self.queues.drain(..) {
            throttle.on_reported(queue, records, now);
        }
        throttle.add_partition(self.partition);
        std::mem::take(&mut self.stored)
    }
}

pub(super) struct DeliveryThread {
    sender: Arc<RecordSender>,
    native: Arc<Native>,
    /// How large the client's batches are.
    limit: BatchLimit,
    /// Every delivery thread has one: when all are gone, all clients are.
    alive: mpsc::Sender<()>,
}

impl DeliveryThread {
    pub(super) fn new(
        sender: Arc<RecordSender>,
        native: Arc<Native>,
        limit: BatchLimit,
        alive: mpsc::Sender<()>,
    ) -> Self {
        Self {
            sender,
            native,
            limit,
            alive,
        }
    }

    pub(super) fn run(self) {
        let mut collateral = CollateralRecords::default();
        let mut answered = ReportSummary::default();
        let mut flusher = None;
        while !self.sender.is_closing() {
            if self
                .sender
                .accumulator()
                .look_around(&self.native, &mut answered)
            {
                self.flush_lingering(&mut flusher);
            }
            let polled = self.poll(LOOK_EVERY, None, &mut collateral, &mut answered);
            if self.has_ended(polled) {
                return self.replace(collateral);
            }
        }
        self.finish(collateral);
    }

    /// Only a client with slow partitions needs the thread.
    fn flush_lingering(&self, flusher: &mut Option<LingerFlusher>) {
        if flusher.is_none() {
            let started = LingerFlusher::start(self.native.clone(), self.alive.clone());
            // Without it, records linger once more.
            *flusher = started.ok();
        }
        if let Some(flusher) = flusher {
            flusher.flush_lingering();
        }
    }

    /// `refusal` is what records answer that the client gives back; without, they are kept.
    fn poll(
        &self,
        within: Duration,
        refusal: Option<&Error>,
        collateral: &mut CollateralRecords,
        answered: &mut ReportSummary,
    ) -> Polled {
        let native = &self.native;
        native.context().look_after(native.client());
        native.poll(within, &mut |batch, index, report| {
            answered.count(batch, index, report);
            match refusal {
                Some(error) if is_back(report) => batch.give_up(index, error),
                None if is_back(report) => {
                    self.sender.accumulator().take_back(batch);
                    return false;
                }
                None if collateral.keep(batch, index, report, self.limit) => return false,
                _ => {
                    end_without_topic(&self.native, report);
                    if is_unknown_topic(report)
                        && !self.sender.accumulator().on_unknown_topic(batch)
                    {
                        return false;
                    }
                    batch.report(index, report);
                }
            }
            true
        })
    }

    /// Takes reports of a client to which nothing goes any more.
    fn drain(&self, refusal: Option<&Error>, collateral: &mut CollateralRecords) {
        self.poll(TURN, refusal, collateral, &mut ReportSummary::default());
    }

    /// Whether the client can send no more.
    fn has_ended(&self, polled: Polled) -> bool {
        // The fatal error is also asked for when there is nothing to do, so that the end of a client
        // does not hang on one event.
        self.native.context().trouble.first().is_some()
            || self.refusal().is_some()
            || polled != Polled::Event && self.native.fatal_error().is_some()
    }

    /// What the client was refused by, if it was: what all its records answer then.
    fn refusal(&self) -> Option<Error> {
        let rejected = |error: &Error| {
            Error::new(error.kind(), "send", error.message().to_owned())
                .with_stream(self.sender.stream.clone())
        };
        match self.native.context().trouble.first() {
            // The next client has the password and the certificate that their files hold then, and may be let
            // in. Records wait for their deadline.
            Some(trouble) if trouble.kind() == ErrorKind::Unauthenticated => return None,
            // The next client asks for the topic again.
            Some(trouble)
                if trouble.kind() == ErrorKind::NotFound
                    && !self.sender.accumulator().has_no_topic() =>
            {
                return None;
            }
            Some(trouble) => return Some(rejected(&trouble).with_source(trouble)),
            None => {}
        }
        let (code, reason) = self.native.fatal_error()?;
        let fatal = Error::new(error::kind(code), "send", reason);
        let refused = matches!(
            fatal.kind(),
            ErrorKind::Denied | ErrorKind::Unauthenticated | ErrorKind::Unsupported
        );
        refused.then(|| rejected(&fatal))
    }

    fn replace(self, mut collateral: CollateralRecords) {
        let trouble = self.native.context().trouble.first();
        let reason = trouble.map(|error| error.to_string());
        let reason = reason.or_else(|| Some(self.native.fatal_error()?.1));
        event!(
            info, "millstream.kafka.producer.replaced",
            stream = %self.sender.stream, reason,
            "a producing client can send no more and is replaced"
        );
        self.sender.accumulator().close();
        let patience = Instant::now() + GRACE;
        while self.native.holds_records() {
            let in_flight = Instant::now() >= patience || self.sender.is_closing();
            self.native.purge(in_flight);
            // It may come out only now what the end was about.
            self.drain(self.refusal().as_ref(), &mut collateral);
        }
        if collateral.needs_smaller_batches() {
            self.sender.lower_limit();
        }
        collateral.release(self.sender.accumulator().back());
        self.take_stock();
        self.next_client();
    }

    /// Answers what is not to be sent again of what came back: records after a failed one of their
    /// key, and records whose time is over.
    fn take_stock(&self) {
        let mut accumulator = self.sender.accumulator();
        accumulator.back().retain(|_, batch| {
            batch.hold_back();
            if batch.deadline <= Instant::now() {
                batch.give_up_open(&self.overdue());
            }
            !batch.is_answered()
        });
    }

    /// Waits until there is something to send, and makes the client for it.
    fn next_client(&self) {
        let mut accumulator = self.sender.accumulator();
        loop {
            if self.sender.is_closing() {
                let closed = self.error(ErrorKind::Closed, "the producer was closed");
                return accumulator.give_up(&closed);
            }
            if accumulator.is_empty() {
                let waited = self.sender.wanted.wait(accumulator);
                accumulator = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(accumulator);
            let made = self.sender.make("send");
            accumulator = self.sender.accumulator();
            let alive = self.alive.clone();
            match made
                .and_then(|native| self.sender.follow(&mut accumulator, native, alive, "send"))
            {
                Ok(()) => return,
                Err(error) => accumulator.give_up(&error),
            }
        }
    }

    /// Ends the client with nobody waiting.
    fn finish(&self, mut collateral: CollateralRecords) {
        let closed = self.error(ErrorKind::Closed, "the producer was closed");
        self.sender.accumulator().close();
        while self.native.holds_records() {
            self.native.purge(true);
            self.drain(Some(&closed), &mut collateral);
        }
        collateral.release(self.sender.accumulator().back());
        self.sender.accumulator().give_up(&closed);
    }

    fn overdue(&self) -> Error {
        let error = self.error(ErrorKind::Timeout, "not stored before its time was over");
        let context = self.native.context();
        match context.refused_login().or_else(|| context.trouble.first()) {
            Some(reason) => error.with_source(reason),
            None => error,
        }
    }

    fn error(&self, kind: ErrorKind, message: &'static str) -> Error {
        Error::new(kind, "send", message).with_stream(self.sender.stream.clone())
    }
}
