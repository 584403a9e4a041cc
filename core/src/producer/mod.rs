//! Producers: their bounds and their receipts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::{Partition, Position, Record, Result, driver};

mod accounting;
mod accumulator;
mod builder;
mod failures;
mod flush;
mod inner;
mod key_queue;
mod limits;
mod options;
mod receipt;
mod request;
mod sender;
mod stats;
#[cfg(test)]
mod tests;

pub use builder::ProducerBuilder;
pub use receipt::Receipt;
pub use stats::ProducerStats;

/// Metadata of a stored record: its partition and position.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordMetadata {
    /// The partition.
    pub partition: Partition,
    /// The position in the partition.
    pub position: Position,
}

impl RecordMetadata {
    /// Creates the metadata of a record at `position` of `partition`. For drivers.
    pub const fn new(partition: Partition, position: Position) -> Self {
        Self {
            partition,
            position,
        }
    }
}

/// Sends records to one stream.
///
/// Cheap to clone. Clones share order and bounds, and closing one closes all.
///
/// A failed attempt is retried, unless the backend does that itself: the later records of its key
/// wait, and other keys continue. An attempt that ended in `Timeout` may have stored the record, so its
/// retry may store it twice: sending is at least once.
///
/// When the last clone is dropped without [`close`](Self::close), the records that were sent are still
/// delivered in the background, as long as the tokio runtime lives. Records that fail or are abandoned
/// then are logged.
pub struct Producer {
    inner: Arc<inner::ProducerInner>,
    /// The number of failures without a receipt's report that this handle need not report: its flushes have
    /// reported them, or they are older than the handle.
    seen_failures: AtomicU64,
}

impl Producer {
    fn new(inner: inner::ProducerInner) -> Self {
        Self {
            inner: Arc::new(inner),
            seen_failures: AtomicU64::new(0),
        }
    }

    /// Sends a record. Waits until there is room for it, then returns a receipt, which resolves when the
    /// broker has acknowledged the record.
    ///
    /// Records of one key are stored in the order in which their `send` returned. The receipt need not
    /// be awaited: if it is dropped, a failure is counted, logged and returned by
    /// [`flush`](Self::flush) or [`close`](Self::close).
    ///
    /// ```
    /// # use millstream_core::{Record, StreamSpec};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> millstream_core::Result<()> {
    /// # let client = millstream_memory::Config::default().connect().await?;
    /// # client.streams().create(StreamSpec::new("car-raw-events")).await?;
    /// let producer = client.producer("car-raw-events").open().await?;
    /// for speed in ["50", "80", "130"] {
    ///     drop(producer.send(Record::new(speed).key("car-123")).await?);
    /// }
    /// producer.close().await?; // all three are stored, or this says why not
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `TooLarge`, `Invalid` (a key or header that the stream does not accept) and `Closed`, at once and
    /// for this record only. The receipt returns all other errors.
    ///
    /// # Cancel safety
    /// If the call is dropped, the record was not sent.
    pub async fn send(&self, mut record: Record) -> Result<Receipt> {
        self.inner.send(&mut record).await
    }

    /// Waits until everything sent before is stored or has failed.
    ///
    /// # Errors
    /// The first failure whose receipt was dropped unread, of all clones, since this clone's last
    /// flush; its message says how many there were. Each clone reports it, so where several tasks
    /// share a producer, give each its own clone: a flush of one then hides no failure from the others.
    /// A failure that was awaited on its receipt is not reported again.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: the records are sent, and the next flush reports their
    /// failures.
    pub async fn flush(&self) -> Result<()> {
        self.inner.flush(&self.seen_failures).await
    }

    /// Flushes and closes this producer and its clones.
    ///
    /// Calling it again is allowed: every call waits for the same end and returns the same result.
    ///
    /// # Errors
    /// The first failure whose receipt was dropped unread and that no flush of any clone has
    /// reported. `Timeout` when the close timeout expires before all records are completed; their
    /// receipts return `Timeout` too.
    ///
    /// # Cancel safety
    /// Once started, closing continues in the background.
    pub async fn close(&self) -> Result<()> {
        self.inner.close().await
    }

    /// Returns a snapshot of the counters.
    pub fn stats(&self) -> ProducerStats {
        self.inner.stats()
    }

    /// Returns whether the producer was opened from this connection.
    pub(crate) fn belongs_to(&self, backend: &Arc<dyn driver::Backend>) -> bool {
        self.inner.belongs_to(backend)
    }

    /// Counts records that a pipeline has published to this producer's stream.
    pub(crate) fn count_published(&self, records: u64) {
        self.inner.count_published(records);
    }

    /// Returns the error that [`send`](Self::send) would return at once for `record`.
    pub(crate) fn check(&self, record: &Record) -> Result<()> {
        self.inner.check(record)
    }

    /// Returns the stream's name.
    pub fn stream(&self) -> &str {
        self.inner.stream()
    }
}

impl Clone for Producer {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            seen_failures: AtomicU64::new(self.inner.unobserved_errors()),
        }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
