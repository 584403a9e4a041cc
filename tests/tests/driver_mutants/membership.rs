//! The memory driver with a bug: a member.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use millstream_core::driver::{CheckpointUpdate, Event, JoinOptions, Membership, StoredRecord};
use millstream_core::{Epoch, Error, ErrorKind, Lag, Partition, Record, Result};
use tokio::time::{Instant, sleep, sleep_until};

use crate::backend::{MutantBackend, Settled};
use crate::bug::Bug;

/// A member, with a bug or none.
#[derive(Debug)]
pub(crate) struct MutantMembership {
    inner: Arc<dyn Membership>,
    backend: MutantBackend,
    group: String,
    options: JoinOptions,
    /// What the group had settled when the member joined.
    settled: Settled,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    owned: BTreeMap<Partition, Epoch>,
    /// The records of each partition that came last.
    last_records: BTreeMap<Partition, Vec<StoredRecord>>,
    calls_of_next: usize,
    last_heartbeat: Instant,
}

impl MutantMembership {
    pub(crate) fn wrap(
        inner: Arc<dyn Membership>,
        backend: MutantBackend,
        group: String,
        options: JoinOptions,
    ) -> Arc<dyn Membership> {
        let membership = Arc::new(Self {
            settled: backend.settled(&group),
            inner,
            backend,
            group,
            options,
            state: Mutex::new(State {
                owned: BTreeMap::new(),
                last_records: BTreeMap::new(),
                calls_of_next: 0,
                last_heartbeat: Instant::now(),
            }),
        });
        if membership.backend.has(Bug::HeartbeatsNeedTheRuntime) {
            tokio::spawn(send_heartbeats(Arc::downgrade(&membership)));
        }
        membership
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a heartbeat. With one that is too late the group has taken the member's partitions away.
    fn heartbeat(&self) {
        let mut state = self.state();
        let last = mem::replace(&mut state.last_heartbeat, Instant::now());
        if last.elapsed() <= self.backend.session {
            return;
        }
        let faults = self.backend.memory.faults();
        for partition in state.owned.keys() {
            // It may have been released meanwhile.
            let _ = faults.steal(&self.group, partition);
        }
    }

    fn note(&self, events: &[Event]) {
        let mut state = self.state();
        for event in events {
            match event {
                Event::Assigned {
                    partition, epoch, ..
                } => {
                    state.owned.insert(partition.clone(), *epoch);
                }
                Event::Records {
                    partition, records, ..
                } => {
                    let last = &mut state.last_records;
                    last.insert(partition.clone(), records.clone());
                }
                Event::Lost { partitions } => {
                    for (partition, _) in partitions {
                        state.owned.remove(partition);
                    }
                }
                _ => {}
            }
        }
    }

    /// Changes what `next` returns.
    fn mutate(&self, events: Vec<Event>) -> Vec<Event> {
        events
            .into_iter()
            .flat_map(|event| self.mutate_one(event))
            .collect()
    }

    fn mutate_one(&self, mut event: Event) -> Vec<Event> {
        match (self.backend.bug, &mut event) {
            (Some(Bug::AssignedHasNoCheckpoint), Event::Assigned { resume_after, .. }) => {
                *resume_after = None;
            }
            (Some(Bug::DrainIsNotLimited), Event::Revoking { within, .. }) => {
                *within = self.options.drain.min(*within);
            }
            (
                Some(Bug::ProgressOutlivesItsStream),
                Event::Records {
                    partition, records, ..
                },
            ) => {
                let settled = self.settled.get(partition).copied();
                records.retain(|record| settled < Some(record.position));
                if records.is_empty() {
                    return Vec::new();
                }
            }
            (Some(Bug::FirstDataLossIsNotReported), Event::DataLoss { after: None, .. }) => {
                return Vec::new();
            }
            (Some(Bug::DataLossHasNoPosition), Event::DataLoss { after, .. }) => *after = None,
            (Some(Bug::LagIsNotReported), Event::Lag { .. }) => return Vec::new(),
            (Some(Bug::LagHasNoTime), Event::Lag { lag, .. } | Event::Records { lag, .. }) => {
                lag.time = None;
            }
            (Some(Bug::RecordsFollowRevoking), Event::Revoking { partitions, .. }) => {
                let state = self.state();
                let late = partitions.iter().filter_map(|(partition, epoch)| {
                    Some(Event::Records {
                        partition: partition.clone(),
                        epoch: *epoch,
                        records: state.last_records.get(partition)?.clone(),
                        lag: Lag::default(),
                    })
                });
                let late: Vec<Event> = late.collect();
                return [event].into_iter().chain(late).collect();
            }
            _ => {}
        }
        vec![event]
    }

    /// Changes the updates of a checkpoint.
    fn mutate_updates(&self, updates: &[CheckpointUpdate]) -> Vec<CheckpointUpdate> {
        let mut updates = updates.to_vec();
        match self.backend.bug {
            Some(Bug::EpochIsNotCompared) => {
                let state = self.state();
                for update in &mut updates {
                    let owned = state.owned.get(&update.partition);
                    update.epoch = owned.copied().unwrap_or(update.epoch);
                }
            }
            Some(Bug::OnlyFirstUpdateIsStored) => updates.truncate(1),
            _ => {}
        }
        updates
    }

    /// Changes the error of a call.
    fn mutate_error(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::Fenced if self.backend.has(Bug::FencedIsUnavailable) => {
                Error::new(ErrorKind::Unavailable, error.operation(), "try again")
            }
            _ => error,
        }
    }
}

