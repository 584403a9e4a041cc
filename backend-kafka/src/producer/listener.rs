//! The thread of a client: takes its reports, lets the next records go, and sees to its end.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use millstream_core::telemetry::event;
use millstream_core::{Error, ErrorKind};
use tokio::sync::mpsc;

use super::Native;
use super::batch_limit::BatchLimit;
use super::hurrier::Hurrier;
use super::innocent::Innocent;
use super::lane::Lane;
use super::pace::Pace;
use super::place::{LOOK_EVERY, end_without_topic, is_back, is_unknown_topic};
use crate::error;
use crate::native::delivery::{Batch, Report};
use crate::native::produce::Told;

/// How long the reports of an ended client are waited for before more is taken back.
const TURN: Duration = Duration::from_millis(100);

/// How long the answers to what was sent are waited for when a client ends.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// What one event has told of records on tracks: mostly of one track, as a request is of one
/// partition.
#[derive(Debug, Default)]
pub(super) struct Answered {
    tracks: Vec<(usize, usize)>,
    partition: i32,
    /// Whether any record was stored.
    stored: bool,
}

impl Answered {
    fn count(&mut self, batch: &Batch, index: usize, report: Report) {
        if let Report::Stored { partition, .. } = report {
            self.partition = self.partition.max(partition);
            self.stored = true;
        }
        let Some(track) = batch.track(index) else {
            return;
        };
        match self.tracks.last_mut() {
            Some((last, count)) if *last == track => *count += 1,
            _ => self.tracks.push((track, 1)),
        }
    }

    /// Returns whether any record was stored since the last call.
    pub(super) fn tell(&mut self, pace: &mut Pace, now: Instant) -> bool {
        for (track, records) in self.tracks.drain(..) {
            pace.answered(track, records, now);
        }
        pace.meet(self.partition);
        std::mem::take(&mut self.stored)
    }
}

pub(super) struct Listener {
    lane: Arc<Lane>,
    native: Arc<Native>,
    /// How large the client's batches are.
    limit: BatchLimit,
    /// Every listener has one: when all are gone, all clients are.
    alive: mpsc::Sender<()>,
}

impl Listener {
    pub(super) fn new(
        lane: Arc<Lane>,
        native: Arc<Native>,
        limit: BatchLimit,
        alive: mpsc::Sender<()>,
    ) -> Self {
        Self {
            lane,
            native,
            limit,
            alive,
        }
    }

    pub(super) fn run(self) {
        let mut innocent = Innocent::default();
        let mut answered = Answered::default();
        let mut hurrier = None;
        while !self.lane.is_closing() {
            if self.lane.place().look_around(&self.native, &mut answered) {
                self.hurry(&mut hurrier);
            }
            let told = self.poll(LOOK_EVERY, None, &mut innocent, &mut answered);
            if self.has_ended(told) {
                return self.replace(innocent);
            }
        }
        self.finish(innocent);
    }

    /// Only a client with slow partitions needs the thread.
    fn hurry(&self, hurrier: &mut Option<Hurrier>) {
        if hurrier.is_none() {
            let started = Hurrier::start(self.native.clone(), self.alive.clone());
            // Without it, records linger once more.
            *hurrier = started.ok();
        }
        if let Some(hurrier) = hurrier {
            hurrier.hurry();
        }
    }

    /// `refusal` is what records answer that the client gives back; without, they are kept.
    fn poll(
        &self,
        within: Duration,
        refusal: Option<&Error>,
        innocent: &mut Innocent,
        answered: &mut Answered,
    ) -> Told {
        let native = &self.native;
        native.context().look_after(native.client());
        native.poll(within, &mut |batch, index, report| {
            answered.count(batch, index, report);
            match refusal {
                Some(error) if is_back(report) => batch.give_up(index, error),
                None if is_back(report) => {
                    self.lane.place().take_back(batch);
                    return false;
                }
                None if innocent.takes(batch, index, report, self.limit) => return false,
                _ => {
                    end_without_topic(&self.native, report);
                    if is_unknown_topic(report) && !self.lane.place().on_unknown_topic(batch) {
                        return false;
                    }
                    batch.report(index, report);
                }
            }
            true
        })
    }

