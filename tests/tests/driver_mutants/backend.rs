//! The memory driver with a bug: everything that does not concern one member.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use conformance::{Layer, LayeredProducer};
use millstream_core::driver::{
    Backend, CheckpointUpdate, Checkpoints, ConsumerGroup, JoinOptions, Membership, Producer,
};
use millstream_core::{Checkpoint, Guarantee, Lag, Partition, Position, Result, Start};
use millstream_memory::Memory;
use tokio::time::Instant;

use crate::bug::Bug;
use crate::membership::MutantMembership;
use crate::producer::MutantProducer;

/// The driver of the memory backend, with a bug or none.
#[derive(Debug, Clone)]
pub(crate) struct MutantBackend {
    pub(crate) memory: Memory,
    pub(crate) bug: Option<Bug>,
    pub(crate) session: Duration,
    /// The times during which members are cut off, by name.
    cut_off: Arc<Mutex<BTreeMap<String, CutOff>>>,
    /// The responses to steps of each group that must be lost, and those that were lost.
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

/// The time during which a member is cut off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CutOff {
    pub(crate) since: Instant,
    pub(crate) until: Instant,
}

/// The last settled position of each partition.
pub(crate) type Settled = BTreeMap<Partition, Position>;

impl MutantBackend {
    pub(crate) fn new(memory: Memory, bug: Option<Bug>, session: Duration) -> Self {
        Self {
            memory,
            bug,
            session,
            cut_off: Arc::default(),
            responses: Arc::default(),
            settled: Arc::default(),
            undone: Arc::default(),
        }
    }

    pub(crate) fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Cuts off a member from now on.
    pub(crate) fn freeze(&self, member: &str, duration: Duration) {
        let since = Instant::now();
        let until = since + duration;
        lock(&self.cut_off).insert(member.to_owned(), CutOff { since, until });
    }

    /// Returns the time during which a member is cut off, if it ever was.
    pub(crate) fn cut_off(&self, member: &str) -> Option<CutOff> {
        lock(&self.cut_off).get(member).copied()
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

    /// Records what a group has settled.
    pub(crate) fn settle(&self, group: &str, updates: &[CheckpointUpdate]) {
        note(&self.settled, group, updates);
    }

    /// Returns what a group has settled, also in streams that were deleted.
    pub(crate) fn settled(&self, group: &str) -> Settled {
        noted(&self.settled, group)
    }

    /// Moves every owned partition of a group, or assigns it to the same member again.
    async fn move_all(&self, group: &str) {
        let read = self.memory.checkpoints(group).read().await;
        for checkpoint in read.unwrap_or_default() {
            // The partition may have no owner.
            let _ = self.memory.faults().steal(group, &checkpoint.partition);
        }
    }

    /// Shows earlier progress of a group from now on, because the memory broker itself never moves progress back.
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
impl Layer for MutantBackend {
    async fn open_producer(
        &self,
        driver: &dyn Backend,
        stream: &str,
        required: &[Guarantee],
    ) -> Result<Arc<dyn Producer>> {
        let inner = driver.open_producer(stream, required).await?;
        Ok(match self.bug {
            Some(bug) => Arc::new(LayeredProducer(MutantProducer { inner, bug })),
            None => inner,
        })
    }

    async fn join(
        &self,
        group: &dyn ConsumerGroup,
        name: &str,
        options: JoinOptions,
    ) -> Result<Arc<dyn Membership>> {
        let mut inner_options = options.clone();
        match self.bug {
            Some(Bug::BatchBytesAreIgnored) => inner_options.batch_bytes = usize::MAX,
            Some(Bug::DrainIsNotLimited) => {
                inner_options.drain = Duration::from_secs(24 * 60 * 60);
            }
            Some(Bug::RevokingLeavesTooLong) => inner_options.drain *= 100,
            // All records are stored after the times that cases start at.
            Some(Bug::StartIsByTimeOfStorage) => inner_options.start = Start::Earliest,
            _ => {}
        }
        let inner = group.join(inner_options).await?;
        if self.has(Bug::PlanIsNotSticky) {
            self.move_all(name).await;
        }
        let name = name.to_owned();
        Ok(MutantMembership::wrap(inner, self.clone(), name, options))
    }

    fn checkpoints(&self, driver: &dyn Backend, group: &str) -> Arc<dyn Checkpoints> {
        Arc::new(MutantCheckpoints {
            inner: driver.checkpoints(group),
            backend: self.clone(),
            group: group.to_owned(),
        })
    }
}

#[derive(Debug)]
struct MutantCheckpoints {
    inner: Arc<dyn Checkpoints>,
    backend: MutantBackend,
    group: String,
}

#[async_trait]
impl Checkpoints for MutantCheckpoints {
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
        if self.backend.has(Bug::DeletedProgressIsShown) {
            let settled = self.backend.settled(&self.group).into_iter();
            checkpoints.extend(settled.map(|(partition, position)| Checkpoint {
                partition,
                position: Some(position),
                epoch: None,
                completed: false,
                lag: Lag::default(),
            }));
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
