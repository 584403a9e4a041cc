//! The way into librdkafka: one client at a time, replaced when it can send no more.
//!
//! A call takes its place in the order under one lock, when it is first polled: its records go to
//! the client at their [pace](super::in_flight_throttle), or, while the client is replaced, into a queue that the
//! next one gets first. So the order of the calls is the order of the stream, over any number of
//! clients.
//!
//! # How a client is replaced
//!
//! librdkafka raises a *fatal* error where going on could store records twice or out of order, and,
//! as it is set up here, where a broker has refused a request; that client sends nothing any more. A
//! topic that is missing or forbidden would not be looked at again for minutes: a missing one may merely be unknown to
//! one broker, and its records wait until it has been missing for long ([`Absence`](crate::cluster::Absence)). A refused login passes mostly, and the
//! client tries it again; where all brokers have refused it for long, another client may have a better one from
//! the files of the password and the certificate. Each of these ends a client, on its own thread:
//!
//! 1. New calls queue up.
//! 2. What was not sent is taken back, and what was is waited for, for [`GRACE`](super::delivery_thread::GRACE): as long as the
//!    broker may still store a record of this client, no other client sends, or it could overtake
//!    it. What is not answered then answers `Timeout`.
//! 3. What came back is sent again by the next client, in its order and before the queue, but for
//!    records behind a failed one of their key and call. None of it was stored: librdkafka says of
//!    each record whether it may be. Where the client itself was refused, all answer that instead.
//! 4. The next client is made when there is something to send.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use millstream_core::telemetry::event;
use millstream_core::{Error, ErrorKind, Result};
use rdkafka::ClientConfig;
use tokio::sync::mpsc;

use super::Native;
use super::accumulator::Accumulator;
use super::delivery_thread::DeliveryThread;
use super::settings;
use crate::connection::context::Context;
use crate::error;
use crate::native::delivery::Batch;

/// Asks for the topic's `max.message.bytes`, if this client may know. Blocks.
pub(super) type LargestBatch = Box<dyn Fn() -> Option<usize> + Send + Sync>;

/// Shared by the producer and the delivery thread of its client.
pub(super) struct RecordSender {
    pub(super) stream: Arc<str>,
    settings: ClientConfig,
    context: Context,
    largest_batch: LargestBatch,
    closing: AtomicBool,
    accumulator: Mutex<Accumulator>,
    /// Notified when there is something to send and no client.
    pub(super) wanted: Condvar,
}

impl RecordSender {
    /// Opens the way, and tells when it has ended: then the receiver's senders are gone.
    pub(super) fn open(
        stream: Arc<str>,
        settings: ClientConfig,
        context: Context,
        accumulator: Accumulator,
        largest_batch: LargestBatch,
    ) -> Result<(Arc<Self>, mpsc::Receiver<()>)> {
        let (alive, ended) = mpsc::channel(1);
        let sender = Arc::new(Self {
            stream,
            settings,
            context,
            largest_batch,
            closing: AtomicBool::new(false),
            accumulator: Mutex::new(accumulator),
            wanted: Condvar::new(),
        });
        let native = sender.make("open producer")?;
        sender.follow(&mut sender.accumulator(), native, alive, "open producer")?;
        Ok((sender, ended))
    }

    /// Hands a batch over in its turn: now.
    pub(super) fn submit(&self, batch: &Arc<Batch>) {
        if !self.accumulator().submit(batch) {
            self.wanted.notify_one();
        }
    }

    /// Lets the client end, and gives up what is left.
    pub(super) fn close(&self) {
        self.closing.store(true, Relaxed);
        match self.accumulator().client() {
            Some(native) => native.wake_poll(),
            None => self.wanted.notify_one(),
        }
    }

    pub(super) fn accumulator(&self) -> MutexGuard<'_, Accumulator> {
        self.accumulator
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the refusal of a login, if that may be why the client reaches no broker.
    pub(super) fn refused_login(&self) -> Option<Error> {
        let native = self.accumulator().client()?.clone();
        native.context().refused_login()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// Makes a client, not under the lock: it takes milliseconds, and with TLS more.
    pub(super) fn make(&self, operation: &'static str) -> Result<Arc<Native>> {
        let failed = |e| error::from(operation, e).with_stream(self.stream.clone());
        let (mut settings, context) = self.context.successor(&self.settings);
        settings::set_limit(&mut settings, self.accumulator().limit());
        let native = Native::open(&settings, context, &self.stream).map_err(failed)?;
        Ok(Arc::new(native))
    }

    /// Makes the batches of the next client smaller, after the topic has refused one. Blocks.
    pub(super) fn lower_limit(&self) {
        let limit = self.accumulator().limit();
        let lowered = limit.lowered((self.largest_batch)());
        event!(
            warn, "millstream.kafka.producer.batches_lowered",
            stream = %self.stream, from = limit.batch, to = lowered.batch,
            "the topic takes smaller batches than before"
        );
        let request = settings::request(&self.settings, lowered);
        self.accumulator().set_limit(lowered, request);
    }

    /// Starts the delivery thread of a client, and hands it what waits.
    pub(super) fn follow(
        self: &Arc<Self>,
        accumulator: &mut Accumulator,
        native: Arc<Native>,
        alive: mpsc::Sender<()>,
        operation: &'static str,
    ) -> Result<()> {
        let serving = DeliveryThread::new(self.clone(), native.clone(), accumulator.limit(), alive);
        let thread = thread::Builder::new().name(format!("kafka-{}", self.stream));
        thread.spawn(move || serving.run()).map_err(|e| {
            Error::new(ErrorKind::Unavailable, operation, "no thread to be had")
                .with_stream(self.stream.clone())
                .with_source(e)
        })?;
        accumulator.open(native);
        Ok(())
    }
}
