//! A shard in memory that responds as Kinesis does, or as emulators do.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use millstream_core::{Error, ErrorKind, Position, Result};
use tokio::time::{Instant, sleep};

use super::super::answer::{Answer, Raw};
use super::super::source::{Source, StartingPosition, SubscribeError, Subscription};
use crate::stream::{HashRange, Shard};

/// The minimum time between two subscriptions of which the first one is active.
const LEAST: Duration = Duration::from_secs(5);

/// The lifetime of an iterator and of a subscription.
const LIFE: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Fake(Mutex<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    /// All records that were ever stored, in order.
    pub(super) records: Vec<Raw>,
    /// The number of these that retention has removed.
    pub(super) trimmed: usize,
    /// Removes records by their age. `None` if the test does.
    pub(super) retention: Option<Retention>,
    pub(super) closed: bool,
    /// The listed children.
    pub(super) children: Vec<Shard>,
    /// Whether the shard is listed.
    pub(super) listed: bool,
    pub(super) deleted: bool,
    /// The age of the newest record.
    pub(super) age: Duration,
    /// The maximum number of records in a response.
    pub(super) page: usize,
    /// The duration of every request.
    pub(super) takes: Duration,
    /// The errors of the next requests.
    pub(super) iterator_faults: VecDeque<ErrorKind>,
    pub(super) records_faults: VecDeque<ErrorKind>,
    pub(super) subscribe_faults: VecDeque<ErrorKind>,
    pub(super) push_faults: VecDeque<ErrorKind>,
    /// The error for a sequence number that is not stored, if that is rejected.
    pub(super) refuses_unknown: Option<ErrorKind>,
    /// The number of empty responses before the first records of an iterator.
    pub(super) empty_answers: usize,
    pub(super) end: End,
    pub(super) silent: bool,
    /// Whether a time after that of the last record leads to the oldest one.
    pub(super) is_lost_in_time: bool,
    /// Whether every time is rejected as one in the future: its clock is far behind.
    pub(super) rejects_times: bool,
    /// Whether a subscription is rejected within 5 seconds of another one, and replaces it later.
    pub(super) is_exclusive: bool,
    /// The number of accepted subscriptions. The last one is active.
    subscriptions: u64,
    /// When the active subscription began.
    active: Option<Instant>,
    pub(super) requests: Vec<(Instant, Request)>,
}

/// Retention in simulated time.
#[derive(Debug)]
pub(super) struct Retention {
    /// When each record was stored.
    pub(super) stored: Vec<Instant>,
    /// The age at which records are removed.
    pub(super) kept: Duration,
}

/// How a subscription reports shard end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// As Kinesis does.
    NoNumber,
    NumberAndChildren,
    Never,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Request {
    Iterator(StartingPosition),
    Records,
    Subscribe(StartingPosition),
    Shards,
}

pub(super) fn raw(number: u64) -> Raw {
    Raw {
        position: Position::from(number),
        arrival: Some(SystemTime::now()),
        key: "k".into(),
        data: Bytes::from(format!("payload {number}")),
    }
}

pub(super) fn child(id: &str, parents: &[&str]) -> Shard {
    Shard {
        id: id.into(),
        parents: parents.iter().map(|id| (*id).into()).collect(),
        range: HashRange { first: 0, last: 9 },
        starting: Position::from(10_000),
        open: true,
    }
}

impl Fake {
    pub(super) fn new(numbers: impl IntoIterator<Item = u64>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner {
            records: numbers.into_iter().map(raw).collect(),
            trimmed: 0,
            retention: None,
            closed: false,
            children: Vec::new(),
            listed: true,
            deleted: false,
            age: Duration::ZERO,
            page: 10,
            takes: Duration::from_millis(5),
            iterator_faults: VecDeque::new(),
            records_faults: VecDeque::new(),
            subscribe_faults: VecDeque::new(),
            push_faults: VecDeque::new(),
            refuses_unknown: None,
            empty_answers: 0,
            end: End::NoNumber,
            silent: false,
            is_lost_in_time: false,
            rejects_times: false,
            is_exclusive: false,
            subscriptions: 0,
            active: None,
            requests: Vec::new(),
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no test panics while it holds it")
    }

    pub(super) fn store(&self, numbers: impl IntoIterator<Item = u64>) {
        let mut inner = self.lock();
        inner.records.extend(numbers.into_iter().map(raw));
        let count = inner.records.len();
        if let Some(retention) = &mut inner.retention {
            retention.stored.resize_with(count, Instant::now);
        }
    }

    pub(super) fn close(&self, children: &[&str]) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.children = children.iter().map(|id| child(id, &["shard-1"])).collect();
    }

