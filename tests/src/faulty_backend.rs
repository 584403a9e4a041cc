use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millstream_core::driver::{self, CheckpointUpdate, JoinOptions, Membership, Rejected};
use millstream_core::{Error, ErrorKind, Guarantee, Record, RecordMetadata, Result};

use crate::layer::{
    Layer, Layered, LayeredMembership, LayeredProducer, MembershipLayer, ProducerLayer,
};
use crate::{Fault, Hooks};

/// Wraps a driver and injects faults between it and its broker: sends, checkpoints and steps of pipelines
/// fail, get lost, or are slow, and joins are slow.
///
/// With it a harness has the faults of [`FaultyBackend::HOOKS`] on any driver whose
/// [`Pipelining`](driver::Pipelining) is by key, and only needs to inject the faults of members itself.
pub type FaultyBackend<B> = Layered<B, Faults>;

/// The planned faults of a [`FaultyBackend`]. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    planned: Arc<Mutex<Vec<PlannedFault>>>,
    /// The number of hits of each stream and group.
    hits: Arc<Mutex<BTreeMap<String, u64>>>,
    /// The lowered record size limits of streams, which their drivers do not report.
    limits: Arc<Mutex<BTreeMap<String, usize>>>,
}

#[derive(Debug)]
struct PlannedFault {
    /// A stream of sends, or a group of joins and checkpoints.
    of: String,
    /// The key of a record, or the name of a member. `None`: any.
    key: Option<Bytes>,
    what: FaultKind,
    times: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FaultKind {
    FailSend(ErrorKind),
    TimeOutSend,
    DelaySends(Duration),
    DelayJoin(Duration),
    FailCheckpoint,
    LoseCheckpoint,
    RefusePublishLate(Duration),
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, Vec<PlannedFault>> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, of: &str, key: Option<Bytes>, what: FaultKind, times: u32) {
        let same = |planned: &PlannedFault| {
            planned.of == of
                && std::mem::discriminant(&planned.what) == std::mem::discriminant(&what)
        };
        let mut plan = self.lock();
        if times == 0 || matches!(what, FaultKind::DelaySends(_)) {
            plan.retain(|planned| !same(planned));
        }
        if times > 0 {
            plan.push(PlannedFault {
                of: of.to_owned(),
                key,
                what,
                times,
            });
        }
    }

    fn limits(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rejects a record that is larger than its stream accepts.
    fn check_size(&self, operation: &'static str, stream: &str, record: &Record) -> Result<()> {
        let size = record.size();
        match self.limits().get(stream) {
            Some(limit) if size > *limit => {
                let message = format!("the record has {size} bytes, injected limit {limit}");
                Err(Error::new(ErrorKind::TooLarge, operation, message).with_stream(stream))
            }
            _ => Ok(()),
        }
    }

    /// Counts one call, and returns what happens to it.
    fn hit(
        &self,
        of: &str,
        key: Option<&Bytes>,
        wanted: fn(FaultKind) -> bool,
    ) -> Option<FaultKind> {
        let mut plan = self.lock();
        let planned = plan.iter_mut().find(|planned| {
            let concerns = planned.key.is_none() || planned.key.as_ref() == key;
            planned.of == of && planned.times > 0 && wanted(planned.what) && concerns
        })?;
        let mut hits = self.hits.lock().unwrap_or_else(PoisonError::into_inner);
        *hits.entry(of.to_owned()).or_default() += 1;
        planned.times = planned
            .times
            .saturating_sub(u32::from(planned.times < u32::MAX));
        Some(planned.what)
    }

    fn delay(&self, stream: &str) -> Option<Duration> {
        self.lock().iter().find_map(|planned| match planned.what {
            FaultKind::DelaySends(by) if planned.of == stream => Some(by),
            _ => None,
        })
    }
}

impl<B: driver::Backend> FaultyBackend<B> {
    /// The faults that it can inject.
    pub const HOOKS: Hooks = Hooks {
        fail_sends: true,
        fail_sends_by_key: true,
        time_out_sends: true,
        throttle_sends: true,
        delay_sends: true,
        delay_join: true,
        freeze: false,
        fail_checkpoints: true,
        lose_checkpoints: true,
        refuse_publish_late: true,
        lose_publish_responses: false,
        refuse_large: true,
        steal: false,
        trim: false,
        restart: false,
        network: false,
        own_session_clock: true,
        paused_clock: false,
        idempotent_sends: false,
        reshard_repeats_sends: false,
    };

