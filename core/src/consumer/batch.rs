//! The bounds of a batch, and how long a batch may wait to be full.

use std::time::Duration;

use crate::{Error, ErrorKind, Result};

/// The most records that a batch may have.
const MAX_RECORDS: usize = 100_000;

/// The longest that a batch may wait.
const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Bounds of the batches of [`run_batches`](crate::ConsumerGroup::run_batches), and how long a batch
/// may wait to be full.
///
/// ```
/// # use std::time::Duration;
/// use millstream_core::Batch;
///
/// let batch = Batch::records(500).or_bytes(4 << 20).or_after(Duration::from_secs(1));
/// ```
///
/// A number converts into [`Batch::records`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Batch {
    pub(crate) records: usize,
    pub(crate) bytes: Option<usize>,
    pub(crate) after: Option<Duration>,
}

impl Batch {
    /// Bounds a batch to `records` deliveries. 1 to 100,000. It is handed out with what was received
    /// so far, unless [`or_after`](Self::or_after) lets it wait.
    pub const fn records(records: usize) -> Self {
        Self {
            records,
            bytes: None,
            after: None,
        }
    }

    /// Bounds a batch to `bytes` of keys, payloads and headers. At least 1; by default only the number
    /// of records is bounded. A single larger record is a batch of its own.
    pub const fn or_bytes(mut self, bytes: usize) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// Lets a batch that is not full wait for more records, for at most `wait` after its first record
    /// was received. 1 ms to 1 day; by default a batch does not wait.
    ///
    /// A batch does not wait if no more records can arrive before it is settled: at the end of a closed
    /// partition, and at the bounds
    /// [`max_unsettled_per_partition`](crate::ConsumerGroup::max_unsettled_per_partition) and
    /// [`buffer_bytes`](crate::ConsumerGroup::buffer_bytes). An incomplete batch that waits when a
    /// partition moves or the member closes is left to the next owner.
    pub const fn or_after(mut self, wait: Duration) -> Self {
        self.after = Some(wait);
        self
    }

    pub(crate) fn validate(self) -> Result<()> {
        let refuse = |message: String| Err(Error::new(ErrorKind::Invalid, "join", message));
        if !(1..=MAX_RECORDS).contains(&self.records) {
            return refuse(format!(
                "the batch size is {}, use 1 to {MAX_RECORDS}",
                self.records
            ));
        }
        if self.bytes == Some(0) {
            return refuse("the bytes of a batch are 0, use at least 1".into());
        }
        let allowed = Duration::from_millis(1)..=MAX_WAIT;
        match self.after.filter(|wait| !allowed.contains(wait)) {
            Some(wait) => refuse(format!("a batch waits {wait:?}, use 1 ms to 1 day")),
            None => Ok(()),
        }
    }
}

impl From<usize> for Batch {
    fn from(records: usize) -> Self {
        Self::records(records)
    }
}