    /// Returns when requests of a kind were made.
    pub(super) fn times(&self, wanted: impl Fn(&Request) -> bool) -> Vec<Instant> {
        let inner = self.lock();
        let made = inner.requests.iter().filter(|(_, made)| wanted(made));
        made.map(|(at, _)| *at).collect()
    }

    pub(super) fn positions(&self) -> Vec<StartingPosition> {
        let inner = self.lock();
        let positions = inner.requests.iter().filter_map(|(_, made)| match made {
            Request::Iterator(position) | Request::Subscribe(position) => Some(position.clone()),
            _ => None,
        });
        positions.collect()
    }

    async fn begin(&self, request: Request) -> MutexGuard<'_, Inner> {
        let takes = {
            let mut inner = self.lock();
            inner.requests.push((Instant::now(), request));
            inner.takes
        };
        sleep(takes).await;
        self.current()
    }

    /// Returns the shard without the records that have expired.
    pub(super) fn current(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.lock();
        if let Some(Retention { stored, kept }) = &inner.retention {
            let expired = stored.iter().take_while(|at| at.elapsed() >= *kept);
            inner.trimmed = inner.trimmed.max(expired.count());
        }
        inner
    }
}

pub(super) fn error(kind: ErrorKind) -> Error {
    Error::new(kind, "read", "as the test wants it")
}

/// Returns the error of a subscription while another one is active.
fn in_use() -> SubscribeError {
    SubscribeError {
        error: error(ErrorKind::Unavailable),
        is_in_use: true,
    }
}

fn fault(faults: &mut VecDeque<ErrorKind>) -> Result<()> {
    faults.pop_front().map_or(Ok(()), |kind| Err(error(kind)))
}

impl Inner {
    /// Returns the index of the first record that a reader gets from here.
    fn find(&self, position: &StartingPosition) -> Result<usize> {
        if self.deleted || !self.listed {
            return Err(error(ErrorKind::NotFound));
        }
        let index = |is_before: &dyn Fn(&Raw) -> bool| {
            self.records.iter().take_while(|raw| is_before(raw)).count()
        };
        let found = match position {
            StartingPosition::At(wanted) | StartingPosition::After(wanted) => {
                let mut left = self.records[self.trimmed..].iter();
                let is_there = left.any(|raw| raw.position == wanted.with_sub_sequence(0));
                if let Some(kind) = self.refuses_unknown.filter(|_| !is_there) {
                    return Err(error(kind));
                }
                let skip = matches!(position, StartingPosition::After(_));
                let wanted = wanted.with_sub_sequence(0);
                index(&|raw| raw.position < wanted || (skip && raw.position == wanted))
            }
            StartingPosition::Time(at) if self.rejects_times || *at > SystemTime::now() => {
                return Err(error(ErrorKind::Invalid));
            }
            StartingPosition::Time(at) => {
                let found = index(&|raw| raw.arrival.is_some_and(|arrival| arrival < *at));
                let is_lost = self.is_lost_in_time && found == self.records.len();
                if is_lost { 0 } else { found }
            }
            StartingPosition::Earliest => 0,
        };
        Ok(found.max(self.trimmed))
    }

    fn answer(&mut self, index: usize, most: usize) -> (Answer, usize) {
        let first = index.max(self.trimmed);
        let end = (first + self.page.min(most)).min(self.records.len());
        let end = match self.empty_answers {
            0 => end,
            _ => first,
        };
        self.empty_answers = self.empty_answers.saturating_sub(1);
        let left = (self.records.len() - end) as u64;
        let behind = match (left, &self.retention) {
            (0, _) => Duration::ZERO,
            (_, Some(retention)) => retention.stored[end].elapsed(),
            (left, None) => self.age + Duration::from_secs(left),
        };
        let answer = Answer {
            records: self.records[first..end].to_vec(),
            next: None,
            behind: Some(behind),
            has_children: false,
        };
        (answer, end)
    }
}

