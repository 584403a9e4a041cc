//! The memory driver with a bug: what is not about one member.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use millstream_core::driver::{
    self, Backend, CheckpointUpdate, JoinOptions, Pipelining, Rejected, StreamLimits,
};
use millstream_core::{
    Checkpoint, Guarantees, Partition, Position, Record, RecordMetadata, Result, Start,
};
use millstream_memory::Memory;
use tokio::time::Instant;

use crate::bug::Bug;
use crate::membership::MutantMembership;

/// The driver of the memory backend, with a bug or none.
#[derive(Debug, Clone)]
pub(crate) struct MutantBackend {
    pub(crate) memory: Memory,
    pub(crate) bug: Option<Bug>,
    pub(crate) session: Duration,
    /// Until when members are cut off, by name.
    frozen: Arc<Mutex<BTreeMap<String, Instant>>>,
    /// The responses to steps of each group that are to be lost, and that were.
    responses: Arc<Mutex<BTreeMap<String, LostResponses>>>,
    /// The last checkpoints of each group, also in streams that were deleted.
    settled: Arc<Mutex<BTreeMap<String, Settled>>>,
    /// Earlier checkpoints of each group that have undone later ones.
    undone: Arc<Mutex<BTreeMap<String, Settled>>>,
}

#[derive(Debug, Default)]
struct LostResponses {
    planned: u32,
    hits: u64,
}

/// The last settled position of each partition.
pub(crate) type Settled = BTreeMap<Partition, Position>;

impl MutantBackend {
    pub(crate) fn new(memory: Memory, bug: Option<Bug>, session: Duration) -> Self {
        Self {
            memory,
            bug,
            session,
            frozen: Arc::default(),
            responses: Arc::default(),
            settled: Arc::default(),
            undone: Arc::default(),
        }
    }

    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    pub(crate) fn freeze(&self, member: &str, until: Instant) {
        lock(&self.frozen).insert(member.to_owned(), until);
    }

    pub(crate) fn frozen_until(&self, member: &str) -> Option<Instant> {
        lock(&self.frozen).get(member).copied()
    }

    /// Loses the responses to the next steps of a group.
    pub(crate) fn lose_responses(&self, group: &str, times: u32) {
        let mut responses = lock(&self.responses);
        responses.entry(group.to_owned()).or_default().planned = times;
    }

    /// Returns whether the response to this step of a group is lost.
    pub(crate) fn loses_response(&self, group: &str) -> bool {
        let mut responses = lock(&self.responses);
        let of = responses.entry(group.to_owned()).or_default();
        let is_lost = of.planned > 0;
        of.planned -= u32::from(is_lost);
        of.hits += u64::from(is_lost);
        is_lost
    }

    /// Returns how many responses of a group were lost.
    pub(crate) fn lost_responses(&self, group: &str) -> u64 {
        lock(&self.responses).get(group).map_or(0, |of| of.hits)
    }

    /// Notes what a group has settled.
    pub(crate) fn settle(&self, group: &str, updates: &[CheckpointUpdate]) {
        note(&self.settled, group, updates);
    }

    /// Returns what a group has settled, also in streams that were deleted.
    pub(crate) fn settled(&self, group: &str) -> Settled {
        noted(&self.settled, group)
    }

