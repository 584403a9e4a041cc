//! Passes records to librdkafka in order, through one client at a time. A client that cannot send is replaced.
//!
//! The order of calls is fixed under one lock, when a call is first polled. Under the same lock its records are passed
//! to the client, so librdkafka gets them in the order of the [`Accumulator`].
//!
//! # How a client is replaced
//!
//! librdkafka raises a *fatal* error where continuing could store records twice or out of order, and, as it is
//! configured here, where a broker has refused a request. Such a client sends nothing any more. librdkafka would not
//! request a missing or forbidden topic again for minutes. A missing topic may merely be unknown to one broker, and its
//! records wait until it has been missing for long ([`Absence`](crate::cluster::Absence)). A refused login is mostly
//! temporary, and the client retries. If all brokers have refused it for long, another client may have a better login
//! from the files of the password and the certificate. Each of these cases ends a client, on its own thread:
//!
//! 1. New calls queue up.
//! 2. Records that were not sent are taken back. Responses to sent records are awaited for
//!    [`DRAIN_TIMEOUT`](super::delivery_thread::DRAIN_TIMEOUT): as long as the broker may still store a record of
//!    this client, no other client sends, or it could overtake that record. Records without a response then fail
//!    with `Timeout`.
//! 3. The next client sends the returned records, in their order and before the queue, except those behind
//!    a failed one of their key and call. None of them was stored: librdkafka reports for each record whether it may
//!    be. If the client itself was rejected, all of them fail with that error instead.
//! 4. The next client is opened when there is something to send.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use millstream_core::telemetry::event;
use millstream_core::{Error, Result};
use rdkafka::ClientConfig;

use super::accumulator::{Accumulator, Appended, BatchSlice, ClientReports};
use super::batch_limit::BatchLimit;
use super::client::ProducerClient;
use super::settings;
use crate::connection::context::Context;
use crate::native::delivery::Batch;
use crate::native::produce::Scratch;

/// Requests the topic's `max.message.bytes`, if this client has the permission. Blocks.
pub(super) type LargestBatch = Box<dyn Fn() -> Option<usize> + Send + Sync>;

/// Shared by the producer and the delivery thread of its client.
pub(super) struct RecordSender {
    pub(super) stream: Arc<str>,
    settings: ClientConfig,
    context: Context,
    largest_batch: LargestBatch,
    closing: AtomicBool,
    state: Mutex<State>,
    /// Notified when records wait for a client, and when the producer closes.
    wakeup: Condvar,
    /// The point where the delivery thread panics.
    #[cfg(test)]
    pub(super) panic_point: Mutex<Option<PanicPoint>>,
}

#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PanicPoint {
    BeforePoll,
    InReport,
}

struct State {
    accumulator: Accumulator,
    /// The client that accepts records.
    client: Option<Arc<ProducerClient>>,
    /// The batch size limit of the next client.
    limit: BatchLimit,
    scratch: Scratch,
}

/// The reason why a wait for records has ended.
pub(super) enum Wakeup {
    RecordsQueued,
    Closing,
}

impl RecordSender {
    pub(super) fn new(
        stream: Arc<str>,
        settings: ClientConfig,
        context: Context,
        accumulator: Accumulator,
        limit: BatchLimit,
        largest_batch: LargestBatch,
    ) -> Self {
        Self {
            stream,
            settings,
            context,
            largest_batch,
            closing: AtomicBool::new(false),
            state: Mutex::new(State {
                accumulator,
                client: None,
                limit,
                scratch: Scratch::default(),
            }),
            wakeup: Condvar::new(),
            #[cfg(test)]
            panic_point: Mutex::default(),
        }
    }

    /// Sends a batch in its turn, which is now, or queues it for the next client.
    pub(super) fn send(&self, batch: &Arc<Batch>) {
        let mut state = self.lock();
        let now = Instant::now();
        match state.accumulator.append(batch, now) {
            Appended::Send(indexes) => state.produce(batch, &indexes, now),
            Appended::Failed => {}
            Appended::Queued => {
                drop(state);
                self.wakeup.notify_one();
            }
        }
    }