#[async_trait]
impl Source for Arc<Fake> {
    async fn iterator(&self, position: &StartingPosition) -> Result<String> {
        let mut inner = self.begin(Request::Iterator(position.clone())).await;
        fault(&mut inner.iterator_faults)?;
        Ok(iterator(inner.find(position)?))
    }

    async fn records(&self, iterator: &str, most: usize) -> Result<Answer> {
        let mut inner = self.begin(Request::Records).await;
        fault(&mut inner.records_faults)?;
        if inner.deleted || !inner.listed {
            return Err(error(ErrorKind::NotFound));
        }
        let (index, born) = iterator.split_once('@').expect("the fake has made it");
        let born = Duration::from_nanos(born.parse().expect("the fake has made it"));
        if since_ever() - born > LIFE {
            return Err(error(ErrorKind::Invalid));
        }
        let (mut answer, end) = inner.answer(index.parse().expect("the fake has made it"), most);
        let is_end = inner.closed && end == inner.records.len();
        answer.next = (!is_end).then(|| self::iterator(end));
        Ok(answer)
    }

    async fn subscribe(
        &self,
        _: &str,
        position: &StartingPosition,
    ) -> Result<Box<dyn Subscription>, SubscribeError> {
        let mut inner = self.begin(Request::Subscribe(position.clone())).await;
        fault(&mut inner.subscribe_faults)?;
        let is_active = inner.active.is_some_and(|since| since.elapsed() < LEAST);
        if inner.is_exclusive && is_active {
            return Err(in_use());
        }
        let index = inner.find(position)?;
        inner.subscriptions += 1;
        inner.active = Some(Instant::now());
        Ok(Box::new(Pushed {
            fake: self.clone(),
            number: inner.subscriptions,
            index,
            ends: Instant::now() + LIFE,
        }))
    }

    async fn shards(&self) -> Result<Vec<Shard>> {
        let inner = self.begin(Request::Shards).await;
        if inner.deleted {
            return Err(error(ErrorKind::NotFound));
        }
        let mut shards = inner.children.clone();
        shards.push(child("shard-9", &[]));
        if inner.listed {
            shards.push(Shard {
                open: !inner.closed,
                ..child("shard-1", &[])
            });
        }
        Ok(shards)
    }
}

/// Returns the time since the first call of this in the test's thread.
fn since_ever() -> Duration {
    thread_local!(static EVER: Instant = Instant::now());
    EVER.with(Instant::elapsed)
}

pub(super) fn iterator(index: usize) -> String {
    format!("{index}@{}", since_ever().as_nanos())
}

#[derive(Debug)]
struct Pushed {
    fake: Arc<Fake>,
    number: u64,
    index: usize,
    ends: Instant,
}

impl Drop for Pushed {
    fn drop(&mut self) {
        let mut inner = self.fake.lock();
        if inner.subscriptions == self.number {
            inner.active = None;
        }
    }
}

#[async_trait]
impl Subscription for Pushed {
    async fn next(&mut self) -> Result<Option<Answer>, SubscribeError> {
        let begun = Instant::now();
        loop {
            sleep(Duration::from_millis(50)).await;
            if Instant::now() >= self.ends {
                return Ok(None);
            }
            let mut inner = self.fake.current();
            fault(&mut inner.push_faults)?;
            if inner.deleted {
                return Err(error(ErrorKind::NotFound).into());
            }
            if inner.is_exclusive && inner.subscriptions != self.number {
                return Err(in_use());
            }
            let (mut answer, end) = inner.answer(self.index, usize::MAX);
            let is_end = inner.closed && end == inner.records.len() && inner.end != End::Never;
            let is_due = begun.elapsed() >= Duration::from_secs(5) && !inner.silent;
            if answer.records.is_empty() && !is_end && !is_due {
                continue;
            }
            self.index = end;
            // A separate number, which belongs to no record if there is none.
            let number = end.checked_sub(1).map_or(0, |last| {
                let last = &inner.records[last].position;
                last.to_string().parse().expect("numbers are small here")
            });
            answer.next = Some(number.to_string());
            if is_end {
                answer.has_children = true;
                if inner.end == End::NoNumber {
                    answer.next = None;
                }
            }
            return Ok(Some(answer));
        }
    }
}
