//! The order of records: which may be sent now, which wait, and which are sent again.
//!
//! The accumulator knows nothing of clients and makes no calls. It takes events (a call of `send`, delivery
//! reports, the start and the end of a client, the time) and returns what to send next. The order in which
//! batches are appended is the order of the stream, over any number of clients:
//!
//! * While a client is attached, records are sent at once, or wait in the queue of their partition
//!   ([`in_flight_throttle`]).
//! * While no client is attached, batches queue up for the next one.
//! * Records that a client did not send are *returned*. The next client gets them first, in their order.
//!
//! Each record gets one result: its slot is filled by a delivery report, or by an error here.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_core::Error;
use rdkafka::types::RDKafkaRespErr as Raw;

pub(super) use self::client_reports::ClientReports;
use self::client_reports::RejectedRecord;
pub(super) use self::in_flight_throttle::{BatchSlice, InFlightThrottle, RequestLimit};
use self::pending_batches::PendingBatches;
use super::delivery_errors::{is_unknown_topic, is_unsent};
use crate::cluster::Absence;
use crate::native::delivery::{Batch, Disposition, Report};
use crate::native::record::ANY_PARTITION;

mod client_reports;
mod collateral;
mod in_flight_throttle;
mod pending_batches;
#[cfg(test)]
mod tests;

/// How often waiting records are checked for their deadlines.
pub(super) const EXPIRY_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct Accumulator {
    client: ClientState,
    throttle: InFlightThrottle,
    /// Batches with records that a client did not send, by turn.
    returned: BTreeMap<u64, Arc<Batch>>,
    /// Whether the topic is gone.
    absence: Absence,
    pending: PendingBatches,
    /// Why no further batches are accepted.
    failure: Option<Error>,
    /// The number of appended batches.
    turns: u64,
    /// When waiting records were last checked for their deadlines.
    checked: Instant,
}

enum ClientState {
    Attached,
    /// The batches that wait for the next client.
    Detached(VecDeque<Arc<Batch>>),
}

/// The next step for a batch that was appended.
pub(super) enum Appended {
    /// Send these of its records now.
    Send(Vec<usize>),
    /// Wait for a client.
    Queued,
    /// The batch has its results.
    Failed,
}

impl Accumulator {
    /// Creates an accumulator without a client.
    pub(super) fn new(throttle: InFlightThrottle, now: Instant) -> Self {
        Self {
            client: ClientState::Detached(VecDeque::new()),
            throttle,
            returned: BTreeMap::new(),
            absence: Absence::default(),
            pending: PendingBatches::new(),
            failure: None,
            turns: 0,
            checked: now,
        }
    }

    /// Sets the limits of one request from now on.
    pub(super) fn set_request_limit(&mut self, limit: RequestLimit) {
        self.throttle.set_request_limit(limit);
    }

    /// Appends the batch of a call, behind all earlier ones.
    pub(super) fn append(&mut self, batch: &Arc<Batch>, now: Instant) -> Appended {
        self.turns += 1;
        batch.take_turn(self.turns);
        if let Some(error) = &self.failure {
            batch.give_up_open(error);
            return Appended::Failed;
        }
        self.pending.push(batch);
        match &mut self.client {
            ClientState::Attached => Appended::Send(self.admit(batch, now)),
            ClientState::Detached(queued) => {
                queued.push_back(batch.clone());
                Appended::Queued
            }
        }
    }

    /// Returns the open records of a batch to send now. The others wait in the queues of their
    /// partitions.
    pub(super) fn admit(&mut self, batch: &Arc<Batch>, now: Instant) -> Vec<usize> {
        self.throttle.admit(batch, now)
    }

    /// Records that a client accepts records now. Returns the batches to [`admit`](Self::admit) and send first, in
    /// order.
    pub(super) fn attach_client(&mut self) -> Vec<Arc<Batch>> {
        let queued = match mem::replace(&mut self.client, ClientState::Attached) {
            ClientState::Detached(queued) => queued,
            ClientState::Attached => VecDeque::new(),
        };
        let returned = mem::take(&mut self.returned);
        returned.into_values().chain(queued).collect()
    }

    /// Records that the client accepts no more records. Records that wait in partition queues are returned.
    pub(super) fn detach_client(&mut self) {
        self.client = ClientState::Detached(VecDeque::new());
        for BatchSlice { batch, .. } in self.throttle.reset() {
            self.reenqueue(batch);
        }
    }

    /// Adds the counts of delivery reports.
    pub(super) fn on_reports(&mut self, reports: &mut ClientReports, now: Instant) {
        for (queue, records) in reports.reported.drain(..) {
            self.throttle.on_reported(queue, records, now);
        }
        self.throttle.add_partition(reports.highest_partition);
        if reports.take_any_stored() {
            self.absence.on_known();
        }
    }

