//! Retrieval: reads the records of one shard in order, from a position on, to shard end.
//!
//! A [`Reader`] is one task that sends requests to Kinesis, deaggregates the records of the KPL, and delivers their
//! records. It holds at most one response that its caller has not taken, and all readers of a member together hold no
//! more than their [`Budget`]: the next request waits for room. A subscription that is far behind holds back what is
//! pushed within a second, see [`confirm`]. It guarantees:
//!
//! * **No record is skipped silently.** If records may have been removed before they were read, an event
//!   ([`ReadEvent::DataLoss`]) precedes the later ones. Another event reports that nothing was left at a
//!   time ([`ReadEvent::CaughtUp`]): the next reader can then distinguish a quiet shard from a gap.
//! * **No record is delivered twice**, or out of order, however often the reader has to restart: after an
//!   expired iterator, an ended subscription, a broken connection.
//! * **Shard end requires children**: if Kinesis reports the end of a shard without children, the reader
//!   checks the shard again.

mod answer;
mod batch;
mod budget;
mod confirm;
mod contention;
mod cursor;
mod distribution;
mod end;
mod fan_out;
mod limit;
mod listing;
mod output;
mod pace;
mod poll;
mod register;
mod service;
mod shard_reader;
mod source;
mod stream_consumer;
#[cfg(test)]
mod tests;
mod unpack;
mod until;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use millstream_core::driver::{FilteredCounter, StoredRecord};
use millstream_core::{Error, Partition, Position};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::config::ForeignAggregates;
use crate::connection::Connection;
use crate::lease::ResumePoint;
use crate::stream::{HashRange, Shard};
pub(crate) use budget::Budget;
pub(crate) use distribution::Distribution;
use output::Output;
pub(crate) use register::register;
use service::Service;
use shard_reader::ShardReader;
use source::Source;
use stream_consumer::StreamConsumer;

/// The retrieval mode of a shard.
#[derive(Debug, Clone)]
pub(crate) enum RetrievalMode {
    /// By GetRecords.
    Polling,
    /// By SubscribeToShard, for this consumer, from [`register`].
    FanOut(Arc<StreamConsumer>),
}

/// The options of a reader.
#[derive(Debug, Clone)]
pub(crate) struct ReaderOptions {
    pub(crate) connection: Arc<Connection>,
    /// The shard.
    pub(crate) partition: Partition,
    /// The shard's hash keys. Records of an aggregate that belong to other shards are left out, see
    /// [`unpack`]. `None` keeps them all.
    pub(crate) range: Option<HashRange>,
    /// How the stream places records. Nothing is left out of one that distributes them itself.
    pub(crate) distribution: Distribution,
    /// Counts the records that are left out.
    pub(crate) filtered: FilteredCounter,
    /// Where to begin. A time may be in the future.
    pub(crate) begin: ResumePoint,
    /// When nothing was left to be read from the start position on, if that is known.
    pub(crate) caught_up: Option<SystemTime>,
    /// When the start at the oldest record or at a time was resolved, if that is known.
    pub(crate) resolved: Option<SystemTime>,
    pub(crate) mode: RetrievalMode,
    /// The room for responses that the readers of a member share.
    pub(crate) budget: Budget,
    /// The maximum number of records in one [`ReadEvent::Records`].
    pub(crate) batch_records: usize,
    /// The maximum bytes in one, unless a single record has more.
    pub(crate) batch_bytes: usize,
}

/// An event of a reader.
#[derive(Debug)]
pub(crate) enum ReadEvent {
    /// The next records, at least one.
    Records {
        records: Vec<StoredRecord>,
        /// The age of the remaining records, once these are delivered; zero if nothing is left.
        behind: Option<Duration>,
    },
    /// A change of the age of the remaining records, without new records. Reported once a
    /// second during a pause.
    Behind(Duration),
    /// At that time nothing was left except the delivered records, of which this was the last. Reported once a
    /// minute at most.
    CaughtUp {
        after: Option<Position>,
        at: SystemTime,
    },
    /// Unread records may be gone. The records from `earliest` on follow.
    DataLoss {
        after: Option<Position>,
        earliest: Position,
    },
    /// Shard end: all records of the shard were delivered. Nothing follows.
    Ended { children: Vec<Shard> },
    /// A permanent error. Nothing follows.
    Failed(Error),
}

/// A task that reads one shard. Dropping it ends the task at once.
#[derive(Debug)]
pub(crate) struct Reader {
    task: AbortHandle,
    paused: watch::Sender<bool>,
}

impl Reader {
    /// Delivers nothing except the lag until [`resume`](Self::resume). Stops polling as soon as records
    /// are known to wait, and polls only once a second until then.
    pub(crate) fn pause(&self) {
        self.paused.send_replace(true);
    }

    pub(crate) fn resume(&self) {
        self.paused.send_replace(false);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts to read on the caller's runtime. Events are sent to `to` with `tag`, which distinguishes them from
/// those of other readers of the same channel. A reader waits while the channel is full.
pub(crate) fn read<T>(options: ReaderOptions, tag: T, to: mpsc::Sender<(T, ReadEvent)>) -> Reader
where
    T: Clone + Send + 'static,
{
    let source = Arc::new(Service::new(&options.connection, &options.partition));
    read_from(source, options.into(), tag, to)
}

/// Like [`ReaderOptions`], without the service.
#[derive(Debug, Clone)]
struct Settings {
    partition: Partition,
    range: Option<HashRange>,
    distribution: Distribution,
    foreign: ForeignAggregates,
    filtered: FilteredCounter,
    begin: ResumePoint,
    caught_up: Option<SystemTime>,
    resolved: Option<SystemTime>,
    mode: RetrievalMode,
    budget: Budget,
    batch_records: usize,
    batch_bytes: usize,
    /// The minimum time between two requests to a shard that has no more records.
    poll_interval: Duration,
    /// The maximum number of records of a request.
    poll_records: usize,
    /// How long a subscription may be silent, or without a record.
    silence: Duration,
}

impl From<ReaderOptions> for Settings {
    fn from(options: ReaderOptions) -> Self {
        let consumer = &options.connection.config.consumer;
        Self {
            partition: options.partition,
            range: options.range,
            distribution: options.distribution,
            foreign: consumer.foreign_aggregates,
            filtered: options.filtered,
            begin: options.begin,
            caught_up: options.caught_up,
            resolved: options.resolved,
            mode: options.mode,
            budget: options.budget,
            batch_records: options.batch_records,
            batch_bytes: options.batch_bytes,
            poll_interval: consumer.poll_interval,
            poll_records: consumer.poll_records,
            silence: fan_out::SILENCE,
        }
    }
}

fn read_from<T>(
    source: Arc<dyn Source>,
    settings: Settings,
    tag: T,
    to: mpsc::Sender<(T, ReadEvent)>,
) -> Reader
where
    T: Clone + Send + 'static,
{
    let (paused, is_paused) = watch::channel(false);
    let output = Output::new(tag, to, is_paused);
    let mut reader = ShardReader::new(source, settings, output);
    let task = tokio::spawn(async move {
        // Either its last event was delivered, or the receiver is gone.
        let _ = reader.run().await;
    });
    Reader {
        task: task.abort_handle(),
        paused,
    }
}
