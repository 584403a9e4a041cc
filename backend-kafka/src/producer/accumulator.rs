//! Where calls are: with the client, on their way to it, or back from it.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_core::Error;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::types::RDKafkaRespErr as Raw;

use super::Native;
use super::batch_limit::BatchLimit;
use super::delivery_thread::ReportSummary;
use super::in_flight_throttle::{BatchSlice, InFlightThrottle, RequestLimit};
use crate::cluster::Absence;
use crate::error;
use crate::native::delivery::{Batch, Report};
use crate::native::produce::Scratch;
use crate::native::record::ANY_PARTITION;

/// How often records are looked for that have waited for too long.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) struct Accumulator {
    way: Way,
    throttle: InFlightThrottle,
    limit: BatchLimit,
    /// Batches with records that librdkafka gave back unsent, by their turns.
    back: BTreeMap<u64, Arc<Batch>>,
    /// Whether the topic is gone.
    absence: Absence,
    /// How many calls have come.
    turns: u64,
    /// When records were last looked for that have waited for too long.
    looked: Instant,
    scratch: Scratch,
}

enum Way {
    Open(Arc<Native>),
    /// No client, and the calls that wait for one.
    Between(VecDeque<Arc<Batch>>),
}

impl Accumulator {
    pub(super) fn new(throttle: InFlightThrottle, limit: BatchLimit) -> Self {
        Self {
            way: Way::Between(VecDeque::new()),
            throttle,
            limit,
            back: BTreeMap::new(),
            absence: Absence::default(),
            turns: 0,
            looked: Instant::now(),
            scratch: Scratch::default(),
        }
    }

    pub(super) fn client(&self) -> Option<&Arc<Native>> {
        match &self.way {
            Way::Open(native) => Some(native),
            Way::Between(_) => None,
        }
    }

    /// How large batches may be.
    pub(super) fn limit(&self) -> BatchLimit {
        self.limit
    }

    /// Makes the batches of the next client smaller.
    pub(super) fn set_limit(&mut self, limit: BatchLimit, request: RequestLimit) {
        self.limit = limit;
        self.throttle.set_request_limit(request);
    }

    /// Gives a call its turn. Answers whether there is a client for it.
    pub(super) fn submit(&mut self, batch: &Arc<Batch>) -> bool {
        self.turns += 1;
        batch.take_turn(self.turns);
        let native = match &mut self.way {
            Way::Open(native) => native.clone(),
            Way::Between(waiting) => {
                waiting.push_back(batch.clone());
                return false;
            }
        };
        self.admit(&native, batch);
        true
    }

    /// Gives a new client all that waits for one.
    pub(super) fn open(&mut self, native: Arc<Native>) {
        let waiting = match mem::replace(&mut self.way, Way::Open(native.clone())) {
            Way::Between(waiting) => waiting,
            Way::Open(_) => VecDeque::new(),
        };
        let back = mem::take(&mut self.back);
        for batch in back.values().chain(&waiting) {
            self.admit(&native, batch);
        }
    }

    /// Lets no more go to the client.
    pub(super) fn close(&mut self) {
        self.way = Way::Between(VecDeque::new());
        for BatchSlice { batch, .. } in self.throttle.reset() {
            self.take_back(&batch);
        }
    }

    fn admit(&mut self, native: &Native, batch: &Arc<Batch>) {
        let now = Instant::now();
        let free = self.throttle.admit(batch, now);
        self.hand_over(native, batch, &free, now);
    }

    /// Looks around for the delivery thread, after what was answered to it. Tells whether it has handed
    /// records over that have lingered already.
    pub(super) fn look_around(&mut self, native: &Native, answered: &mut ReportSummary) -> bool {
        let now = Instant::now();
        if answered.tell(&mut self.throttle, now) {
            self.absence.on_known();
        }
        if self.throttle.is_ready() || now >= self.looked + LOOK_EVERY {
            self.looked = now;
            self.give_up_overdue(now);
        }
        let slices = self.throttle.drain(now);
        for BatchSlice { batch, indexes, .. } in &slices {
            self.hand_over(native, batch, indexes, now);
        }
        !slices.is_empty()
    }

    fn hand_over(&mut self, native: &Native, batch: &Arc<Batch>, indexes: &[usize], now: Instant) {
        let (back, throttle, absence) = (&mut self.back, &mut self.throttle, &mut self.absence);
        native.produce(
            batch,
            indexes,
            &mut self.scratch,
            &mut |batch, index, report| {
                if let Some(queue) = batch.partition_queue(index) {
                    throttle.on_reported(queue, 1, now);
                }
                if is_back(report) {
                    back.insert(batch.turn(), batch.clone());
                    return false;
                }
                end_without_topic(native, report);
                if is_unknown_topic(report) && !absence.on_unknown(now) {
                    back.insert(batch.turn(), batch.clone());
                    return false;
                }
                batch.report(index, report);
                true
            },
        );
    }

