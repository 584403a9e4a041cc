//! The options of a member, and the bounds of each.

use std::sync::Arc;
use std::time::Duration;

use crate::{Error, ErrorKind, Guarantee, OnExhausted, Result, Retry, Start};

#[derive(Debug, Clone)]
pub(crate) struct ConsumerOptions {
    pub(crate) streams: Vec<Arc<str>>,
    pub(crate) start: Start,
    pub(crate) member: Option<String>,
    pub(crate) concurrency: usize,
    pub(crate) retry: Retry,
    pub(crate) on_data_loss: OnDataLoss,
    pub(crate) max_unsettled_per_partition: usize,
    pub(crate) buffer_bytes: usize,
    pub(crate) max_poll_records: usize,
    /// `None`: the default of the way to consume.
    pub(crate) checkpoint_interval: Option<Duration>,
    pub(crate) checkpoint_records: u64,
    /// `None`: no limit.
    pub(crate) handler_timeout: Option<Duration>,
    pub(crate) stall_warning: Duration,
    pub(crate) drain_timeout: Duration,
    pub(crate) required: Vec<Guarantee>,
}

/// What happens when retention has removed the next record before it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnDataLoss {
    /// The consumer stops with `DataLoss`, naming the partition, the last position and the oldest
    /// one that is left.
    #[default]
    Fail,
    /// The consumer continues with the oldest record that is left; the gap is logged and counted.
    Skip,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            streams: Vec::new(),
            start: Start::default(),
            member: None,
            concurrency: 16,
            retry: Retry::default(),
            on_data_loss: OnDataLoss::default(),
            max_unsettled_per_partition: 10_000,
            buffer_bytes: 64 << 20,
            max_poll_records: 1_000,
            checkpoint_interval: None,
            checkpoint_records: 10_000,
            handler_timeout: None,
            stall_warning: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
            required: Vec::new(),
        }
    }
}

impl ConsumerOptions {
    /// Returns how often progress is stored. A pipeline whose results are stored with its progress has a
    /// shorter default: its results become readable only then.
    pub(crate) fn checkpoint_interval(&self, publishes: bool) -> Duration {
        self.checkpoint_interval.unwrap_or(match publishes {
            true => Duration::from_millis(100),
            false => Duration::from_secs(1),
        })
    }

    pub(crate) fn validate(&self) -> Result<()> {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let refuse = |message: String| Err(Error::new(ErrorKind::Invalid, "join", message));
        let within = |what: &str, value: usize, most: usize| match value {
            value if (1..=most).contains(&value) => Ok(()),
            value => refuse(format!("{what} is {value}, use 1 to {most}")),
        };
        if self.streams.is_empty() {
            return refuse("no stream is named, add one with .stream(name)".into());
        }
        for (index, stream) in self.streams.iter().enumerate() {
            if self.streams[..index].contains(stream) {
                return refuse(format!("stream {stream} is named twice, name it once"));
            }
        }
        within("concurrency", self.concurrency, 100_000)?;
        within(
            "max_unsettled_per_partition",
            self.max_unsettled_per_partition,
            10_000_000,
        )?;
        within("max_poll_records", self.max_poll_records, 100_000)?;
        within("buffer_bytes", self.buffer_bytes, usize::MAX)?;
        if self.checkpoint_records == 0 {
            return refuse("checkpoint_records is 0, use at least 1".into());
        }
        let allowed = Duration::from_millis(1)..=DAY;
        if let Some(interval) = self
            .checkpoint_interval
            .filter(|set| !allowed.contains(set))
        {
            return refuse(format!(
                "checkpoint_interval is {interval:?}, use 1 ms to 1 day"
            ));
        }
        if let Some(timeout) = self.handler_timeout.filter(|set| !allowed.contains(set)) {
            return refuse(format!("handler_timeout is {timeout:?}, use 1 ms to 1 day"));
        }
        if !(Duration::from_secs(1)..=DAY).contains(&self.stall_warning) {
            return refuse(format!(
                "stall_warning is {:?}, use 1 s to 1 day",
                self.stall_warning
            ));
        }
        if let OnExhausted::DeadLetter(to) = self.retry.exhausted() {
            if self.streams.iter().any(|stream| **stream == *to.stream) {
                return refuse(format!(
                    "dead letters to {} would be read by the group itself, use another stream",
                    to.stream
                ));
            }
        }
        if self.drain_timeout > DAY {
            return refuse(format!(
                "drain_timeout is {:?}, use at most 1 day",
                self.drain_timeout
            ));
        }
        self.retry.validate()
    }
}