/// Sends heartbeats as long as the member is there.
async fn send_heartbeats(membership: Weak<MutantMembership>) {
    while let Some(membership) = membership.upgrade() {
        membership.heartbeat();
        let interval = membership.backend.session / 10;
        drop(membership);
        sleep(interval).await;
    }
}

/// A checkpoint that is on its way. If its call is dropped, it arrives late.
struct OnItsWay<'a> {
    membership: &'a MutantMembership,
    updates: &'a [CheckpointUpdate],
    has_arrived: bool,
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        if self.has_arrived {
            return;
        }
        let (backend, group) = (&self.membership.backend, &self.membership.group);
        let (backend, group) = (backend.clone(), group.clone());
        let updates = self.updates.to_vec();
        tokio::spawn(async move {
            sleep(backend.session / 100).await;
            backend.undo(&group, &updates);
        });
    }
}

#[async_trait]
impl Membership for MutantMembership {
    fn id(&self) -> &str {
        self.inner.id()
    }

    async fn next(&self) -> Result<Vec<Event>> {
        match self.backend.bug {
            Some(Bug::NextReturnsNoEvent) => {
                let mut state = self.state();
                state.calls_of_next += 1;
                if state.calls_of_next % 2 == 0 {
                    return Ok(Vec::new());
                }
            }
            Some(Bug::HeartbeatsNeedNext) => self.heartbeat(),
            Some(Bug::LossIsReportedLate) => {
                let name = self.options.member.as_deref().unwrap_or_default();
                if let Some(until) = self.backend.frozen_until(name) {
                    sleep_until(until).await;
                }
            }
            _ => {}
        }
        loop {
            let events = self.inner.next().await?;
            if self.backend.has(Bug::NextIsNotCancelSafe) {
                tokio::task::yield_now().await;
            }
            self.note(&events);
            let events = self.mutate(events);
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    async fn checkpoint(&self, updates: &[CheckpointUpdate]) -> Vec<Result<()>> {
        let stored = self.mutate_updates(updates);
        let is_late = self.backend.has(Bug::DroppedCheckpointIsStoredLate);
        let mut on_its_way = OnItsWay {
            membership: self,
            updates,
            has_arrived: !is_late,
        };
        if is_late {
            tokio::task::yield_now().await;
        }
        let results = self.inner.checkpoint(&stored).await;
        on_its_way.has_arrived = true;
        self.backend.settle(&self.group, &stored);
        let results = results.into_iter();
        let results = results.map(|result| result.map_err(|error| self.mutate_error(error)));
        let mut results: Vec<Result<()>> = results.collect();
        match self.backend.bug {
            Some(Bug::CheckpointResultsAreReversed) => results.reverse(),
            Some(Bug::OnlyFirstUpdateIsStored) => results.resize(updates.len(), Ok(())),
            Some(Bug::RefusedUpdateIsAcknowledged) => results.fill(Ok(())),
            _ => {}
        }
        results
    }

    async fn publish(
        &self,
        stream: &str,
        records: &[Record],
        updates: &[CheckpointUpdate],
    ) -> Result<()> {
        let mut published = self.inner.publish(stream, records, updates).await;
        let is_lost = published.is_ok() && self.backend.loses_response(&self.group);
        // Without the bug the driver finds out that the step is stored.
        if is_lost && self.backend.has(Bug::StepIsRepeated) {
            published = self.inner.publish(stream, records, updates).await;
        }
        published.map_err(|error| {
            let is_fenced = error.is_retryable() && self.backend.has(Bug::PartlyLostStepIsFenced);
            match is_fenced {
                true => Error::new(ErrorKind::Fenced, "publish", "a partition is lost"),
                false => self.mutate_error(error),
            }
        })
    }

    async fn release(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        let released = self.inner.release(partition, epoch).await;
        if released.is_ok() {
            self.state().owned.remove(partition);
        }
        released.map_err(|error| self.mutate_error(error))
    }

    async fn complete(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        let completed = self.inner.complete(partition, epoch).await;
        completed.map_err(|error| self.mutate_error(error))
    }

    fn pause(&self, partition: &Partition, epoch: Epoch) {
        self.inner.pause(partition, epoch);
    }

    fn resume(&self, partition: &Partition, epoch: Epoch) {
        self.inner.resume(partition, epoch);
    }

    async fn leave(&self) -> Result<()> {
        self.inner.leave().await
    }
}
