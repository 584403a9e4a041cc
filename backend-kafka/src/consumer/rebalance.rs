//! Partitions that come and go.
//!
//! A rebalance event is written down by the callback and answered here, when the runtime has drained
//! what is to go, or when the progress of what has come is known. Until then librdkafka fetches
//! nothing for any partition of the member, so drains should be short.

use std::time::{Duration, Instant};

use millstream_core::driver::Event;
use millstream_core::{Epoch, Error, ErrorKind, Partition, Result};
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use super::aide::{Progress, Question, StreamIds};
use super::claims::{SOON, next_epoch};
use super::context::{Name, list};
use super::lag::Behind;
use super::poller::Poller;
use super::slots::{Slot, Stage};
use crate::config::Protocol;
use crate::group::offsets::{self, Note};
use crate::native::consume::Identity;

/// What a release may take to come here after the drain that it ends.
const GRACE: Duration = Duration::from_millis(500);

/// A rebalance event that waits for its answer.
#[derive(Debug)]
pub(super) enum Pending {
    /// Waits for the progress of the partitions.
    Assign(Vec<Name>),
    /// Waits until each of the partitions is released, or lost.
    Revoke(Vec<Name>),
}

impl Poller {
    pub(super) fn on_assign(&mut self, partitions: Vec<Name>, identity: Option<Identity>) {
        if let Some(identity) = identity {
            self.generation = identity.generation;
            self.told = identity.generation;
        }
        self.begin(Pending::Assign(partitions));
    }

    pub(super) fn on_revoke(
        &mut self,
        partitions: Vec<Name>,
        identity: Option<Identity>,
        lost: bool,
    ) {
        if let Some(identity) = identity {
            self.told = identity.generation;
        }
        if lost {
            self.lose(|slot| partitions.contains(&slot.name));
        }
        self.begin(Pending::Revoke(partitions));
    }

    fn begin(&mut self, event: Pending) {
        if self.pending.is_some() {
            self.next_up.push_back(event);
            return;
        }
        match &event {
            Pending::Assign(partitions) if partitions.is_empty() => {
                self.assign(Vec::new());
                self.go_on();
            }
            Pending::Assign(partitions) => {
                self.aide.ask(Question::Progress(partitions.clone()));
                self.heir_at = self.named.then(|| Instant::now() + SOON);
                self.pending = Some(event);
            }
            Pending::Revoke(partitions) => {
                self.drain(partitions);
                self.pending = Some(event);
            }
        }
    }

    /// Tells the runtime to drain what it has of them.
    fn drain(&mut self, partitions: &[Name]) {
        let now = Instant::now();
        let until = now + self.join.drain + GRACE;
        let mut told = Vec::new();
        for index in self.slots.indices(|slot| partitions.contains(&slot.name)) {
            let slot = self.slots.get_mut(index);
            match slot.stage {
                Stage::Owned => {
                    slot.stage = Stage::Draining { until, reset: None };
                    told.push((slot.partition.clone(), slot.epoch));
                }
                // Its new place is for the next owner to find.
                Stage::Draining { until, .. } => {
                    slot.stage = Stage::Draining { until, reset: None };
                }
                Stage::Moving(_) | Stage::Left => slot.stage = Stage::Left,
            }
        }
        if !told.is_empty() {
            self.put(Event::Revoking {
                partitions: told,
                within: self.join.drain,
            });
        }
    }

    pub(super) fn release(&mut self, partition: &Partition, epoch: Epoch) -> Result<()> {
        let index = self.slots.of(partition, epoch);
        let Some(index) =
            index.filter(|index| matches!(self.slots.get(*index).stage, Stage::Draining { .. }))
        else {
            return Err(fenced("release", partition));
        };
        let slot = self.slots.get_mut(index);
        let Stage::Draining { reset, .. } = slot.stage else {
            unreachable!("it was just looked at");
        };
        slot.stage = match reset {
            Some(to) => Stage::Moving(to),
            None => Stage::Left,
        };
        if reset.is_some() {
            self.commits.hurry();
        }
        Ok(())
    }

