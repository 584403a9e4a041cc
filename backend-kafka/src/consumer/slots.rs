//! The partitions of a member.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use millstream_core::driver::Event;
use millstream_core::{Epoch, Partition};
use slab::Slab;

use super::context::Name;
use super::lag::Behind;
use super::leader_epochs::LeaderEpochs;
use super::progress::Progress;
use super::stalled::Failing;
use crate::group::note::Note;
use crate::native::consume::FetchFailure;
use crate::native::topic_ids::TopicId;
use crate::offsets;

/// One partition that is assigned.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: Name,
    pub(super) partition: Partition,
    pub(super) epoch: Epoch,
    /// The id of the topic that is read, if the broker has told it or a note has it.
    pub(super) topic_id: Option<TopicId>,
    /// The same, only if the broker has told it at the assignment.
    pub(super) stream_id: Option<TopicId>,
    /// Which of the member's assignments it came with, counted from 1.
    pub(super) assignment: u64,
    /// The offset after the last record that was handed over.
    pub(super) handed: i64,
    /// The offset to read next: further than `handed` where what follows is nothing for readers, as
    /// the marks of transactions are not.
    pub(super) next: i64,
    /// The offset that is stored as the group's progress.
    pub(super) stored: i64,
    pub(super) leader_epochs: LeaderEpochs,
    /// Whether it was this member that stored it, by a checkpoint.
    pub(super) checkpointed: bool,
    /// The last reset that its progress obeys.
    pub(super) reset: Option<u64>,
    pub(super) stage: Stage,
    pub(super) paused: Option<Pause>,
    /// Whether it was assigned anew, and nothing has come since: librdkafka ends the forward of its
    /// records some time after it was unassigned.
    pub(super) strayed: bool,
    /// Whether librdkafka's position may be beyond a record that never came, since a fetch has failed
    /// after the last one that did.
    pub(super) position_is_suspect: bool,
    /// The failed fetch that the partition's ends are asked for. librdkafka fetches no more of the
    /// partition until it is assigned anew.
    pub(super) out_of_range: Option<FetchFailure>,
    /// Fetches that have failed since the last record came.
    pub(super) failing: Option<Failing>,
    pub(super) behind: Behind,
}

/// How far a partition is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The runtime has it.
    Owned,
    /// The runtime drains it, until then at most.
    Draining {
        until: Instant,
        /// Where it goes on, if it does so with this member.
        moves_to: Option<Move>,
    },
    /// The runtime is done with it, or was told that it is lost.
    Left,
    /// As `Left`; its new place is being stored.
    Moving(Move),
}

/// Another place for a partition to go on from: one that a reset asks for, or the beginning of a topic
/// that was created again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) offset: i64,
    /// The last reset that is obeyed there.
    pub(super) reset: Option<u64>,
    /// See [`Slot::topic_id`].
    pub(super) topic_id: Option<TopicId>,
    /// See [`Slot::stream_id`].
    pub(super) stream_id: Option<TopicId>,
}

impl Slot {
    /// What to store when everything before `next` is settled: what follows the last record that was
    /// handed over, and is nothing for readers, needs no settling.
    fn progress(&self, next: i64) -> i64 {
        match next == self.handed {
            true => self.next.max(next),
            false => next,
        }
    }

    /// Its assignment as it begins.
    pub(super) fn assigned(&self) -> Event {
        Event::Assigned {
            partition: self.partition.clone(),
            epoch: self.epoch,
            resume_after: offsets::settled(self.stored),
            stream_id: self.stream_id.map(|id| id.to_string().into()),
        }
    }

    /// What to store when everything before `next` is settled.
    pub(super) fn progress_at(&self, next: i64) -> Progress {
        let next = self.progress(next);
        Progress {
            next,
            leader_epoch: self.leader_epochs.before(next),
            note: Note {
                epoch: Some(self.epoch),
                reset: self.reset,
                claim: None,
                topic: self.topic_id,
            },
        }
    }

    /// Notes what is stored.
    pub(super) fn set_stored(&mut self, next: i64) {
        self.stored = next;
        self.leader_epochs.forget_before(next);
    }

    /// Whether all is settled, and marks of transactions follow that are not stored as passed.
    ///
    /// Only behind what this member has checkpointed. So a pipeline stores nothing beside its transactions:
    /// a request that was sent twice, as over a connection that broke, could come late and undo one.
    pub(super) fn is_passed(&self) -> bool {
        self.checkpointed && self.stored >= self.handed && self.next > self.stored
    }
}

/// A pause that the runtime asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pause {
    pub(super) since: Instant,
    /// Whether librdkafka was told, too.
    pub(super) hard: bool,
}

/// The partitions by topic and number.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Slab<Slot>,
    topics: HashMap<Arc<str>, Vec<Option<usize>>>,
}

impl Slots {
    pub(super) fn find(&self, topic: &str, partition: i32) -> Option<usize> {
        let partition = usize::try_from(partition).ok()?;
        *self.topics.get(topic)?.get(partition)?
    }

    /// The slot of a partition in the SDK's words, if it is assigned in this epoch.
    pub(super) fn of(&self, partition: &Partition, epoch: Epoch) -> Option<usize> {
        let index = self.find(partition.stream(), partition.id().parse().ok()?)?;
        (self.slots[index].epoch == epoch).then_some(index)
    }

    pub(super) fn insert(&mut self, slot: Slot) -> usize {
        let (topic, partition) = slot.name.clone();
        let number = usize::try_from(partition).expect("Kafka counts partitions from 0");
        let index = self.slots.insert(slot);
        let numbers = self.topics.entry(topic).or_default();
        if numbers.len() <= number {
            numbers.resize(number + 1, None);
        }
        numbers[number] = Some(index);
        index
    }

    pub(super) fn remove(&mut self, index: usize) -> Slot {
        let slot = self.slots.remove(index);
        let (topic, partition) = &slot.name;
        let number = usize::try_from(*partition).expect("it was inserted");
        let numbers = self.topics.get_mut(topic).expect("it was inserted");
        numbers[number] = None;
        slot
    }

    pub(super) fn get(&self, index: usize) -> &Slot {
        &self.slots[index]
    }

    pub(super) fn get_mut(&mut self, index: usize) -> &mut Slot {
        &mut self.slots[index]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Slot)> {
        self.slots.iter_mut()
    }

    /// Those that meet a condition, to go on with each.
    pub(super) fn indices(&self, mut wanted: impl FnMut(&Slot) -> bool) -> Vec<usize> {
        let slots = self.slots.iter().filter(|(_, slot)| wanted(slot));
        slots.map(|(index, _)| index).collect()
    }
}