    /// Takes reports of a client to which nothing goes any more.
    fn drain(&self, refusal: Option<&Error>, innocent: &mut Innocent) {
        self.poll(TURN, refusal, innocent, &mut Answered::default());
    }

    /// Whether the client can send no more.
    fn has_ended(&self, told: Told) -> bool {
        // The fatal error is also asked for when there is nothing to do, so that the end of a client
        // does not hang on one event.
        self.native.context().trouble.first().is_some()
            || self.refusal().is_some()
            || told != Told::Something && self.native.fatal_error().is_some()
    }

    /// What the client was refused by, if it was: what all its records answer then.
    fn refusal(&self) -> Option<Error> {
        let told = |error: &Error| {
            Error::new(error.kind(), "send", error.message().to_owned())
                .with_stream(self.lane.stream.clone())
        };
        match self.native.context().trouble.first() {
            // The next client has the password and the certificate that their files hold then, and may be let
            // in. Records wait for their deadline.
            Some(trouble) if trouble.kind() == ErrorKind::Unauthenticated => return None,
            // The next client asks for the topic again.
            Some(trouble)
                if trouble.kind() == ErrorKind::NotFound && !self.lane.place().has_no_topic() =>
            {
                return None;
            }
            Some(trouble) => return Some(told(&trouble).with_source(trouble)),
            None => {}
        }
        let (code, reason) = self.native.fatal_error()?;
        let fatal = Error::new(error::kind(code), "send", reason);
        let refused = matches!(
            fatal.kind(),
            ErrorKind::Denied | ErrorKind::Unauthenticated | ErrorKind::Unsupported
        );
        refused.then(|| told(&fatal))
    }

    fn replace(self, mut innocent: Innocent) {
        let trouble = self.native.context().trouble.first();
        let reason = trouble.map(|error| error.to_string());
        let reason = reason.or_else(|| Some(self.native.fatal_error()?.1));
        event!(
            info, "millstream.kafka.producer.replaced",
            stream = %self.lane.stream, reason,
            "a producing client can send no more and is replaced"
        );
        self.lane.place().close();
        let patience = Instant::now() + GRACE;
        while self.native.holds_records() {
            let in_flight = Instant::now() >= patience || self.lane.is_closing();
            self.native.purge(in_flight);
            // It may come out only now what the end was about.
            self.drain(self.refusal().as_ref(), &mut innocent);
        }
        if innocent.needs_smaller_batches() {
            self.lane.lower_limit();
        }
        innocent.come_back(self.lane.place().back());
        self.take_stock();
        self.next_client();
    }

    /// Answers what is not to be sent again of what came back: records after a failed one of their
    /// key, and records whose time is over.
    fn take_stock(&self) {
        let mut place = self.lane.place();
        place.back().retain(|_, batch| {
            batch.hold_back();
            if batch.deadline <= Instant::now() {
                batch.give_up_open(&self.overdue());
            }
            !batch.is_answered()
        });
    }

    /// Waits until there is something to send, and makes the client for it.
    fn next_client(&self) {
        let mut place = self.lane.place();
        loop {
            if self.lane.is_closing() {
                let closed = self.error(ErrorKind::Closed, "the producer was closed");
                return place.give_up(&closed);
            }
            if place.is_empty() {
                let waited = self.lane.wanted.wait(place);
                place = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(place);
            let made = self.lane.make("send");
            place = self.lane.place();
            let alive = self.alive.clone();
            match made.and_then(|native| self.lane.follow(&mut place, native, alive, "send")) {
                Ok(()) => return,
                Err(error) => place.give_up(&error),
            }
        }
    }

    /// Ends the client with nobody waiting.
    fn finish(&self, mut innocent: Innocent) {
        let closed = self.error(ErrorKind::Closed, "the producer was closed");
        self.lane.place().close();
        while self.native.holds_records() {
            self.native.purge(true);
            self.drain(Some(&closed), &mut innocent);
        }
        innocent.come_back(self.lane.place().back());
        self.lane.place().give_up(&closed);
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
        Error::new(kind, "send", message).with_stream(self.lane.stream.clone())
    }
}
