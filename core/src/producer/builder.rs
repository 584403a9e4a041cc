use std::sync::Arc;
use std::time::Duration;

use super::options::ProducerOptions;
use super::{Producer, inner};
use crate::{Guarantee, Result, driver, guarantee, naming};

/// Builder of a producer, from [`Client::producer`](crate::Client::producer).
#[derive(Debug, Clone)]
pub struct ProducerBuilder {
    backend: Arc<dyn driver::Backend>,
    stream: String,
    options: ProducerOptions,
}

impl ProducerBuilder {
    pub(crate) fn new(backend: Arc<dyn driver::Backend>, stream: String) -> Self {
        Self {
            backend,
            stream,
            options: ProducerOptions::default(),
        }
    }

    /// Sets how many records may be in flight before [`send`](Producer::send) waits. 1 to 10,000,000,
    /// default 10,000.
    #[must_use]
    pub fn in_flight_records(mut self, records: usize) -> Self {
        self.options.in_flight_records = records;
        self
    }

    /// Sets how many bytes may be in flight before [`send`](Producer::send) waits. 1 to 1 TiB, default
    /// 64 MiB. A single larger record is accepted when nothing else is in flight.
    #[must_use]
    pub fn in_flight_bytes(mut self, bytes: usize) -> Self {
        self.options.in_flight_bytes = bytes;
        self
    }

    /// Sets how long a record may be retried before its receipt returns the last error. 1 ms to 1 day,
    /// default 2 minutes.
    ///
    /// The time starts when the producer can pass the record to the backend. A backend that retries on
    /// its own (Kafka) has its own setting for it.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// Sets how long [`close`](Producer::close) may flush. 1 ms to 1 day, default 30 s.
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.options.close_timeout = timeout;
        self
    }

    /// Requires `guarantee`: [`open`](Self::open) fails with `Unsupported` on a backend that does not promise it, or if
    /// the stream does not keep it. The error has the reason, and says what to change.
    ///
    /// It is checked when the producer opens, not afterwards. [`Guarantee::ExactlyOnce`] is about pipelines: here only
    /// the backend is checked.
    #[must_use]
    pub fn require(mut self, guarantee: Guarantee) -> Self {
        self.options.required.push(guarantee);
        self
    }

    /// Opens the producer and spawns its task on the current tokio runtime.
    ///
    /// # Errors
    /// `NotFound` for an unknown stream, `Denied`, `Unauthenticated`, `Unavailable`; `Invalid` for
    /// a name that the backend does not accept and an option out of its bounds; `Unsupported` for a required
    /// guarantee.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind.
    pub async fn open(self) -> Result<Producer> {
        naming::stream(&*self.backend, "open producer", &self.stream)?;
        let required = &self.options.required;
        self.options
            .validate()
            .and_then(|()| guarantee::check_required(&*self.backend, required, "open producer"))
            .map_err(|error| error.with_stream(&*self.stream))?;
        let driver = self.backend.open_producer(&self.stream, required).await?;
        let stream = self.stream.into();
        Ok(inner::open(&self.backend, stream, driver, &self.options))
    }
}