    /// Shows earlier progress of a group from now on: the memory broker itself never goes back.
    pub(crate) fn undo(&self, group: &str, updates: &[CheckpointUpdate]) {
        note(&self.undone, group, updates);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(groups: &Mutex<BTreeMap<String, Settled>>, group: &str, updates: &[CheckpointUpdate]) {
    let mut groups = lock(groups);
    let settled = groups.entry(group.to_owned()).or_default();
    for update in updates {
        settled.insert(update.partition.clone(), update.position);
    }
}

fn noted(groups: &Mutex<BTreeMap<String, Settled>>, group: &str) -> Settled {
    lock(groups).get(group).cloned().unwrap_or_default()
}

#[async_trait]
impl Backend for MutantBackend {
    fn name(&self) -> &'static str {
        self.memory.name()
    }

    fn guarantees(&self) -> Guarantees {
        self.memory.guarantees()
    }

    async fn open_producer(&self, stream: &str) -> Result<Arc<dyn driver::Producer>> {
        let inner = self.memory.open_producer(stream).await?;
        Ok(match self.bug {
            Some(Bug::KeylessInOnePartition) => Arc::new(OnePartitionProducer(inner)),
            _ => inner,
        })
    }

    fn consumer_group(&self, group: &str) -> Arc<dyn driver::ConsumerGroup> {
        Arc::new(MutantGroup {
            inner: self.memory.consumer_group(group),
            backend: self.clone(),
            group: group.to_owned(),
        })
    }

    fn checkpoints(&self, group: &str) -> Arc<dyn driver::Checkpoints> {
        Arc::new(MutantCheckpoints {
            inner: self.memory.checkpoints(group),
            backend: self.clone(),
            group: group.to_owned(),
        })
    }

    fn streams(&self) -> Arc<dyn driver::Streams> {
        self.memory.streams()
    }
}

#[derive(Debug)]
struct MutantGroup {
    inner: Arc<dyn driver::ConsumerGroup>,
    backend: MutantBackend,
    group: String,
}

#[async_trait]
impl driver::ConsumerGroup for MutantGroup {
    async fn join(&self, options: JoinOptions) -> Result<Arc<dyn driver::Membership>> {
        let mut inner_options = options.clone();
        match self.backend.bug {
            Some(Bug::DrainIsNotLimited) => {
                inner_options.drain = Duration::from_secs(24 * 60 * 60);
            }
            Some(Bug::RevokingLeavesTooLong) => inner_options.drain *= 100,
            _ => {}
        }
        let inner = self.inner.join(inner_options).await?;
        let (backend, group) = (self.backend.clone(), self.group.clone());
        Ok(MutantMembership::wrap(inner, backend, group, options))
    }
}

#[derive(Debug)]
struct MutantCheckpoints {
    inner: Arc<dyn driver::Checkpoints>,
    backend: MutantBackend,
    group: String,
}

#[async_trait]
impl driver::Checkpoints for MutantCheckpoints {
    async fn read(&self) -> Result<Vec<Checkpoint>> {
        let mut checkpoints = self.inner.read().await?;
        let undone = noted(&self.backend.undone, &self.group);
        for checkpoint in &mut checkpoints {
            if self.backend.has(Bug::StartIsShownAsSettled) {
                checkpoint.position.get_or_insert(Position::from(0));
            }
            let earlier = undone.get(&checkpoint.partition).copied();
            checkpoint.position = earlier.or(checkpoint.position);
        }
        Ok(checkpoints)
    }

    async fn reset(&self, stream: &str, to: Start) -> Result<()> {
        if self.backend.has(Bug::ResetReturnsEarly) {
            let (inner, stream) = (self.inner.clone(), stream.to_owned());
            tokio::spawn(async move { inner.reset(&stream, to).await });
            return Ok(());
        }
        self.inner.reset(stream, to).await
    }
}

/// Stores all records without a key where those of one key go.
#[derive(Debug)]
struct OnePartitionProducer(Arc<dyn driver::Producer>);

#[async_trait]
impl driver::Producer for OnePartitionProducer {
    fn limits(&self) -> StreamLimits {
        self.0.limits()
    }

    fn pipelining(&self) -> Pipelining {
        self.0.pipelining()
    }

    fn validate(&self, record: &Record) -> Result<()> {
        self.0.validate(record)
    }

    async fn send(&self, mut records: Vec<Record>) -> Vec<Result<RecordMetadata, Rejected>> {
        for record in &mut records {
            record.key.get_or_insert_with(|| "key".into());
        }
        self.0.send(records).await
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}
