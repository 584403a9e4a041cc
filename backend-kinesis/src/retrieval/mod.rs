//! Reading one shard: its records in order, from a place on, to its end.
//!
//! A [`Reader`] is one task that asks Kinesis, opens the carriers of the KPL, and hands on what they
//! hold. It holds one answer at most that its caller has not taken: what is asked for next waits for
//! room. What it promises:
//!
//! * **Nothing is passed over in silence.** Where records may be gone before they were read, that is
//!   said ([`ReadEvent::DataLoss`]) before the ones after them come. That nothing was left at a time is
//!   said, too ([`ReadEvent::AtTip`]): whoever reads next can then tell a quiet shard from a gap.
//! * **Nothing comes twice**, and nothing out of order, however often it has to begin again: at an
//!   iterator that is too old, a subscription that ends, a connection that breaks.
//! * **The end is an end only if others go on**: a shard that says so but has no children is looked at
//!   again.

mod answer;
mod batch;
mod end;
mod fan_out;
mod hand;
mod pace;
mod place;
mod poll;
mod reading;
mod register;
mod service;
mod source;
#[cfg(test)]
mod tests;
mod unpack;
mod until;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use millstream_core::driver::StoredRecord;
use millstream_core::{Error, Partition, Position};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::connection::Connection;
use crate::stream::{HashRange, Shard};
use hand::Hand;
use reading::Reading;
pub(crate) use register::register;
use service::Service;
use source::Source;

/// Where a reader begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Begin {
    /// After a record that was handed on before.
    After(Position),
    /// With the oldest record that is left.
    Earliest,
    /// With what is stored from now on, or from when the iterator was taken.
    Latest(Option<(String, SystemTime)>),
    /// With the first record that is stored at this time or later. It may be in the future.
    At(SystemTime),
}

/// How records are fetched from one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// By GetRecords.
    Polling,
    /// By SubscribeToShard, for a consumer of this ARN, from [`register`].
    FanOut(Arc<str>),
}

/// What a reader needs to know.
#[derive(Debug, Clone)]
pub(crate) struct ReaderOptions {
    pub(crate) connection: Arc<Connection>,
    /// The shard.
    pub(crate) partition: Partition,
    /// The shard's hash keys. User records of others are left out, since they were stored once more
    /// where they belong; None keeps them all.
    pub(crate) range: Option<HashRange>,
    pub(crate) begin: Begin,
    /// When nothing was left to be read from there on, if that is known.
    pub(crate) tip: Option<SystemTime>,
    /// When it was decided to begin at the oldest record, or at a time, if that is known.
    pub(crate) resolved: Option<SystemTime>,
    pub(crate) way: Way,
    /// Most records in one [`ReadEvent::Records`].
    pub(crate) batch_records: usize,
    /// Most bytes in one, unless a single record has more.
    pub(crate) batch_bytes: usize,
}

/// What a reader has to say.
#[derive(Debug)]
pub(crate) enum ReadEvent {
    /// The next records, at least one.
    Records {
        records: Vec<StoredRecord>,
        /// How old what is left is, or will be when these are handed on; zero if nothing is left.
        behind: Option<Duration>,
    },
    /// How old what is left is has changed, and no record came with it. In a pause it is told once a
    /// second.
    Behind(Duration),
    /// Nothing was left at that time but what was handed on, of which this was the last. Told once a
    /// minute at most.
    AtTip {
        after: Option<Position>,
        at: SystemTime,
    },
    /// Records may be gone that were not read. The ones from `earliest` on follow.
    DataLoss {
        after: Option<Position>,
        earliest: Position,
    },
    /// All records of the shard were handed on. Nothing follows.
    Ended { children: Vec<Shard> },
    /// What is no use to try again. Nothing follows.
    Failed(Error),
}

/// A task that reads one shard. To drop it is to end it, at once.
#[derive(Debug)]
pub(crate) struct Reader {
    task: AbortHandle,
    paused: watch::Sender<bool>,
}

impl Reader {
    /// Hands on nothing but the lag until [`resume`](Self::resume). Asks for no more as soon as records
    /// are known to wait, and only once a second until then.
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

/// Begins to read on the caller's runtime. What is read goes to `to` with `tag`, which tells it from
/// that of other readers of the same channel; who has a full one waits.
pub(crate) fn read<T>(options: ReaderOptions, tag: T, to: mpsc::Sender<(T, ReadEvent)>) -> Reader
where
    T: Clone + Send + 'static,
{
    let source = Arc::new(Service::new(&options.connection, &options.partition));
    read_from(source, options.into(), tag, to)
}

/// As [`ReaderOptions`], but for who is asked.
#[derive(Debug, Clone)]
struct Settings {
    partition: Partition,
    range: Option<HashRange>,
    begin: Begin,
    tip: Option<SystemTime>,
    resolved: Option<SystemTime>,
    way: Way,
    batch_records: usize,
    batch_bytes: usize,
    /// The least time between two requests to a shard that has no more records.
    poll_interval: Duration,
    /// Whether a reader polls that may not subscribe.
    fallback: bool,
    /// How long a subscription may be silent, or without a record.
    silence: Duration,
}

impl From<ReaderOptions> for Settings {
    fn from(options: ReaderOptions) -> Self {
        let consumer = &options.connection.config.consumer;
        Self {
            partition: options.partition,
            range: options.range,
            begin: options.begin,
            tip: options.tip,
            resolved: options.resolved,
            way: options.way,
            batch_records: options.batch_records,
            batch_bytes: options.batch_bytes,
            poll_interval: consumer.poll_interval,
            fallback: consumer.fan_out_fallback,
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
    let hand = Hand::new(tag, to, is_paused);
    let mut reading = Reading::new(source, settings, hand);
    let task = tokio::spawn(async move {
        // Either its last words were said, or nobody listens.
        let _ = reading.run().await;
    });
    Reader {
        task: task.abort_handle(),
        paused,
    }
}
