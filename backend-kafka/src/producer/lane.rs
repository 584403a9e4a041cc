//! The way into librdkafka: one client at a time, replaced when it can send no more.
//!
//! A call takes its place in the order under one lock, when it is first polled: its records go to
//! the client, or, while the client is replaced, into a queue that the next one gets first. So the
//! order of the calls is the order of the stream, over any number of clients.
//!
//! # How a client is replaced
//!
//! librdkafka raises a *fatal* error where going on could store records twice or out of order, and,
//! as it is set up here, where a broker has refused a request; that client sends nothing any more. A
//! refused login is not fatal, but librdkafka would try it until each record times out; and for a
//! topic that is gone or forbidden, it would not look again for minutes. Each of these ends a
//! client, on its own thread:
//!
//! 1. New calls queue up.
//! 2. What was not sent is taken back, and what was is waited for, for [`GRACE`]: as long as the
//!    broker may still store a record of this client, no other client sends, or it could overtake
//!    it. What is not answered then answers `Timeout`.
//! 3. What came back is sent again by the next client, in its order and before the queue, but for
//!    records behind a failed one of their key and call. None of it was stored: librdkafka says of
//!    each record whether it may be. Where the client itself was refused, all answer that instead.
//! 4. The next client is made when there is something to send.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use millstream::{Error, ErrorKind, Result};
use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::types::RDKafkaRespErr as Raw;
use tokio::sync::mpsc;

use super::batch::{Batch, Report};
use crate::connection::context::Context;
use crate::error;
use crate::native::produce::{Native, Scratch, Told};

/// How long a listener waits before it looks around.
const TURN: Duration = Duration::from_millis(100);

/// How long the answers to what was sent are waited for when a client ends.
const GRACE: Duration = Duration::from_secs(5);

/// Shared by the producer and the listener of its client.
pub(super) struct Lane {
    stream: Arc<str>,
    settings: ClientConfig,
    context: Context,
    closing: AtomicBool,
    place: Mutex<Place>,
    /// Told when there is something to send and no client.
    wanted: Condvar,
}

struct Place {
    way: Way,
    /// Batches with records that librdkafka gave back unsent, by their turns.
    back: BTreeMap<u64, Arc<Batch>>,
    /// How many calls have come.
    turns: u64,
    scratch: Scratch,
}

enum Way {
    Open(Arc<Native>),
    /// No client, and the calls that wait for one.
    Between(VecDeque<Arc<Batch>>),
}

impl Lane {
    /// Opens the way, and tells when it has ended: then the receiver's senders are gone.
    pub(super) fn open(
        stream: Arc<str>,
        settings: ClientConfig,
        context: Context,
    ) -> Result<(Arc<Self>, mpsc::Receiver<()>)> {
        let (alive, ended) = mpsc::channel(1);
        let lane = Arc::new(Self {
            stream,
            settings,
            context,
            closing: AtomicBool::new(false),
            place: Mutex::new(Place {
                way: Way::Between(VecDeque::new()),
                back: BTreeMap::new(),
                turns: 0,
                scratch: Scratch::default(),
            }),
            wanted: Condvar::new(),
        });
        let native = lane.make("open producer")?;
        lane.follow(&mut lane.place(), native, alive, "open producer")?;
        Ok((lane, ended))
    }

    /// Hands a batch over in its turn: now.
    pub(super) fn submit(&self, batch: &Arc<Batch>) {
        let mut place = self.place();
        place.turns += 1;
        batch.take_turn(place.turns);
        match &mut place.way {
            Way::Open(native) => {
                let native = native.clone();
                place.hand_over(&native, batch);
            }
            Way::Between(waiting) => {
                waiting.push_back(batch.clone());
                self.wanted.notify_one();
            }
        }
    }

