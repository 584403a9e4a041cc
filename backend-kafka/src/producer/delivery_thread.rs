//! The thread of a client: serves its delivery reports, sends waiting records, and ends the client.
//!
//! A panic of the thread ends the producer: its records fail at once, and so do later ones.

use std::any::Any;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use millstream_core::telemetry::event;
use millstream_core::{Error, ErrorKind, Result};
use tokio::sync::mpsc;

use super::accumulator::{ClientReports, EXPIRY_INTERVAL};
use super::client::ProducerClient;
use super::linger_flusher::LingerFlusher;
#[cfg(test)]
use super::record_sender::PanicPoint;
use super::record_sender::{RecordSender, Wakeup};
use crate::error::panic_message;
use crate::native::delivery::{Batch, Disposition};
use crate::native::produce::{Polled, Purge};

/// How long to wait for the reports of an ending client before more records are purged.
const PURGE_INTERVAL: Duration = Duration::from_millis(100);

/// How long to wait for responses to sent requests when a client ends.
///
/// This is longer than a broker may be silent before the controller moves its partitions to other brokers
/// (`broker.session.timeout.ms`, 9 s by default). A broker that stops for a shorter time and continues has responded
/// by then. A broker that stops for longer no longer stores the requests in its sockets.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);

pub(super) struct DeliveryThread {
    sender: Arc<RecordSender>,
    client: Arc<ProducerClient>,
    /// Each thread has a clone, and drops it after its client: when all clones are dropped, all clients are.
    alive: mpsc::Sender<()>,
}

/// The reason why a client accepts no more records.
enum End {
    Closing,
    Failed,
}

impl DeliveryThread {
    /// Starts the thread. Records are sent to `client` from then on.
    pub(super) fn start(
        sender: Arc<RecordSender>,
        client: Arc<ProducerClient>,
        alive: mpsc::Sender<()>,
        operation: &'static str,
    ) -> Result<()> {
        let stream = sender.stream.clone();
        let served = Self {
            sender,
            client,
            alive,
        };
        let thread = thread::Builder::new().name(format!("kafka-{stream}"));
        match thread.spawn(move || served.run()) {
            Ok(_) => Ok(()),
            Err(e) => {
                let message = "the thread that serves delivery reports did not start";
                let error = Error::new(ErrorKind::Unavailable, operation, message);
                Err(error.with_stream(stream).with_source(e))
            }
        }
    }

    fn run(self) {
        // State that a panic leaves behind is not used again: the records fail, and the client is drained and dropped.
        let served = catch_unwind(AssertUnwindSafe(|| self.serve_client()));
        if let Err(panic) = served {
            self.fail(&*panic);
        }
    }

    fn serve_client(&self) {
        self.sender.attach(&self.client);
        let mut reports = ClientReports::new(self.client.limit());
        match self.serve(&mut reports) {
            End::Closing => self.finish(reports),
            End::Failed => self.replace(reports),
        }
    }

    fn serve(&self, reports: &mut ClientReports) -> End {
        let mut flusher = None;
        while !self.sender.is_closing() {
            if self.sender.send_waiting(reports) {
                self.flush_lingering(&mut flusher);
            }
            #[cfg(test)]
            self.sender.panic_at(PanicPoint::BeforePoll);
            let polled = self.poll(EXPIRY_INTERVAL, None, reports);
            if self.client.has_failed(polled) {
                return End::Failed;
            }
        }
        End::Closing
    }

    /// Requests a flush. The flusher is started on demand: only a client with slow partitions needs it.
    fn flush_lingering(&self, flusher: &mut Option<LingerFlusher>) {
        if flusher.is_none() {
            let started = LingerFlusher::start(self.client.clone(), self.alive.clone());
            // Without it, records linger once more.
            *flusher = started.ok();
        }
        if let Some(flusher) = flusher {
            flusher.request();
        }
    }