    /// Wraps a driver. Clones share their faults.
    pub fn new(driver: B) -> Self {
        Self {
            driver,
            layer: Faults::default(),
        }
    }

    /// Wraps another driver, which shares the faults of this one.
    #[must_use]
    pub fn also(&self, driver: B) -> Self {
        Self {
            driver,
            layer: self.layer.clone(),
        }
    }

    /// Returns how many sends to a stream, or checkpoints and steps of a group, have failed or were lost by
    /// injected faults.
    pub fn hits(&self, stream_or_group: &str) -> u64 {
        let hits = self.layer.hits.lock();
        let hits = hits.unwrap_or_else(PoisonError::into_inner);
        hits.get(stream_or_group).copied().unwrap_or_default()
    }

    /// Injects a fault of [`HOOKS`](Self::HOOKS); returns any other fault.
    ///
    /// # Errors
    /// The fault, if it is not in `HOOKS`.
    pub fn inject(&self, fault: Fault) -> Result<(), Fault> {
        let plan = &self.layer;
        match &fault {
            Fault::FailSends { stream, key, times } => {
                let key = key.clone().map(Bytes::from);
                plan.add(
                    stream,
                    key,
                    FaultKind::FailSend(ErrorKind::Unavailable),
                    *times,
                );
            }
            Fault::ThrottleSends { stream, times } => {
                plan.add(
                    stream,
                    None,
                    FaultKind::FailSend(ErrorKind::Throttled),
                    *times,
                );
            }
            Fault::TimeOutSends { stream, times } => {
                plan.add(stream, None, FaultKind::TimeOutSend, *times);
            }
            Fault::DelaySends { stream, by } => {
                plan.add(
                    stream,
                    None,
                    FaultKind::DelaySends(*by),
                    u32::from(!by.is_zero()),
                );
            }
            Fault::DelayJoin { group, member, by } => {
                let member = Some(Bytes::from(member.clone()));
                plan.add(group, member, FaultKind::DelayJoin(*by), 1);
            }
            Fault::FailCheckpoints { group, times } => {
                plan.add(group, None, FaultKind::FailCheckpoint, *times);
            }
            Fault::LoseCheckpoints { group, times } => {
                plan.add(group, None, FaultKind::LoseCheckpoint, *times);
            }
            Fault::RefusePublishLate { group, after } => {
                plan.add(group, None, FaultKind::RefusePublishLate(*after), 1);
            }
            Fault::RefuseLarge { stream, limit } => {
                let mut limits = plan.limits();
                limits.remove(stream);
                limits.extend(limit.map(|limit| (stream.clone(), limit)));
            }
            _ => return Err(fault),
        }
        Ok(())
    }
}

#[async_trait]
impl Layer for Faults {
    async fn open_producer(
        &self,
        driver: &dyn driver::Backend,
        stream: &str,
        required: &[Guarantee],
    ) -> Result<Arc<dyn driver::Producer>> {
        Ok(Arc::new(LayeredProducer(Producer {
            inner: driver.open_producer(stream, required).await?,
            stream: stream.to_owned(),
            plan: self.clone(),
        })))
    }

    async fn join(
        &self,
        group: &dyn driver::ConsumerGroup,
        name: &str,
        options: JoinOptions,
    ) -> Result<Arc<dyn Membership>> {
        let member = options.member.clone().map(Bytes::from);
        let delays = |what| matches!(what, FaultKind::DelayJoin(_));
        if let Some(FaultKind::DelayJoin(by)) = self.hit(name, member.as_ref(), delays) {
            tokio::time::sleep(by).await;
        }
        Ok(Arc::new(LayeredMembership(Member {
            inner: group.join(options).await?,
            group: name.to_owned(),
            plan: self.clone(),
        })))
    }
}

#[derive(Debug)]
struct Producer {
    inner: Arc<dyn driver::Producer>,
    stream: String,
    plan: Faults,
}

/// The effect on one record of a call.
enum RecordAction {
    /// It is forwarded, and its response is returned.
    Forward,
    /// It is forwarded, and its response is lost.
    LoseResponse,
    Reject(Rejected),
}

impl Producer {
    fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, "send", "injected fault").with_stream(self.stream.as_str())
    }

    fn action(&self, record: &Record, failed: &mut BTreeSet<Bytes>) -> RecordAction {
        let stop = |kind| RecordAction::Reject(Rejected::new(record.clone(), self.error(kind)));
        if let Err(error) = self.plan.check_size("send", &self.stream, record) {
            return RecordAction::Reject(Rejected::new(record.clone(), error));
        }
        let key = record.key.as_ref();
        if key.is_some_and(|key| failed.contains(key)) {
            return stop(ErrorKind::Unavailable);
        }
        let sends = |what| matches!(what, FaultKind::FailSend(_) | FaultKind::TimeOutSend);
        let Some(hit) = self.plan.hit(&self.stream, key, sends) else {
            return RecordAction::Forward;
        };
        // The later records of the key must not overtake it.
        failed.extend(key.cloned());
        match hit {
            FaultKind::FailSend(kind) => stop(kind),
            _ => RecordAction::LoseResponse,
        }
    }
}

