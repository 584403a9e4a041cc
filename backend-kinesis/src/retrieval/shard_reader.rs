//! The common part of both retrieval modes: converts responses to records, and handles errors.

use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use millstream_core::driver::StoredRecord;
use millstream_core::telemetry::{Causes, event};
use millstream_core::{Error, ErrorKind, Position};
use tokio::time::{Instant, sleep, timeout};

use super::answer::Answer;
use super::batch::Batch;
use super::budget::Demand;
use super::contention::Contention;
use super::cursor::{ReadCursor, Relation};
use super::limit::Limit;
use super::output::{Done, Output};
use super::pace::Pace;
use super::source::Source;
use super::unpack::Unpacker;
use super::until::{Stopped, Until};
use super::{ReadEvent, RetrievalMode, Settings};
use crate::lease::ResumePoint;

/// How often in a row a position may be rejected in an existing shard. That takes half a minute, within
/// which a new shard is known everywhere.
const REFUSALS: u32 = 8;

/// The number of consecutive failed requests before an event reports them.
const TOLD: u32 = 6;

/// The minimum interval between two reports that nothing is left. They need a precision of about an hour.
const CAUGHT_UP_INTERVAL: Duration = Duration::from_secs(60);

/// The interval at which a paused poller looks whether others wait for its room.
const HOLD: Duration = Duration::from_secs(1);

/// What became of the records of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    All,
    /// Some were dropped, or may be missing. The reader must look for its position again.
    Some,
}

/// What becomes of records whose partition is paused while other pollers wait for their room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnPause {
    /// They are dropped, and asked for again later.
    Drop,
    /// They are kept until the pause ends.
    Keep,
}

/// A running reader.
#[derive(Debug)]
pub(super) struct ShardReader<T> {
    pub(super) source: Arc<dyn Source>,
    pub(super) settings: Settings,
    pub(super) cursor: ReadCursor,
    pub(super) pace: Pace,
    pub(super) limit: Limit,
    pub(super) demand: Demand,
    pub(super) output: Output<T>,
    pub(super) contention: Contention,
    unpacker: Unpacker,
    /// The last reported lag.
    behind: Option<Duration>,
    /// The last record that was delivered, also by earlier readers.
    delivered: Option<Position>,
    /// When the last report that nothing is left was sent.
    caught_up: Option<Instant>,
    refusals: u32,
    told: bool,
}

impl<T: Clone> ShardReader<T> {
    pub(super) fn new(source: Arc<dyn Source>, settings: Settings, output: Output<T>) -> Self {
        Self {
            source,
            cursor: ReadCursor::new(
                settings.begin.clone(),
                settings.caught_up,
                settings.resolved,
            ),
            pace: Pace::new(),
            limit: Limit::new(settings.poll_records),
            demand: Demand::new(settings.budget.clone()),
            output,
            contention: Contention::default(),
            unpacker: Unpacker::new(&settings),
            behind: None,
            delivered: match settings.begin {
                ResumePoint::After(position) => Some(position),
                _ => None,
            },
            caught_up: None,
            refusals: 0,
            told: false,
            settings,
        }
    }

    /// Reads until there is nothing more to do.
    pub(super) async fn run(&mut self) -> Result<(), Done> {
        if let RetrievalMode::FanOut(consumer) = self.settings.mode.clone() {
            while self.subscribe(&consumer).await? == Stopped::Refused {
                self.poll(Until::Subscribable).await?;
            }
        }
        self.poll(Until::End).await
    }

    /// Delivers the records of a response that were not delivered before. The request was sent at `asked`, and the
    /// response `arrived` later.
    pub(super) async fn take(
        &mut self,
        answer: Answer,
        asked: SystemTime,
        arrived: Instant,
        mut on_pause: OnPause,
    ) -> Result<Taken, Done> {
        self.refusals = 0;
        self.is_reached();
        if let Some(last) = self.cursor.to_confirm(&answer, arrived)
            && !self.is_still_there(last).await?
        {
            return Ok(Taken::Some);
        }
        let behind = answer.behind;
        let is_empty_answer = answer.records.is_empty();
        let settings = &self.settings;
        let (most, bytes) = (
            settings.batch_records,
            self.demand.batch(settings.batch_bytes),
        );
        let mut batch = Batch::new(most, bytes, answer.records.len());
        let mut unpacked = Vec::new();
        for raw in answer.records {
            let after = match self.cursor.meet(&raw, arrived) {
                Relation::Old => {
                    self.cursor.pass(&raw, arrived);
                    continue;
                }
                Relation::After(position) => Some(position),
                Relation::New => None,
                Relation::Gap { after } => {
                    // It must not be reported again.
                    on_pause = OnPause::Keep;
                    let earliest = raw.position;
                    let age = raw.arrival.and_then(|at| at.elapsed().ok());
                    self.output
                        .note_left(age.filter(|age| !age.is_zero()), Instant::now());
                    self.output
                        .give(ReadEvent::DataLoss { after, earliest })
                        .await?;
                    None
                }
            };
            self.cursor.pass(&raw, arrived);
            let arrival = raw.arrival;
            self.unpacker.unpack(raw, after, &mut unpacked);
            self.cursor.pass_early(arrival, &mut unpacked);
            for record in unpacked.drain(..) {
                if let Some(records) = batch.add(record)
                    && self.deliver(records, behind, on_pause).await? == Taken::Some
                {
                    return Ok(Taken::Some);
                }
            }
        }
        let rest = batch.take();
        let is_empty = rest.is_none();
        if let Some(records) = rest
            && self.deliver(records, behind, on_pause).await? == Taken::Some
        {
            return Ok(Taken::Some);
        }
        self.output.note_left(behind, arrived);
        // An empty response may be from a part of the shard without records, with some after it.
        let is_known = !is_empty_answer || behind == Some(Duration::ZERO);
        self.cursor
            .note_behind(asked, arrived, behind.filter(|_| is_known));
        if !is_empty {
            self.behind = behind;
        } else if let Some(behind) = behind.filter(|behind| self.behind != Some(*behind)) {
            // If there is no room now, it is reported another time.
            if self.output.offer(ReadEvent::Behind(behind)) {
                self.behind = Some(behind);
            }
        }
        if behind.is_some_and(|behind| behind.is_zero()) {
            self.report_caught_up(asked);
        }
        Ok(Taken::All)
    }