    /// Keeps a call with a record whose topic was reported missing for the next client, which asks again. Returns
    /// whether the topic is gone: then it is not kept.
    pub(super) fn on_unknown_topic(&mut self, batch: &Arc<Batch>) -> bool {
        let is_gone = self.absence.on_unknown(Instant::now());
        if !is_gone {
            self.take_back(batch);
        }
        is_gone
    }

    /// Returns whether the topic is gone.
    pub(super) fn has_no_topic(&self) -> bool {
        self.absence.is_certain()
    }

    fn give_up_overdue(&mut self, now: Instant) {
        const TIMED_OUT: Report = Report::Failed {
            partition: ANY_PARTITION,
            code: Raw::RD_KAFKA_RESP_ERR__MSG_TIMED_OUT as i32,
            maybe_stored: false,
        };
        for BatchSlice { batch, indexes, .. } in self.throttle.expire(now) {
            for index in &indexes {
                batch.report(*index, TIMED_OUT);
            }
            if let Some(complete) = batch.settle(indexes.len()) {
                complete.wake();
            }
        }
    }

    /// Keeps a call for the next client.
    pub(super) fn take_back(&mut self, batch: &Arc<Batch>) {
        self.back.insert(batch.turn(), batch.clone());
    }

    pub(super) fn back(&mut self) -> &mut BTreeMap<u64, Arc<Batch>> {
        &mut self.back
    }

    /// Whether nothing waits for a client.
    pub(super) fn is_empty(&self) -> bool {
        self.back.is_empty() && matches!(&self.way, Way::Between(waiting) if waiting.is_empty())
    }

    /// Answers all that waits for a client.
    pub(super) fn give_up(&mut self, error: &Error) {
        let back = mem::take(&mut self.back);
        let waiting = match &mut self.way {
            Way::Between(waiting) => mem::take(waiting),
            Way::Open(_) => VecDeque::new(),
        };
        for batch in back.values().chain(&waiting) {
            batch.give_up_open(error);
        }
    }
}

const GONE: i32 = Raw::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC as i32;
const UNKNOWN: i32 = Raw::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART as i32;
/// What a record gets that went to a partition of such a topic.
const NO_PARTITION: i32 = Raw::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION as i32;
const REMOVED: i32 = Raw::RD_KAFKA_RESP_ERR__DESTROY as i32;

/// Ends a client whose topic is missing or forbidden. librdkafka would answer the same for minutes,
/// also when the topic is there again; the next client looks anew.
pub(super) fn end_without_topic(native: &Native, report: Report) {
    const DENIED: i32 = Raw::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED as i32;
    let code = match report {
        Report::Failed { code: DENIED, .. } => Code::TopicAuthorizationFailed,
        Report::Failed {
            code: GONE | UNKNOWN | NO_PARTITION | REMOVED,
            ..
        } => Code::UnknownTopicOrPartition,
        _ => return,
    };
    native
        .context()
        .trouble
        .raise(error::from_code("send", code));
    native.wake_poll();
}

/// Whether a record was not sent because a broker did not know its topic.
pub(super) fn is_unknown_topic(report: Report) -> bool {
    matches!(
        report,
        Report::Failed {
            code: GONE | UNKNOWN | NO_PARTITION | REMOVED,
            maybe_stored: false,
            ..
        }
    )
}

/// Whether a client did not send a record because it has ended, or because its connection was not let in again,
/// which ends it too.
pub(super) fn is_back(report: Report) -> bool {
    const PURGED: i32 = Raw::RD_KAFKA_RESP_ERR__PURGE_QUEUE as i32;
    const FATAL: i32 = Raw::RD_KAFKA_RESP_ERR__FATAL as i32;
    // A broker responds in the order of the requests, so those that a refused login fails were not sent.
    const REFUSED: i32 = Raw::RD_KAFKA_RESP_ERR__AUTHENTICATION as i32;
    const NO_MECHANISM: i32 = Raw::RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM as i32;
    const NO_STATE: i32 = Raw::RD_KAFKA_RESP_ERR_ILLEGAL_SASL_STATE as i32;
    matches!(
        report,
        Report::Failed {
            code: PURGED | FATAL | REFUSED | NO_MECHANISM | NO_STATE,
            maybe_stored: false,
            ..
        }
    )
}