    /// Takes from the runtime what it has drained for too long.
    pub(super) fn give_up_drains(&mut self, now: Instant) {
        let overdue =
            |slot: &Slot| matches!(slot.stage, Stage::Draining { until, .. } if until <= now);
        let moves: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| overdue(slot))
            .filter_map(|(index, slot)| match slot.stage {
                Stage::Draining { reset, .. } => Some((index, reset?)),
                _ => None,
            })
            .collect();
        self.lose(overdue);
        for (index, to) in moves {
            self.slots.get_mut(index).stage = Stage::Moving(to);
            self.commits.hurry();
        }
    }

    pub(super) fn next_drain_end(&self) -> Option<Instant> {
        let ends = self.slots.iter().filter_map(|(_, slot)| match slot.stage {
            Stage::Draining { until, .. } => Some(until),
            _ => None,
        });
        ends.min()
    }

    /// Tells the runtime to stop at once with what it still has of them.
    pub(super) fn lose(&mut self, mut wanted: impl FnMut(&Slot) -> bool) {
        let mut told = Vec::new();
        for (_, slot) in self.slots.iter_mut() {
            if !wanted(slot) {
                continue;
            }
            if matches!(slot.stage, Stage::Owned | Stage::Draining { .. }) {
                told.push((slot.partition.clone(), slot.epoch));
            }
            slot.stage = Stage::Left;
        }
        if !told.is_empty() {
            self.put(Event::Lost { partitions: told });
        }
    }

    /// Answers a revocation when all is released.
    pub(super) fn answer_if_ready(&mut self) {
        let Some(Pending::Revoke(partitions)) = &self.pending else {
            return;
        };
        let held = self
            .slots
            .iter()
            .any(|(_, slot)| !matches!(slot.stage, Stage::Left) && partitions.contains(&slot.name));
        if held || self.commits.is_under_way() {
            return;
        }
        let Some(Pending::Revoke(partitions)) = self.pending.take() else {
            unreachable!("it was just looked at");
        };
        self.unassign(&partitions);
        self.go_on();
    }

    fn unassign(&mut self, partitions: &[Name]) {
        for index in self.slots.indices(|slot| partitions.contains(&slot.name)) {
            self.slots.remove(index);
        }
        if let Err(error) = self.consumer.incremental_unassign(&list(partitions)) {
            // The client has lost its session meanwhile, and tells so next.
            tracing::debug!(target: "librdkafka", %error, "the revocation was not taken");
        }
    }

    pub(super) fn on_progress(
        &mut self,
        progress: Vec<(Name, Option<Progress>)>,
        stream_ids: StreamIds,
    ) {
        if let Some(Pending::Assign(_)) = self.pending {
            for ((topic, _), _) in &progress {
                // One that is not known any more may be that of another topic.
                match stream_ids.get(topic) {
                    Some(id) => self.stream_ids.insert(topic.clone(), id.clone()),
                    None => self.stream_ids.remove(topic),
                };
            }
            let progress = progress.into_iter().map(|(name, progress)| {
                let progress = progress.or_else(|| self.birth(&name));
                (name, progress)
            });
            self.claim(progress.collect());
        }
    }

    /// Takes partitions over, from the group's progress in them.
    pub(super) fn assign(&mut self, progress: Vec<(Name, Option<Progress>)>) {
        let mut assigned = TopicPartitionList::new();
        self.assignments += 1;
        let mut events = Vec::new();
        for (name, progress) in progress {
            let note = progress.map_or_else(Note::default, |progress| progress.note);
            let epoch = next_epoch(self.generation, note);
            // A partition without progress in a group that has some was added since: it is read
            // from its beginning.
            let start =
                progress.map_or(Offset::Beginning, |progress| Offset::Offset(progress.next));
            if let Err(error) = assigned.add_partition_offset(&name.0, name.1, start) {
                tracing::error!(target: "librdkafka", %error, "an offset was not taken");
            }
            self.queue.forward(&name.0, name.1);
            let partition = Partition::new(name.0.clone(), name.1.to_string());
            let next = progress.map_or(0, |progress| progress.next);
            events.push(Event::Assigned {
                partition: partition.clone(),
                epoch,
                resume_after: progress.and_then(|progress| offsets::settled(progress.next)),
                stream_id: self.stream_ids.get(&name.0).cloned(),
            });
            if let Some(old) = self.slots.find(&name.0, name.1) {
                self.slots.remove(old);
            }
            self.slots.insert(Slot {
                name,
                partition,
                epoch,
                assignment: self.assignments,
                handed: next,
                next,
                stored: next,
                reset: note.reset,
                stage: Stage::Owned,
                checkpointed: false,
                paused: None,
                strayed: false,
                position_is_suspect: false,
                out_of_range: None,
                behind: Behind::default(),
            });
        }
        let taken = self.consumer.incremental_assign(&assigned);
        // A pause outlives an unassignment: without this, a partition that was paused when it went
        // would never deliver again.
        let taken = taken.and_then(|()| self.consumer.resume(&assigned));
        if let Err(error) = taken {
            tracing::debug!(target: "librdkafka", %error, "the assignment was not taken");
        }
        for event in events {
            self.put(event);
        }
    }

    fn birth(&self, (topic, partition): &Name) -> Option<Progress> {
        let mut born = self.born.iter();
        let born = born.find(|born| born.place() == (&**topic, *partition))?;
        Some(Progress {
            next: born.next,
            note: Note::default(),
        })
    }

    /// After an answer: the next event in turn, and the requests without which what stays, or what
    /// moves next, may stand still for a second.
    pub(super) fn go_on(&mut self) {
        let names: Vec<Name> = self
            .slots
            .iter()
            .map(|(_, slot)| slot.name.clone())
            .collect();
        self.aide.ask(Question::Watch(names.clone()));
        match (self.protocol, self.join.streams.first()) {
            (Protocol::Cooperative, Some(topic)) => self.kicker.ready(names, topic.clone()),
            _ => self.kicker.wake(names),
        }
        for name in std::mem::take(&mut self.astray) {
            self.aide.ask(Question::Bounds(name));
        }
        while self.pending.is_none() {
            let Some(next) = self.next_up.pop_front() else {
                return;
            };
            self.begin(next);
        }
    }

    /// Begins a partition anew from another place, in a new epoch.
    pub(super) fn restart(&mut self, index: usize, next: i64, reset: Option<u64>) {
        let slot = self.slots.get_mut(index);
        slot.epoch = Epoch(slot.epoch.0 + 1);
        slot.handed = next;
        slot.next = next;
        slot.stored = next;
        slot.reset = reset;
        slot.stage = Stage::Owned;
        slot.position_is_suspect = false;
        slot.out_of_range = None;
        let paused = slot.paused.take();
        let (name, partition, epoch) = (slot.name.clone(), slot.partition.clone(), slot.epoch);
        if paused.is_some_and(|pause| pause.hard) {
            // It can only fail for a partition that is not assigned any more.
            let _ = self.consumer.resume(&list([&name]));
        }
        self.queue.forward(&name.0, name.1);
        self.seek(&name, next);
        self.put(Event::Assigned {
            partition,
            epoch,
            resume_after: offsets::settled(next),
            stream_id: self.stream_ids.get(&name.0).cloned(),
        });
        self.kicker.wake(vec![name]);
    }

    pub(super) fn seek(&self, name: &Name, next: i64) {
        let sought = self
            .consumer
            .seek(&name.0, name.1, Offset::Offset(next), Duration::ZERO);
        if let Err(error) = sought {
            tracing::debug!(target: "librdkafka", %error, "a seek was not taken");
        }
    }

    /// A client with an unanswered rebalance event would never end.
    pub(super) fn answer_before_leaving(&mut self) {
        for event in self
            .pending
            .take()
            .into_iter()
            .chain(self.next_up.drain(..))
        {
            // Refused where the client has gone further already.
            let _ = match &event {
                Pending::Assign(partitions) => self.consumer.incremental_assign(&list(partitions)),
                Pending::Revoke(partitions) => {
                    self.consumer.incremental_unassign(&list(partitions))
                }
            };
        }
    }
}

pub(super) fn fenced(operation: &'static str, partition: &Partition) -> Error {
    let message = "the partition is not this member's any more, a newer owner may have it";
    Error::new(ErrorKind::Fenced, operation, message).with_partition(partition)
}
