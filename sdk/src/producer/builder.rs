use std::sync::Arc;
use std::time::Duration;

use super::{Producer, handle};
use crate::{Error, ErrorKind, Result, driver, naming};

/// A producer to be opened, from [`Client::producer`](crate::Client::producer).
#[derive(Debug, Clone)]
pub struct ProducerBuilder {
    backend: Arc<dyn driver::Backend>,
    stream: String,
    options: Options,
}

#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) in_flight_records: usize,
    pub(super) in_flight_bytes: usize,
    pub(super) timeout: Duration,
    pub(super) close_timeout: Duration,
}

impl ProducerBuilder {
    pub(crate) fn new(backend: Arc<dyn driver::Backend>, stream: String) -> Self {
        let options = Options {
            in_flight_records: 10_000,
            in_flight_bytes: 64 << 20,
            timeout: Duration::from_secs(120),
            close_timeout: Duration::from_secs(30),
        };
        Self {
            backend,
            stream,
            options,
        }
    }

    /// Sets how many records may be sent and not yet answered before [`send`](Producer::send)
    /// waits. 1 to 10,000,000, default 10,000.
    #[must_use]
    pub fn in_flight_records(mut self, records: usize) -> Self {
        self.options.in_flight_records = records;
        self
    }

    /// Sets how many bytes may be sent and not yet answered before [`send`](Producer::send) waits.
    /// 1 to 1 TiB, default 64 MiB. A single larger record is taken when nothing else is in flight.
    #[must_use]
    pub fn in_flight_bytes(mut self, bytes: usize) -> Self {
        self.options.in_flight_bytes = bytes;
        self
    }

    /// Sets how long a record may be retried before its receipt answers with the last error. 1 ms
    /// to 1 day, default 2 minutes.
    ///
    /// It runs from when the producer can hand the record to the backend. A backend that retries on
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

    /// Opens the producer. Its work is done by a task on the tokio runtime that this is called on.
    ///
    /// # Errors
    /// `NotFound` for an unknown stream, `Denied`, `Unauthenticated`, `Unavailable`; `Invalid` for
    /// an option out of its bounds.
    ///
    /// # Cancellation
    /// A dropped call leaves nothing behind.
    pub async fn open(self) -> Result<Producer> {
        naming::stream("open producer", &self.stream)?;
        self.options
            .validate()
            .map_err(|error| error.with_stream(&*self.stream))?;
        let driver = self.backend.open_producer(&self.stream).await?;
        Ok(handle::open(self.stream.into(), driver, &self.options))
    }
}

impl Options {
    fn validate(&self) -> Result<()> {
        /// 1 TiB, or all that there is.
        const MOST_BYTES: usize = usize::MAX >> (usize::BITS.saturating_sub(40));
        const SHORTEST: Duration = Duration::from_millis(1);
        const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
        let refuse = |message| Err(Error::new(ErrorKind::Invalid, "open producer", message));
        let number = |what: &str, value: usize, most: usize| match value {
            value if (1..=most).contains(&value) => Ok(()),
            value => refuse(format!("{what} is {value}, use 1 to {most}")),
        };
        let time = |what: &str, value: Duration| match value {
            value if (SHORTEST..=LONGEST).contains(&value) => Ok(()),
            value => refuse(format!("{what} is {value:?}, use 1 ms to 1 day")),
        };
        number("in_flight_records", self.in_flight_records, 10_000_000)?;
        number("in_flight_bytes", self.in_flight_bytes, MOST_BYTES)?;
        time("timeout", self.timeout)?;
        time("close_timeout", self.close_timeout)
    }
}