    /// Adds the records that the client has returned.
    pub(super) fn on_returned(&mut self, reports: &mut ClientReports, now: Instant) {
        for batch in reports.unsent.drain(..) {
            self.reenqueue(batch);
        }
        for rejected in reports.unknown_topic.drain(..) {
            let RejectedRecord {
                batch,
                index,
                report,
            } = rejected;
            match self.on_unknown_topic(batch.clone(), index, report, now) {
                Disposition::Open => {}
                Disposition::Answered => batch.settle_and_wake(1),
            }
        }
    }

    /// Handles the report of a record that librdkafka refused at once.
    pub(super) fn on_refused(
        &mut self,
        batch: &Arc<Batch>,
        index: usize,
        report: Report,
        now: Instant,
    ) -> Disposition {
        if let Some(queue) = batch.partition_queue(index) {
            self.throttle.on_reported(queue, 1, now);
        }
        if is_unsent(report) {
            self.reenqueue(batch.clone());
            return Disposition::Open;
        }
        if is_unknown_topic(report) {
            return self.on_unknown_topic(batch.clone(), index, report, now);
        }
        batch.report(index, report);
        Disposition::Answered
    }

    /// Handles a record of an unknown topic. The next client asks for the topic again, so the record is returned unless
    /// the topic is gone.
    fn on_unknown_topic(
        &mut self,
        batch: Arc<Batch>,
        index: usize,
        report: Report,
        now: Instant,
    ) -> Disposition {
        if self.absence.on_unknown(now) {
            batch.report(index, report);
            return Disposition::Answered;
        }
        self.reenqueue(batch);
        Disposition::Open
    }

    /// Returns whether the topic is gone.
    pub(super) fn topic_is_gone(&self) -> bool {
        self.absence.is_certain()
    }

    /// Returns the records to send now that have waited in partition queues. Fails the records whose deadline is over
    /// first.
    pub(super) fn drain(&mut self, now: Instant) -> Vec<BatchSlice> {
        if self.throttle.is_ready() || now >= self.checked + EXPIRY_INTERVAL {
            self.checked = now;
            self.expire(now);
        }
        self.throttle.drain(now)
    }

    fn expire(&mut self, now: Instant) {
        const TIMED_OUT: Report = Report::Failed {
            partition: ANY_PARTITION,
            code: Raw::RD_KAFKA_RESP_ERR__MSG_TIMED_OUT as i32,
            maybe_stored: false,
        };
        for BatchSlice { batch, indexes, .. } in self.throttle.expire(now) {
            for index in &indexes {
                batch.report(*index, TIMED_OUT);
            }
            batch.settle_and_wake(indexes.len());
        }
    }

    /// Handles the records whose requests were rejected because of other records, when all reports of the client have
    /// arrived.
    pub(super) fn on_client_ended(&mut self, mut reports: ClientReports, now: Instant) {
        self.on_returned(&mut reports, now);
        for batch in reports.collateral.release() {
            self.reenqueue(batch);
        }
    }

    /// Fails returned records that must not be sent again: records behind a failed one of their key, and, with the
    /// error of `timeout`, records whose deadline is over.
    pub(super) fn fail_unsendable(&mut self, now: Instant, timeout: impl Fn() -> Error) {
        self.returned.retain(|_, batch| {
            batch.hold_back();
            if batch.deadline <= now {
                batch.give_up_open(&timeout());
            }
            !batch.is_answered()
        });
    }

    fn reenqueue(&mut self, batch: Arc<Batch>) {
        self.returned.insert(batch.turn(), batch);
    }

    /// Returns whether any records wait for a client.
    pub(super) fn has_queued(&self) -> bool {
        let is_queued = matches!(&self.client, ClientState::Detached(queued) if !queued.is_empty());
        is_queued || !self.returned.is_empty()
    }

    /// Returns how many records are counted as handed to the client.
    #[cfg(test)]
    fn records_in_flight(&self) -> usize {
        self.throttle.records_in_flight()
    }

    /// Fails all records that have no result, and all that are appended later. No client may report anything after
    /// this.
    pub(super) fn fail(&mut self, error: Error) {
        self.pending.abandon(&error);
        self.failure = Some(error);
        self.client = ClientState::Detached(VecDeque::new());
        self.returned.clear();
        self.throttle.reset();
    }

    /// Returns why all records fail.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    /// Fails all records that wait for a client.
    pub(super) fn fail_queued(&mut self, error: &Error) {
        let returned = mem::take(&mut self.returned);
        let queued = match &mut self.client {
            ClientState::Detached(queued) => mem::take(queued),
            ClientState::Attached => VecDeque::new(),
        };
        for batch in returned.values().chain(&queued) {
            batch.give_up_open(error);
        }
    }
}
