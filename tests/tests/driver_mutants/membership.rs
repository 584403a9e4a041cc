//! The memory driver with a bug: a member.

mod events;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use conformance::{LayeredMembership, MembershipLayer};
use millstream_core::driver::{CheckpointUpdate, Event, JoinOptions, Membership, StoredRecord};
use millstream_core::{Epoch, Error, ErrorKind, Partition, Record, Result};
use tokio::time::{Instant, sleep, sleep_until};

use crate::backend::{CutOff, MutantBackend, Settled};
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
    /// The last records of each partition.
    last_records: BTreeMap<Partition, Vec<StoredRecord>>,
    calls_of_next: usize,
    last_heartbeat: Instant,
    paused: BTreeSet<Partition>,
    /// The first epoch of each partition.
    first_epochs: BTreeMap<Partition, Epoch>,
    /// Events that wait for records, although they must not.
    waits: Vec<Event>,
    /// Whether everything was lost while the member was cut off.
    was_cut_off: bool,
}

impl MutantMembership {
    pub(crate) fn wrap(
        inner: Arc<dyn Membership>,
        backend: MutantBackend,
        group: String,
        options: JoinOptions,
    ) -> Arc<dyn Membership> {
        let membership = Arc::new(LayeredMembership(Self {
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
                paused: BTreeSet::new(),
                first_epochs: BTreeMap::new(),
                waits: Vec::new(),
                was_cut_off: false,
            }),
        }));
        if membership.0.backend.has(Bug::HeartbeatsNeedTheRuntime) {
            tokio::spawn(send_heartbeats(Arc::downgrade(&membership)));
        }
        membership
    }

    /// Returns the time during which the member is cut off, if it was.
    fn cut_off(&self) -> Option<CutOff> {
        let name = self.options.member.as_deref().unwrap_or_default();
        self.backend.cut_off(name)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a heartbeat. If it is too late, the group has revoked the member's partitions.
    fn heartbeat(&self) {
        let mut state = self.state();
        let last = mem::replace(&mut state.last_heartbeat, Instant::now());
        if last.elapsed() > self.backend.session {
            self.expire(&state);
        }
    }

    /// Makes the group revoke the member's partitions.
    fn expire(&self, state: &State) {
        let faults = self.backend.memory.faults();
        for partition in state.owned.keys() {
            // It may have been released meanwhile.
            let _ = faults.steal(&self.group, partition);
        }
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

    /// Stores a checkpoint a moment later, or not at all.
    fn store_later(&self, updates: &[CheckpointUpdate]) {
        let (inner, updates) = (self.inner.clone(), updates.to_vec());
        let moment = self.backend.session / 100;
        tokio::spawn(async move {
            sleep(moment).await;
            // The rejection is not reported.
            inner.checkpoint(&updates).await
        });
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

/// Sends heartbeats as long as the member exists.
async fn send_heartbeats(membership: Weak<LayeredMembership<MutantMembership>>) {
    while let Some(membership) = membership.upgrade() {
        membership.0.heartbeat();
        let interval = membership.0.backend.session / 10;
        drop(membership);
        sleep(interval).await;
    }
}

/// A checkpoint in flight. If its call is dropped, it arrives late.
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
impl MembershipLayer for MutantMembership {
    fn inner(&self) -> &dyn Membership {
        &*self.inner
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
                if let Some(cut_off) = self.cut_off() {
                    sleep_until(cut_off.until).await;
                }
            }
            Some(Bug::SessionIsCountedTooLate) => {
                if let Some(cut_off) = self.cut_off() {
                    sleep_until(cut_off.since + self.backend.session * 2).await;
                }
            }
            Some(Bug::HeartbeatIsNotRepeated) => {
                let is_new = self.cut_off().is_some() && !self.state().was_cut_off;
                if is_new {
                    self.state().was_cut_off = true;
                    self.expire(&self.state());
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
        if self.backend.has(Bug::CheckpointIsAcknowledgedEarly) {
            self.store_later(updates);
            return updates.iter().map(|_| Ok(())).collect();
        }
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
        // Without the bug, the driver finds out that the step is stored.
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
        self.state().paused.insert(partition.clone());
        self.inner.pause(partition, epoch);
    }

    fn resume(&self, partition: &Partition, epoch: Epoch) {
        self.state().paused.remove(partition);
        self.inner.resume(partition, epoch);
    }
}