    /// Polls the client. `rejection` is the result of records that the client returns. Without it, they are sent again.
    fn poll(
        &self,
        timeout: Duration,
        rejection: Option<&Error>,
        reports: &mut ClientReports,
    ) -> Polled {
        let mut on_report = |batch: &Arc<Batch>, index, report| {
            #[cfg(test)]
            self.sender.panic_at(PanicPoint::InReport);
            reports.on_report(batch, index, report, rejection)
        };
        let polled = self.client.poll(timeout, &mut on_report);
        if reports.has_returned() {
            self.sender.on_returned(reports);
        }
        polled
    }

    /// Handles reports of a client that accepts no more records.
    fn drain(&self, rejection: Option<&Error>, reports: &mut ClientReports) {
        self.poll(PURGE_INTERVAL, rejection, reports);
        reports.discard_counts();
    }

    fn replace(&self, mut reports: ClientReports) {
        event!(
            info, "millstream.kafka.producer.replaced",
            stream = %self.sender.stream, reason = self.client.failure(),
            "a producing client can send no more and is replaced"
        );
        self.sender.detach();
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while self.client.holds_records() {
            let purged = match Instant::now() < deadline && !self.sender.is_closing() {
                true => Purge::Unsent,
                false => Purge::All,
            };
            self.client.purge(purged);
            // The reason of the failure may become known only now.
            let rejection = self.client.rejection(|| self.sender.topic_is_gone());
            self.drain(rejection.as_ref(), &mut reports);
        }
        if reports.needs_smaller_batches() {
            self.sender.lower_limit();
        }
        self.sender.on_client_ended(reports);
        self.sender.fail_unsendable(|| self.timeout_error());
        self.start_successor();
    }

    /// Waits until there are records to send, and opens a client for them.
    fn start_successor(&self) {
        while let Wakeup::RecordsQueued = self.sender.wait_for_records() {
            let started = self.sender.open_client("send").and_then(|client| {
                Self::start(self.sender.clone(), client, self.alive.clone(), "send")
            });
            match started {
                Ok(()) => return,
                Err(error) => self.sender.fail_queued(&error),
            }
        }
        self.sender.fail_queued(&self.closed());
    }

    /// Ends the client of a closing producer, when no call waits for a record.
    fn finish(&self, mut reports: ClientReports) {
        let closed = self.closed();
        self.sender.detach();
        while self.client.holds_records() {
            self.client.purge(Purge::All);
            self.drain(Some(&closed), &mut reports);
        }
        self.sender.on_client_ended(reports);
        self.sender.fail_queued(&closed);
    }

    /// Fails the producer after a panic. Otherwise its records would wait for reports that no thread serves.
    fn fail(&self, panic: &(dyn Any + Send)) {
        let reason = format!(
            "the thread that serves delivery reports panicked: {}",
            panic_message(panic)
        );
        let error = self.error(ErrorKind::Unavailable, reason.clone());
        self.sender.fail(error);
        event!(
            error, "millstream.kafka.producer.failed", stream = %self.sender.stream, reason,
            "a producer has failed, and so do all its records"
        );
        // librdkafka reads records until it has reported them. They have results, so the reports are ignored.
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while self.client.holds_records() && Instant::now() < deadline {
            let drained = AssertUnwindSafe(|| {
                self.client.purge(Purge::All);
                let mut on_report = |_: &Arc<Batch>, _, _| Disposition::Answered;
                self.client.poll(PURGE_INTERVAL, &mut on_report)
            });
            // Even if each poll panics, its event is destroyed, so this loop ends.
            let _ = catch_unwind(drained);
        }
    }

    fn timeout_error(&self) -> Error {
        let error = self.error(ErrorKind::Timeout, "not stored before its time was over");
        match self
            .client
            .timeout_cause()
            .or_else(|| self.client.recent_error())
        {
            Some(cause) => error.with_source(cause),
            None => error,
        }
    }

    fn closed(&self) -> Error {
        self.error(ErrorKind::Closed, "the producer was closed")
    }

    fn error(&self, kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(kind, "send", message).with_stream(self.sender.stream.clone())
    }
}