    /// Lets the client end, and gives up what is left.
    pub(super) fn close(&self) {
        self.closing.store(true, Relaxed);
        let place = self.place();
        match &place.way {
            Way::Open(native) => native.nudge(),
            Way::Between(_) => self.wanted.notify_one(),
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// Makes a client, not under the lock: it takes milliseconds, and with TLS more.
    fn make(&self, operation: &'static str) -> Result<Arc<Native>> {
        let told = |e| error::from(operation, e).with_stream(self.stream.clone());
        let (settings, context) = self.context.successor(&self.settings);
        let native = Native::open(&settings, context, &self.stream).map_err(told)?;
        Ok(Arc::new(native))
    }

    /// Gives a client its listener, and what waits.
    fn follow(
        self: &Arc<Self>,
        place: &mut Place,
        native: Arc<Native>,
        alive: mpsc::Sender<()>,
        operation: &'static str,
    ) -> Result<()> {
        let listener = Listener {
            lane: self.clone(),
            native: native.clone(),
            alive,
        };
        let thread = thread::Builder::new().name(format!("kafka-{}", self.stream));
        thread.spawn(move || listener.run()).map_err(|e| {
            Error::new(ErrorKind::Unavailable, operation, "no thread to be had")
                .with_stream(self.stream.clone())
                .with_source(e)
        })?;
        let waiting = match mem::replace(&mut place.way, Way::Open(native.clone())) {
            Way::Between(waiting) => waiting,
            Way::Open(_) => VecDeque::new(),
        };
        let back = mem::take(&mut place.back);
        for batch in back.values().chain(&waiting) {
            place.hand_over(&native, batch);
        }
        Ok(())
    }
}

impl Place {
    fn hand_over(&mut self, native: &Native, batch: &Arc<Batch>) {
        let back = &mut self.back;
        native.produce(batch, &mut self.scratch, &mut |batch, index, report| {
            if is_back(report) {
                back.insert(batch.turn(), batch.clone());
                return false;
            }
            end_without_topic(native, report);
            batch.report(index, report);
            true
        });
    }

    fn is_empty(&self) -> bool {
        self.back.is_empty() && matches!(&self.way, Way::Between(waiting) if waiting.is_empty())
    }
}

/// Ends a client whose topic is gone or forbidden. librdkafka would answer the same for minutes,
/// also when the topic is there again; the next client looks anew.
fn end_without_topic(native: &Native, report: Report) {
    const DENIED: i32 = Raw::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED as i32;
    const GONE: i32 = Raw::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC as i32;
    const UNKNOWN: i32 = Raw::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART as i32;
    const REMOVED: i32 = Raw::RD_KAFKA_RESP_ERR__DESTROY as i32;
    let code = match report {
        Report::Failed { code: DENIED, .. } => Code::TopicAuthorizationFailed,
        Report::Failed {
            code: GONE | UNKNOWN | REMOVED,
            ..
        } => Code::UnknownTopicOrPartition,
        _ => return,
    };
    native
        .context()
        .trouble
        .raise(error::from_code("send", code));
    native.nudge();
}

/// Whether a client did not send a record because it has ended.
fn is_back(report: Report) -> bool {
    const PURGED: i32 = Raw::RD_KAFKA_RESP_ERR__PURGE_QUEUE as i32;
    const FATAL: i32 = Raw::RD_KAFKA_RESP_ERR__FATAL as i32;
    matches!(
        report,
        Report::Failed {
            code: PURGED | FATAL,
            maybe_stored: false,
            ..
        }
    )
}

/// The records whose requests a broker refused for other records in them, which has ended their
/// client.
///
/// They can be sent again unless a later request of their partition got through: then they would
/// come behind records that were sent after them.
#[derive(Default)]
struct Innocent {
    records: Vec<(i32, Arc<Batch>, usize, Report)>,
    /// Their partitions, and whether later records were stored there.
    overtaken: HashMap<i32, bool>,
}

impl Innocent {
    /// Looks at each report in the order in which they come; takes those of innocent records.
    fn takes(&mut self, batch: &Arc<Batch>, index: usize, report: Report) -> bool {
        const OTHER: i32 = Raw::RD_KAFKA_RESP_ERR__INVALID_DIFFERENT_RECORD as i32;
        match report {
            Report::Stored { partition, .. } => {
                if let Some(overtaken) = self.overtaken.get_mut(&partition) {
                    *overtaken = true;
                }
                false
            }
            Report::Failed {
                partition,
                code: OTHER,
                maybe_stored: false,
            } => {
                self.overtaken.entry(partition).or_default();
                self.records.push((partition, batch.clone(), index, report));
                true
            }
            Report::Failed { .. } => false,
        }
    }

    fn come_back(self, back: &mut BTreeMap<u64, Arc<Batch>>) {
        for (partition, batch, index, report) in self.records {
            if self.overtaken[&partition] {
                batch.report(index, report);
                if let Some(complete) = batch.settle(1) {
                    complete.tell();
                }
            } else {
                back.insert(batch.turn(), batch);
            }
        }
    }
}

/// The thread of a client: takes its reports, and sees to its end.
struct Listener {
    lane: Arc<Lane>,
    native: Arc<Native>,
    /// Every listener has one: when all are gone, all clients are.
    alive: mpsc::Sender<()>,
}

impl Listener {
    fn run(self) {
        let mut innocent = Innocent::default();
        while !self.lane.is_closing() {
            let told = self.poll(None, &mut innocent);
            if self.has_ended(told) {
                return self.replace(innocent);
            }
        }
        self.finish(innocent);
    }

    /// `refusal` is what records answer that the client gives back; without, they are kept.
    fn poll(&self, refusal: Option<&Error>, innocent: &mut Innocent) -> Told {
        self.native.poll(TURN, &mut |batch, index, report| {
            match refusal {
                Some(error) if is_back(report) => batch.give_up(index, error),
                None if is_back(report) => {
                    let mut place = self.lane.place();
                    place.back.insert(batch.turn(), batch.clone());
                    return false;
                }
                None if innocent.takes(batch, index, report) => return false,
                _ => {
                    end_without_topic(&self.native, report);
                    batch.report(index, report);
                }
            }
            true
        })
    }

    /// Whether the client can send no more.
    fn has_ended(&self, told: Told) -> bool {
        // The fatal error is also asked for when there is nothing to do, so that the end of a client
        // does not hang on one event.
        self.refusal().is_some() || told != Told::Something && self.native.fatal_error().is_some()
    }

    /// What the client was refused by, if it was: what all its records answer then.
    fn refusal(&self) -> Option<Error> {
        let told = |error: &Error| {
            Error::new(error.kind(), "send", error.message().to_owned())
                .with_stream(self.lane.stream.clone())
        };
        if let Some(trouble) = self.native.context().trouble.first() {
            return Some(told(&trouble).with_source(trouble));
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
        tracing::info!(
            name: "millstream.kafka.producer.replaced", target: "millstream",
            stream = %self.lane.stream, reason = ?self.native.fatal_error(),
            "a producing client can send no more and is replaced"
        );
        self.lane.place().way = Way::Between(VecDeque::new());
        let patience = Instant::now() + GRACE;
        while self.native.holds_records() {
            let in_flight = Instant::now() >= patience || self.lane.is_closing();
            self.native.purge(in_flight);
            // It may come out only now what the end was about.
            self.poll(self.refusal().as_ref(), &mut innocent);
        }
        innocent.come_back(&mut self.lane.place().back);
        self.take_stock();
        self.next_client();
    }

    /// Answers what is not to be sent again of what came back: records after a failed one of their
    /// key, and records whose time is over.
    fn take_stock(&self) {
        let mut place = self.lane.place();
        place.back.retain(|_, batch| {
            batch.hold_back();
            if batch.deadline <= Instant::now() {
                let error = self.error(ErrorKind::Timeout, "not stored before its time was over");
                batch.give_up_open(&error);
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
                return give_up(&mut place, &closed);
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
                Err(error) => give_up(&mut place, &error),
            }
        }
    }

    /// Ends the client with nobody waiting.
    fn finish(&self, mut innocent: Innocent) {
        let closed = self.error(ErrorKind::Closed, "the producer was closed");
        self.lane.place().way = Way::Between(VecDeque::new());
        while self.native.holds_records() {
            self.native.purge(true);
            self.poll(Some(&closed), &mut innocent);
        }
        innocent.come_back(&mut self.lane.place().back);
        give_up(&mut self.lane.place(), &closed);
    }

    fn error(&self, kind: ErrorKind, message: &'static str) -> Error {
        Error::new(kind, "send", message).with_stream(self.lane.stream.clone())
    }
}

fn give_up(place: &mut Place, error: &Error) {
    let back = mem::take(&mut place.back);
    let waiting = match &mut place.way {
        Way::Between(waiting) => mem::take(waiting),
        Way::Open(_) => VecDeque::new(),
    };
    for batch in back.values().chain(&waiting) {
        batch.give_up_open(error);
    }
}

#[cfg(test)]
mod tests {
    use millstream::Record;

    use super::*;

    fn stored(partition: i32) -> Report {
        Report::Stored {
            partition,
            offset: 1,
        }
    }

    fn innocent(partition: i32) -> Report {
        Report::Failed {
            partition,
            code: Raw::RD_KAFKA_RESP_ERR__INVALID_DIFFERENT_RECORD as i32,
            maybe_stored: false,
        }
    }

    #[test]
    fn innocent_records_come_back_unless_later_ones_were_stored() {
        let batch = Batch::new(vec![Record::new(""); 4], Instant::now(), |_| Ok(()));
        let batch = Arc::new(batch);
        batch.take_turn(1);
        let mut left = Innocent::default();
        // What was stored before is no harm.
        assert!(!left.takes(&batch, 0, stored(0)));
        assert!(left.takes(&batch, 1, innocent(0)));
        assert!(left.takes(&batch, 2, innocent(1)));
        assert!(!left.takes(&batch, 3, stored(1)));

        let mut back = BTreeMap::new();
        left.come_back(&mut back);
        assert_eq!(back.len(), 1);
        let open = batch.open_records().map(|(index, _)| index);
        assert_eq!(open.collect::<Vec<_>>(), [0, 1, 3]);
    }
}
