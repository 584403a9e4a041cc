//! One client of librdkafka that sends to one topic, and why it can no longer send.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::{Error, ErrorKind, Result};
use rdkafka::ClientConfig;

use super::batch_limit::BatchLimit;
use super::delivery_errors::topic_error;
use super::settings;
use crate::connection::context::Context;
use crate::error;
use crate::native::delivery::{Batch, Disposition, Report};
use crate::native::produce::{Native, OnReport, Polled, Purge, Scratch};

pub(super) struct ProducerClient {
    native: Native<Context>,
    stream: Arc<str>,
    limit: BatchLimit,
}

impl ProducerClient {
    /// Opens a client. Takes milliseconds, and longer with TLS. Sends no request.
    pub(super) fn open(
        settings: &ClientConfig,
        context: &Context,
        stream: &Arc<str>,
        limit: BatchLimit,
        operation: &'static str,
    ) -> Result<Self> {
        let (mut settings, context) = context.successor(settings);
        settings::set_limit(&mut settings, limit);
        let native = Native::open(&settings, context, stream)
            .map_err(|e| error::from(operation, e).with_stream(stream.clone()))?;
        Ok(Self {
            native,
            stream: stream.clone(),
            limit,
        })
    }

    /// Returns the size limit of the client's batches.
    pub(super) fn limit(&self) -> BatchLimit {
        self.limit
    }

    /// Hands records of a batch to librdkafka, in this order. Does not wait. Records that librdkafka refuses at
    /// once are passed to `on_report`.
    pub(super) fn produce(
        &self,
        batch: &Arc<Batch>,
        indexes: &[usize],
        scratch: &mut Scratch,
        on_report: &mut impl OnReport,
    ) {
        let on_report = &mut self.watching_topic(on_report);
        self.native.produce(batch, indexes, scratch, on_report);
    }

    /// Waits for an event, and passes its delivery reports to `on_report`. Must not be called concurrently.
    pub(super) fn poll(&self, timeout: Duration, on_report: &mut impl OnReport) -> Polled {
        self.context().keep_connected(self.native.client());
        self.native
            .poll(timeout, &mut self.watching_topic(on_report))
    }

    /// Makes a waiting [`poll`](Self::poll) return.
    pub(super) fn wake_poll(&self) {
        self.native.wake_poll();
    }

    /// Sends all records that librdkafka has, without further linger. Blocks for a moment.
    pub(super) fn flush_lingering(&self) {
        self.native.flush_lingering();
    }

    /// Takes records back. Their reports arrive with the next polls.
    pub(super) fn purge(&self, records: Purge) {
        self.native.purge(records);
    }

    /// Returns whether there are records whose reports are still to come.
    pub(super) fn holds_records(&self) -> bool {
        self.native.holds_records()
    }

    /// Returns whether the client cannot send any more. `polled` is the result of the last poll.
    pub(super) fn has_failed(&self, polled: Polled) -> bool {
        if self.context().fatal_error.first().is_some() || self.fatal_rejection().is_some() {
            return true;
        }
        // The fatal error is also checked when there is nothing to do, so that detecting the end of a client does not
        // depend on one event.
        polled != Polled::Event && self.native.fatal_error().is_some()
    }

    /// Returns why the client cannot send any more.
    pub(super) fn failure(&self) -> Option<String> {
        let fatal_error = self.context().fatal_error.first();
        let reason = fatal_error.map(|error| error.to_string());
        reason.or_else(|| Some(self.native.fatal_error()?.1))
    }

    /// Returns the error of all records that the failed client returns, or `None` if the next client may send them.
    pub(super) fn rejection(&self, topic_is_gone: impl FnOnce() -> bool) -> Option<Error> {
        let Some(fatal_error) = self.context().fatal_error.first() else {
            return self.fatal_rejection();
        };
        match fatal_error.kind() {
            // The next client uses the password and the certificate that their files contain then, and may be
            // accepted. Records wait for their deadline.
            ErrorKind::Unauthenticated => None,
            // The next client asks for the topic again.
            ErrorKind::NotFound if !topic_is_gone() => None,
            _ => Some(self.error(&fatal_error).with_source(fatal_error)),
        }
    }

    /// Returns the fatal error if a broker has refused the client itself.
    fn fatal_rejection(&self) -> Option<Error> {
        let (code, reason) = self.native.fatal_error()?;
        let fatal = Error::new(error::kind(code), "send", reason);
        let is_refused = matches!(
            fatal.kind(),
            ErrorKind::Denied | ErrorKind::Unauthenticated | ErrorKind::Unsupported
        );
        is_refused.then(|| self.error(&fatal))
    }

    /// Returns a possible reason why records were not stored in time.
    pub(super) fn timeout_cause(&self) -> Option<Error> {
        let context = self.context();
        context
            .refused_login()
            .or_else(|| context.fatal_error.first())
    }

    /// Returns the last error that may pass by itself, unless it is old.
    pub(super) fn recent_error(&self) -> Option<Error> {
        let reason = self.context().fatal_error.recent_error()?;
        Some(Error::new(ErrorKind::Unavailable, "send", reason))
    }

    /// Fails the client when its topic is missing or forbidden. librdkafka would return the same error for minutes,
    /// even when the topic exists again. The next client asks again.
    fn watching_topic(&self, on_report: &mut impl OnReport) -> impl OnReport {
        move |batch: &Arc<Batch>, index: usize, report: Report| -> Disposition {
            if let Some(code) = topic_error(report) {
                self.context()
                    .fatal_error
                    .raise(error::from_code("send", code));
                self.native.wake_poll();
            }
            on_report(batch, index, report)
        }
    }

    fn context(&self) -> &Context {
        self.native.context()
    }

    fn error(&self, of: &Error) -> Error {
        Error::new(of.kind(), "send", of.message().to_owned()).with_stream(self.stream.clone())
    }
}
