//! The partitions of a member.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use millstream_core::{Epoch, Partition};
use slab::Slab;

use super::assigned::{Assigned, RestartPoint, Stage};
use crate::consumer::types::TopicPartition;

/// Partitions with the epochs of their assignments, as in events.
pub(crate) type Owned = Vec<(Partition, Epoch)>;

/// The assigned partitions, by topic and number.
#[derive(Debug, Default)]
pub(crate) struct Assignment {
    partitions: Slab<Assigned>,
    topics: HashMap<Arc<str>, Vec<Option<usize>>>,
}

/// The outcome of the release of a partition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// The partition is given up.
    Leaves,
    /// The partition restarts when its new position is stored.
    Restarts,
    /// The partition was not draining in this epoch.
    Fenced,
}

impl Assignment {
    pub(crate) fn find(&self, topic: &str, partition: i32) -> Option<usize> {
        let partition = usize::try_from(partition).ok()?;
        *self.topics.get(topic)?.get(partition)?
    }

    /// Finds the SDK's partition, if it is assigned in this epoch.
    pub(crate) fn find_in_epoch(&self, partition: &Partition, epoch: Epoch) -> Option<usize> {
        let index = self.find(partition.stream(), partition.id().parse().ok()?)?;
        (self.partitions[index].epoch == epoch).then_some(index)
    }

    /// Adds a partition, and replaces an earlier assignment of it.
    pub(crate) fn insert(&mut self, new: Assigned) {
        let (topic, partition) = new.name.clone();
        if let Some(earlier) = self.find(&topic, partition) {
            self.partitions.remove(earlier);
        }
        let number = usize::try_from(partition).expect("Kafka counts partitions from 0");
        let index = self.partitions.insert(new);
        let numbers = self.topics.entry(topic).or_default();
        if numbers.len() <= number {
            numbers.resize(number + 1, None);
        }
        numbers[number] = Some(index);
    }

    /// Removes partitions. Ignores those that are not assigned.
    pub(crate) fn remove(&mut self, names: &[TopicPartition]) {
        for (topic, partition) in names {
            let Some(index) = self.find(topic, *partition) else {
                continue;
            };
            self.partitions.remove(index);
            let number = usize::try_from(*partition).expect("it was inserted");
            let numbers = self.topics.get_mut(topic).expect("it was inserted");
            numbers[number] = None;
        }
    }

    pub(crate) fn get(&self, index: usize) -> &Assigned {
        &self.partitions[index]
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> &mut Assigned {
        &mut self.partitions[index]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Assigned> {
        self.partitions.iter().map(|(_, it)| it)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Assigned> {
        self.partitions.iter_mut().map(|(_, it)| it)
    }

    pub(crate) fn names(&self) -> Vec<TopicPartition> {
        self.iter().map(|it| it.name.clone()).collect()
    }

    /// Starts to drain partitions that are given up. Returns those of which the runtime must be notified.
    pub(crate) fn drain(&mut self, names: &[TopicPartition], until: Instant) -> Owned {
        let mut draining = Vec::new();
        for (topic, partition) in names {
            let Some(index) = self.find(topic, *partition) else {
                continue;
            };
            let it = self.get_mut(index);
            it.stage = match it.stage {
                Stage::Owned => {
                    draining.push((it.partition.clone(), it.epoch));
                    Stage::Draining {
                        until,
                        restart: None,
                    }
                }
                // The next owner finds the restart position itself.
                Stage::Draining { until, .. } => Stage::Draining {
                    until,
                    restart: None,
                },
                Stage::Restarting(_) | Stage::Released => Stage::Released,
            };
        }
        draining
    }

    /// Revokes partitions from the runtime at once. Returns those that the runtime had.
    pub(crate) fn lose(&mut self, is_lost: impl Fn(&Assigned) -> bool) -> Owned {
        let lost = self.iter_mut().filter(|it| is_lost(it));
        lost.filter_map(Assigned::lose).collect()
    }

    /// Revokes partitions like [`lose`](Self::lose), by name.
    pub(crate) fn lose_named(&mut self, names: &[TopicPartition]) -> Owned {
        let mut lost = Vec::new();
        for (topic, partition) in names {
            if let Some(index) = self.find(topic, *partition) {
                lost.extend(self.get_mut(index).lose());
            }
        }
        lost
    }

    /// Ends the drain of a partition.
    pub(crate) fn release(&mut self, partition: &Partition, epoch: Epoch) -> Release {
        let Some(index) = self.find_in_epoch(partition, epoch) else {
            return Release::Fenced;
        };
        let it = self.get_mut(index);
        let Stage::Draining { restart, .. } = it.stage else {
            return Release::Fenced;
        };
        it.stage = after_drain(restart);
        match restart {
            Some(_) => Release::Restarts,
            None => Release::Leaves,
        }
    }

    /// Revokes partitions whose drain by the runtime has taken too long. Returns them, and whether some of them
    /// restart.
    pub(crate) fn end_overdue_drains(&mut self, now: Instant) -> (Owned, bool) {
        let (mut lost, mut restarts) = (Vec::new(), false);
        for it in self.iter_mut() {
            match it.stage {
                Stage::Draining { until, restart } if until <= now => {
                    lost.push((it.partition.clone(), it.epoch));
                    it.stage = after_drain(restart);
                    restarts |= restart.is_some();
                }
                _ => {}
            }
        }
        (lost, restarts)
    }

    /// Returns when the next drain exceeds its time.
    pub(crate) fn next_drain_end(&self) -> Option<Instant> {
        let ends = self.iter().filter_map(|it| match it.stage {
            Stage::Draining { until, .. } => Some(until),
            _ => None,
        });
        ends.min()
    }

    /// Returns whether all assigned partitions among these are released.
    pub(crate) fn are_released(&self, names: &[TopicPartition]) -> bool {
        let assigned = names
            .iter()
            .filter_map(|(topic, partition)| self.find(topic, *partition));
        assigned
            .map(|index| self.get(index).stage)
            .all(|stage| matches!(stage, Stage::Released))
    }
}

fn after_drain(restart: Option<RestartPoint>) -> Stage {
    match restart {
        Some(at) => Stage::Restarting(at),
        None => Stage::Released,
    }
}
