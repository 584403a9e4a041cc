//! Partitions that come and go.
//!
//! A rebalance event is written down by the callback and answered here, when the runtime has drained
//! what is to go, or when the progress of what has come is known. Until then librdkafka fetches
//! nothing for any partition of the member, so drains should be short.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millstream_core::driver::Event;
use millstream_core::{Epoch, Error, ErrorKind, Partition, Result};
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use super::aide::TopicIds;
use super::claims::{SOON, next_epoch};
use super::context::{Name, list};
use super::lag::Behind;
use super::leader_epochs::LeaderEpochs;
use super::poller::Poller;
use super::progress::{NewPartition, Progress};
use super::questions::Question;
use super::slots::{Move, Slot, Stage};
use crate::config::Protocol;
use crate::error;
use crate::group::note::Note;
use crate::native::consume::Identity;
use crate::native::leader_epoch;

/// What a release may take to come here after the drain that it ends.
const GRACE: Duration = Duration::from_millis(500);

/// How long a seek waits for librdkafka's main thread.
const TO_SEEK: Duration = Duration::from_secs(1);

/// A rebalance event that waits for its answer.
#[derive(Debug)]
pub(super) enum Pending {
    /// Waits for the progress of the partitions.
    Assign(Vec<Name>),
    /// Waits until each of the partitions is released, or lost.
    Revoke {
        partitions: Vec<Name>,
        /// Others may have them already, so that there is nothing to drain for.
        lost: bool,
    },
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
        self.begin(Pending::Revoke { partitions, lost });
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
            Pending::Revoke { partitions, lost } => {
                match lost {
                    // Those that were only being assigned when it came.
                    true => self.lose(|slot| partitions.contains(&slot.name)),
                    false => self.drain(partitions),
                }
                self.pending = Some(event);
            }
        }
    }

    /// How long to wait for the runtime to release what it drains.
    pub(super) fn drain_timeout(&self) -> Duration {
        self.join.drain + GRACE
    }

    /// Tells the runtime to drain what it has of them.
    fn drain(&mut self, partitions: &[Name]) {
        let until = Instant::now() + self.drain_timeout();
        let mut told = Vec::new();
        for index in self.slots.indices(|slot| partitions.contains(&slot.name)) {
            let slot = self.slots.get_mut(index);
            match slot.stage {
                Stage::Owned => {
                    slot.stage = Stage::Draining {
                        until,
                        moves_to: None,
                    };
                    told.push((slot.partition.clone(), slot.epoch));
                }
                // Its new place is for the next owner to find.
                Stage::Draining { until, .. } => {
                    slot.stage = Stage::Draining {
                        until,
                        moves_to: None,
                    };
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
        let Stage::Draining { moves_to, .. } = slot.stage else {
            unreachable!("it was just looked at");
        };
        slot.stage = match moves_to {
            Some(to) => Stage::Moving(to),
            None => Stage::Left,
        };
        if moves_to.is_some() {
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
                Stage::Draining { moves_to, .. } => Some((index, moves_to?)),
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
        let Some(Pending::Revoke { partitions, .. }) = &self.pending else {
            return;
        };
        let held = self
            .slots
            .iter()
            .any(|(_, slot)| !matches!(slot.stage, Stage::Left) && partitions.contains(&slot.name));
        if held || self.commits.is_under_way() {
            return;
        }
        let Some(Pending::Revoke { partitions, .. }) = self.pending.take() else {
            unreachable!("it was just looked at");
        };
        self.unassign(&partitions);
        self.go_on();
    }

    fn unassign(&mut self, partitions: &[Name]) {
        for index in self.slots.indices(|slot| partitions.contains(&slot.name)) {
            self.slots.remove(index);
        }
        self.seek_suspects();
        if let Err(error) = self.consumer.incremental_unassign(&list(partitions)) {
            // The client has lost its session meanwhile, and tells so next.
            tracing::debug!(target: "librdkafka", %error, "the revocation was not taken");
        }
    }

    pub(super) fn on_progress(
        &mut self,
        progress: Vec<(Name, Option<Progress>)>,
        topic_ids: &TopicIds,
    ) {
        if !matches!(self.pending, Some(Pending::Assign(_))) {
            return;
        }
        let partitions = progress.into_iter().map(|(name, stored)| {
            let stored = stored.or_else(|| self.initial_offsets.of(&name).map(Progress::at));
            let topic_id = topic_ids.get(&name.0).copied();
            NewPartition::new(name, stored, topic_id)
        });
        let partitions: Vec<_> = partitions.collect();
        let mut recreated = BTreeMap::new();
        for new in &partitions {
            if let (Some(earlier), Some(id)) = (new.earlier_topic, new.stream_id) {
                recreated.insert(&new.name.0, (earlier, id));
            }
        }
        for (stream, (earlier, id)) in recreated {
            self.report_recreated(stream, earlier, id);
        }
        self.claim(partitions);
    }

    /// Takes partitions over, from the group's progress in them.
    pub(super) fn assign(&mut self, partitions: Vec<NewPartition>) {
        self.assignments += 1;
        let mut slots = Vec::with_capacity(partitions.len());
        let mut assigned = TopicPartitionList::new();
        for new in partitions {
            // A partition without progress in a group that has some was added since: it is read
            // from its beginning.
            let start = new
                .progress
                .map_or(Offset::Beginning, |progress| Offset::Offset(progress.next));
            if let Err(error) = assigned.add_partition_offset(&new.name.0, new.name.1, start) {
                tracing::error!(target: "librdkafka", %error, "an offset was not taken");
            }
            if let Some(epoch) = new.progress.and_then(|progress| progress.leader_epoch) {
                leader_epoch::set_of_last(&mut assigned, epoch);
            }
            self.queue.forward(&new.name.0, new.name.1);
            slots.push(self.slot(new));
        }
        self.seek_suspects();
        let taken = self.consumer.incremental_assign(&assigned);
        // A pause outlives an unassignment: without this, a partition that was paused when it went
        // would never deliver again.
        let taken = taken.and_then(|()| self.consumer.resume(&assigned));
        if let Err(error) = taken {
            // Nobody would read them: a member whose session is over is about to be told so, and has
            // them taken back.
            tracing::debug!(target: "librdkafka", %error, "the assignment was not taken");
            if !self.consumer.assignment_lost() && !slots.is_empty() {
                self.fail(error::from("join", error));
            }
        }
        self.validate(&assigned);
        for slot in slots {
            self.put(slot.assigned());
            if let Some(old) = self.slots.find(&slot.name.0, slot.name.1) {
                self.slots.remove(old);
            }
            self.slots.insert(slot);
        }
    }

    fn slot(&self, new: NewPartition) -> Slot {
        let stored = new.progress;
        let note = stored.map_or_else(Note::default, |progress| progress.note);
        let next = stored.map_or(0, |progress| progress.next);
        let leader_epoch = stored.and_then(|progress| progress.leader_epoch);
        Slot {
            partition: Partition::new(new.name.0.clone(), new.name.1.to_string()),
            name: new.name,
            epoch: next_epoch(self.generation, note),
            topic_id: new.stream_id.or(note.topic),
            stream_id: new.stream_id,
            assignment: self.assignments,
            handed: next,
            next,
            stored: next,
            leader_epochs: LeaderEpochs::at(next, leader_epoch),
            reset: note.reset,
            stage: Stage::Owned,
            checkpointed: false,
            paused: None,
            strayed: false,
            position_is_suspect: false,
            out_of_range: None,
            failing: None,
            behind: Behind::default(),
        }
    }

    /// Has the leaders asked whether the log before these offsets was cut back since it was read.
    /// librdkafka (2.12) does so for a seek, and for a leader that changes, but not for an assignment.
    pub(super) fn validate(&self, assigned: &TopicPartitionList) {
        let mut known = TopicPartitionList::new();
        for (element, epoch) in assigned.elements().iter().zip(leader_epoch::all(assigned)) {
            if let Some(epoch) = epoch {
                let mut added = known.add_partition(element.topic(), element.partition());
                // It is an offset already.
                let _ = added.set_offset(element.offset());
                leader_epoch::set_of_last(&mut known, epoch);
            }
        }
        self.seek(known);
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
        while self.pending.is_none() {
            let Some(next) = self.next_up.pop_front() else {
                return;
            };
            self.begin(next);
        }
    }

    /// Begins a partition anew from another place, in a new epoch.
    pub(super) fn restart(&mut self, index: usize, to: Move) {
        let slot = self.slots.get_mut(index);
        slot.epoch = Epoch(slot.epoch.0 + 1);
        slot.topic_id = to.topic_id;
        slot.stream_id = to.stream_id;
        slot.handed = to.offset;
        slot.next = to.offset;
        slot.stored = to.offset;
        slot.leader_epochs = LeaderEpochs::at(to.offset, None);
        slot.reset = to.reset;
        slot.stage = Stage::Owned;
        slot.position_is_suspect = false;
        let has_ended = slot.out_of_range.take().is_some();
        let paused = slot.paused.take();
        let (name, assigned) = (slot.name.clone(), slot.assigned());
        if paused.is_some_and(|pause| pause.hard) {
            // It can only fail for a partition that is not assigned any more.
            let _ = self.consumer.resume(&list([&name]));
        }
        self.queue.forward(&name.0, name.1);
        if has_ended || !self.seek(self.place_of(index)) {
            self.read_again(index);
        }
        self.put(assigned);
        self.kicker.wake(vec![name]);
    }

    /// Where a partition is to be read next, as a list for librdkafka.
    pub(super) fn place_of(&self, index: usize) -> TopicPartitionList {
        let slot = self.slots.get(index);
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&slot.name.0, slot.name.1);
        let set = element.set_offset(Offset::Offset(slot.next));
        debug_assert!(set.is_ok(), "offsets of Kafka are not negative");
        if let Some(epoch) = slot.leader_epochs.before(slot.next) {
            leader_epoch::set_of_last(&mut list, epoch);
        }
        list
    }

    /// Has partitions that are assigned read from these places. The leaders are asked first whether the
    /// logs before them were cut back since they were read. Waits until librdkafka has taken it, which
    /// needs no broker. Returns whether it has: it does not for partitions whose fetching has ended.
    pub(super) fn seek(&self, to: TopicPartitionList) -> bool {
        if to.count() == 0 {
            return true;
        }
        let sought = self.consumer.seek_partitions(to, TO_SEEK);
        let taken = sought.and_then(|each| each.elements().iter().try_for_each(|it| it.error()));
        if let Err(error) = &taken {
            tracing::debug!(target: "librdkafka", %error, "a seek was not taken");
        }
        taken.is_ok()
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
                Pending::Revoke { partitions, .. } => {
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
