//! The options of a producer, and the bounds of each.

use std::time::Duration;

use crate::{Error, ErrorKind, Guarantee, Result};

#[derive(Debug, Clone)]
pub(super) struct ProducerOptions {
    pub(super) in_flight_records: usize,
    pub(super) in_flight_bytes: usize,
    pub(super) timeout: Duration,
    pub(super) close_timeout: Duration,
    pub(super) required: Vec<Guarantee>,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            in_flight_records: 10_000,
            in_flight_bytes: 64 << 20,
            timeout: Duration::from_secs(120),
            close_timeout: Duration::from_secs(30),
            required: Vec::new(),
        }
    }
}

impl ProducerOptions {
    pub(super) fn validate(&self) -> Result<()> {
        /// 1 TiB, or the whole address space.
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
