//! The partitions of a member.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use millstream_core::{Epoch, Partition};
use slab::Slab;

use super::context::Name;
use super::lag::Behind;
use crate::native::consume::FetchFailure;

/// One partition that is assigned.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: Name,
    pub(super) partition: Partition,
    pub(super) epoch: Epoch,
    /// Which of the member's assignments it came with, counted from 1.
    pub(super) assignment: u64,
    /// The offset after the last record that was handed over.
    pub(super) handed: i64,
    /// The offset to read next: further than `handed` where what follows is nothing for readers, as
    /// the marks of transactions are not.
    pub(super) next: i64,
    /// The offset that is stored as the group's progress.
    pub(super) stored: i64,
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
    /// The failed fetch that the partition's ends are asked for.
    pub(super) out_of_range: Option<FetchFailure>,
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
        reset: Option<Move>,
    },
    /// The runtime is done with it, or was told that it is lost.
    Left,
    /// As `Left`; its new place is being stored.
    Moving(Move),
}

/// A place that a reset asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Move {
    /// Grows with each reset of the group.
    pub(super) id: u64,
    pub(super) offset: i64,
}

impl Slot {
    /// What to store when everything before `next` is settled: what follows the last record that was
    /// handed over, and is nothing for readers, needs no settling.
    pub(super) fn progress(&self, next: i64) -> i64 {
        match next == self.handed {
            true => self.next.max(next),
            false => next,
        }
    }

    /// Whether all is settled, and marks of transactions follow that are not stored as passed.
    pub(super) fn is_passed(&self) -> bool {
        self.stored >= self.handed && self.next > self.stored
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