#[async_trait]
impl ProducerLayer for Producer {
    fn inner(&self) -> &dyn driver::Producer {
        &*self.inner
    }

    async fn send(&self, records: Vec<Record>) -> Vec<Result<RecordMetadata, Rejected>> {
        let mut failed = BTreeSet::new();
        let actions: Vec<RecordAction> = records
            .iter()
            .map(|record| self.action(record, &mut failed))
            .collect();
        let goes_on = |action: &RecordAction| !matches!(action, RecordAction::Reject(_));
        let on = records
            .iter()
            .zip(&actions)
            .filter(|(_, action)| goes_on(action));
        let on: Vec<Record> = on.map(|(record, _)| record.clone()).collect();
        let delay = self.plan.delay(&self.stream);
        let mut results = match on.is_empty() {
            true => Vec::new(),
            false => self.inner.send(on).await,
        }
        .into_iter();
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        let mut next_result = || {
            results
                .next()
                .expect("a driver returns a result for every record")
        };
        let result_of = |(record, action)| match action {
            RecordAction::Forward => next_result(),
            RecordAction::LoseResponse => {
                next_result()?;
                Err(Rejected::new(record, self.error(ErrorKind::Timeout)))
            }
            RecordAction::Reject(rejected) => Err(rejected),
        };
        records.into_iter().zip(actions).map(result_of).collect()
    }
}

#[derive(Debug)]
struct Member {
    inner: Arc<dyn Membership>,
    group: String,
    plan: Faults,
}

#[async_trait]
impl MembershipLayer for Member {
    fn inner(&self) -> &dyn Membership {
        &*self.inner
    }

    /// The updates without a fault are passed to the driver in one call, like the runtime's.
    async fn checkpoint(&self, updates: &[CheckpointUpdate]) -> Vec<Result<()>> {
        let checkpoints =
            |what| matches!(what, FaultKind::FailCheckpoint | FaultKind::LoseCheckpoint);
        let hits = updates
            .iter()
            .map(|_| self.plan.hit(&self.group, None, checkpoints));
        let hits: Vec<Option<FaultKind>> = hits.collect();
        let forwarded = updates.iter().zip(&hits).filter(|(_, hit)| hit.is_none());
        let forwarded: Vec<CheckpointUpdate> =
            forwarded.map(|(update, _)| update.clone()).collect();
        let mut results = match forwarded.is_empty() {
            true => Vec::new(),
            false => self.inner.checkpoint(&forwarded).await,
        }
        .into_iter();
        let result_of = |(update, hit): (&CheckpointUpdate, Option<FaultKind>)| match hit {
            None => results
                .next()
                .expect("a driver returns a result for every update"),
            Some(FaultKind::LoseCheckpoint) => Ok(()),
            Some(_) => Err(
                Error::new(ErrorKind::Unavailable, "checkpoint", "injected fault")
                    .with_partition(&update.partition),
            ),
        };
        updates.iter().zip(hits).map(result_of).collect()
    }

    /// A step cannot be lost: the publisher finds out its result.
    async fn publish(
        &self,
        stream: &str,
        records: &[Record],
        updates: &[CheckpointUpdate],
    ) -> Result<()> {
        for record in records {
            self.plan.check_size("publish", stream, record)?;
        }
        let fails = |what| {
            matches!(
                what,
                FaultKind::FailCheckpoint | FaultKind::RefusePublishLate(_)
            )
        };
        let kind = match self.plan.hit(&self.group, None, fails) {
            None => return self.inner.publish(stream, records, updates).await,
            Some(FaultKind::RefusePublishLate(after)) => {
                tokio::time::sleep(after).await;
                ErrorKind::Fenced
            }
            Some(_) => ErrorKind::Unavailable,
        };
        Err(Error::new(kind, "publish", "injected fault").with_group(self.group.as_str()))
    }
}