    /// Delivers records. If they are dropped, returns to the position before them.
    async fn deliver(
        &mut self,
        records: Vec<StoredRecord>,
        behind: Option<Duration>,
        on_pause: OnPause,
    ) -> Result<Taken, Done> {
        let last = records.last().map(|last| last.position);
        let paused = self.output.paused();
        let given = {
            let mut given = pin!(self.output.give(ReadEvent::Records { records, behind }));
            loop {
                match timeout(HOLD, given.as_mut()).await {
                    Ok(given) => break Some(given),
                    Err(_) if on_pause == OnPause::Keep => {}
                    Err(_) if *paused.borrow() && self.demand.is_contended() => break None,
                    Err(_) => {}
                }
            }
        };
        if let Some(given) = given {
            given?;
            self.delivered = last.or(self.delivered);
            return Ok(Taken::All);
        }
        self.demand.dropped();
        let settings = &self.settings;
        self.cursor = match self.delivered {
            Some(delivered) => self.cursor.resumed(delivered),
            None => ReadCursor::new(
                settings.begin.clone(),
                settings.caught_up,
                settings.resolved,
            ),
        };
        Ok(Taken::Some)
    }

    /// Reports that nothing was left at a time, if that is certain and was not just reported.
    fn report_caught_up(&mut self, at: SystemTime) {
        let is_due = self
            .caught_up
            .is_none_or(|told| told.elapsed() >= CAUGHT_UP_INTERVAL);
        let after = self.delivered;
        if is_due && self.cursor.is_fresh() && self.output.offer(ReadEvent::CaughtUp { after, at })
        {
            self.caught_up = Some(Instant::now());
        }
    }

    /// Handles an error of a request, and waits as long as it requires. Afterwards the reader must look for its
    /// position again.
    pub(super) async fn on_error(&mut self, error: Error) -> Result<(), Done> {
        match error.kind() {
            ErrorKind::Throttled => {
                let now = Instant::now();
                let wait = self.pace.throttled(now);
                let reported = self.pace.reports_throttling(now);
                let (stream, partition) = self.names();
                if let Some(lasts) = reported {
                    event!(
                        warn,
                        "millstream.kinesis.partition.throttled",
                        stream,
                        partition,
                        seconds = lasts.as_secs(),
                        wait_ms = wait.as_millis() as u64,
                        "a partition has been throttled for a minute: too many read it, or too fast"
                    );
                }
                event!(
                    debug,
                    "millstream.kinesis.partition.throttled",
                    stream,
                    partition,
                    wait_ms = wait.as_millis() as u64,
                    "a partition is throttled, and read less often"
                );
                sleep(wait).await;
                Ok(())
            }
            ErrorKind::Timeout | ErrorKind::Unavailable => {
                let wait = self.pace.failed();
                if self.pace.failures() >= TOLD && !self.told {
                    self.told = true;
                    let (stream, partition) = self.names();
                    event!(
                        warn, "millstream.kinesis.partition.unreachable",
                        stream, partition, error = %Causes(&error), "a partition cannot be read for now"
                    );
                }
                sleep(wait).await;
                Ok(())
            }
            // The iterator has expired; or the stream, the shard or the record is gone.
            ErrorKind::Invalid | ErrorKind::NotFound => self.missing(error).await,
            _ => Err(self.fail(error).await),
        }
    }

    /// Counts a rejection. Too many in a row are a permanent error.
    pub(super) async fn refused(&mut self, error: Error) -> Result<(), Done> {
        self.refusals += 1;
        if self.refusals > REFUSALS {
            return Err(self.fail(error).await);
        }
        sleep(self.pace.failed()).await;
        Ok(())
    }

    pub(super) async fn fail(&mut self, error: Error) -> Done {
        self.output.finish(ReadEvent::Failed(error)).await
    }

    fn is_reached(&mut self) {
        if mem::take(&mut self.told) {
            let (stream, partition) = self.names();
            event!(
                info,
                "millstream.kinesis.partition.reached",
                stream,
                partition,
                "a partition is read again"
            );
        }
    }

    pub(super) fn names(&self) -> (&str, &str) {
        let partition = &self.settings.partition;
        (partition.stream(), partition.id())
    }
}