    /// Closes the client, and fails the records that have no result yet. Does not wait.
    pub(super) fn close(&self) {
        self.closing.store(true, Relaxed);
        match &self.lock().client {
            Some(client) => client.wake_poll(),
            None => self.wakeup.notify_one(),
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// Returns the likely reason why records were not stored in time.
    pub(super) fn timeout_cause(&self) -> Option<Error> {
        self.lock().client.as_ref()?.timeout_cause()
    }

    /// Returns the client's last temporary error, unless it is old.
    pub(super) fn recent_error(&self) -> Option<Error> {
        self.lock().client.as_ref()?.recent_error()
    }

    /// Opens a client, which accepts no records yet. Not under the lock: it takes milliseconds, and longer with TLS.
    pub(super) fn open_client(&self, operation: &'static str) -> Result<Arc<ProducerClient>> {
        let limit = self.lock().limit;
        let (settings, context) = (&self.settings, &self.context);
        let client = ProducerClient::open(settings, context, &self.stream, limit, operation)?;
        Ok(Arc::new(client))
    }

    /// Sends to this client from now on, beginning with the waiting records.
    pub(super) fn attach(&self, client: &Arc<ProducerClient>) {
        let mut state = self.lock();
        state.client = Some(client.clone());
        for batch in state.accumulator.attach_client() {
            let now = Instant::now();
            let indexes = state.accumulator.admit(&batch, now);
            state.produce(&batch, &indexes, now);
        }
    }

    /// Stops sending to the client.
    pub(super) fn detach(&self) {
        let mut state = self.lock();
        state.client = None;
        state.accumulator.detach_client();
    }

    /// Applies reports, and sends the records that have waited for them. Returns whether there were any such
    /// records: they have lingered already.
    pub(super) fn send_waiting(&self, reports: &mut ClientReports) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        state.accumulator.on_reports(reports, now);
        let slices = state.accumulator.drain(now);
        for BatchSlice { batch, indexes, .. } in &slices {
            state.produce(batch, indexes, now);
        }
        !slices.is_empty()
    }

    /// Takes back the records that the client has returned.
    pub(super) fn on_returned(&self, reports: &mut ClientReports) {
        let now = Instant::now();
        self.lock().accumulator.on_returned(reports, now);
    }

    /// Applies the last reports of a client.
    pub(super) fn on_client_ended(&self, reports: ClientReports) {
        let now = Instant::now();
        self.lock().accumulator.on_client_ended(reports, now);
    }

    /// Fails those of the returned records that must not be sent again. `timeout` is the error of those whose
    /// deadline is over.
    pub(super) fn fail_unsendable(&self, timeout: impl Fn() -> Error) {
        let now = Instant::now();
        self.lock().accumulator.fail_unsendable(now, timeout);
    }

    /// Fails all records that are waiting for a client.
    pub(super) fn fail_queued(&self, error: &Error) {
        self.lock().accumulator.fail_queued(error);
    }

    /// Fails all records that have no result, and all later ones.
    pub(super) fn fail(&self, error: Error) {
        let mut state = self.lock();
        state.client = None;
        state.accumulator.fail(error);
    }

    /// Returns the reason why all records fail.
    pub(super) fn failure(&self) -> Option<Error> {
        self.lock().accumulator.failure().cloned()
    }

    /// Returns whether the topic is gone.
    pub(super) fn topic_is_gone(&self) -> bool {
        self.lock().accumulator.topic_is_gone()
    }

    /// Blocks until records are waiting for a client, or the producer closes.
    pub(super) fn wait_for_records(&self) -> Wakeup {
        let mut state = self.lock();
        loop {
            if self.is_closing() {
                return Wakeup::Closing;
            }
            if state.accumulator.has_queued() {
                return Wakeup::RecordsQueued;
            }
            let waited = self.wakeup.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes the batches of the next client smaller, after the topic has refused one. Blocks.
    pub(super) fn lower_limit(&self) {
        let limit = self.lock().limit;
        let lowered = limit.lowered((self.largest_batch)());
        event!(
            warn, "millstream.kafka.producer.batches_lowered",
            stream = %self.stream, from = limit.batch, to = lowered.batch,
            "the topic takes smaller batches than before"
        );
        let request = settings::request(&self.settings, lowered);
        let mut state = self.lock();
        state.limit = lowered;
        state.accumulator.set_request_limit(request);
    }

    #[cfg(test)]
    pub(super) fn panic_at(&self, point: PanicPoint) {
        let is_chosen = *self.panic_point.lock().unwrap() == Some(point);
        assert!(!is_chosen, "simulated");
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // After a panic under the lock, the producer fails.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn produce(&mut self, batch: &Arc<Batch>, indexes: &[usize], now: Instant) {
        let Some(client) = &self.client else {
            return;
        };
        let accumulator = &mut self.accumulator;
        client.produce(
            batch,
            indexes,
            &mut self.scratch,
            &mut |batch: &Arc<Batch>, index, report| {
                accumulator.on_refused(batch, index, report, now)
            },
        );
    }
}
