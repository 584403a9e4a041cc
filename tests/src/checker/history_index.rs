//! An index of a history for the checks. It is built from the whole history first, because a receipt
//! may be recorded after the record was handled, and a loss after its cause.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream_core::{Epoch, Partition, Position};

use super::Summary;
use crate::history::{Entry, Event, Handling, Outcome, Ownership};

#[derive(Debug, Default)]
pub(super) struct HistoryIndex<'a> {
    pub(super) records: BTreeMap<u64, Sent<'a>>,
    pub(super) groups: BTreeMap<&'a str, Group<'a>>,
    /// Streams whose keys may have moved to other partitions.
    pub(super) remapped: BTreeSet<&'a str>,
    /// Streams that were deleted.
    pub(super) deleted: BTreeSet<&'a str>,
    /// The deleted stream before each recreated stream.
    pub(super) predecessors: BTreeMap<&'a str, &'a str>,
    pub(super) sends_faulted: bool,
    /// Every known position, from a receipt or from a delivery.
    pub(super) places: BTreeMap<&'a Partition, BTreeMap<Position, u64>>,
    /// The position up to which partitions were trimmed.
    trimmed: BTreeMap<&'a Partition, Position>,
    /// The records that were removed by that.
    gone: BTreeSet<u64>,
}

#[derive(Debug)]
pub(super) struct Sent<'a> {
    order: u64,
    pub(super) stream: &'a str,
    pub(super) key: Option<&'a Arc<str>>,
    pub(super) sequence: u64,
    pub(super) digest: u64,
    pub(super) outcome: SendOutcome<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendOutcome<'a> {
    /// No result yet, or one that is inconclusive.
    Unknown,
    Stored(&'a Partition, Position),
    Failed,
}

#[derive(Debug, Default)]
pub(super) struct Group<'a> {
    /// When it began to read a stream, and whether it must settle what was sent before.
    pub(super) subscribed: BTreeMap<&'a str, (u64, bool)>,
    /// When it was moved in a stream, and whether that may skip records.
    resets: BTreeMap<&'a str, Vec<(u64, bool)>>,
    lost: BTreeSet<OwnershipKey<'a>>,
    released: BTreeSet<OwnershipKey<'a>>,
    /// Crashes among them.
    faults: Vec<(u64, Option<&'a str>)>,
    healed: Vec<u64>,
    /// When each epoch was first seen.
    epochs: BTreeMap<&'a Partition, BTreeMap<Epoch, u64>>,
    dropped: BTreeSet<(OwnershipKey<'a>, Position, u32)>,
    /// The records that an owner began and did not settle.
    unsettled: BTreeMap<OwnershipKey<'a>, BTreeSet<Position>>,
}

type OwnershipKey<'a> = (&'a str, &'a Partition, Epoch);

fn key(by: &Ownership) -> OwnershipKey<'_> {
    (&by.member, &by.partition, by.epoch)
}

impl<'a> HistoryIndex<'a> {
    pub(super) fn read(entries: &'a [Entry]) -> Self {
        let mut index = Self::default();
        for Entry { order, event } in entries {
            index.take(*order, event);
        }
        for (partition, earliest) in &index.trimmed {
            let places = index.places.get(partition).into_iter();
            let gone = places.flat_map(|places| places.range(..earliest));
            index.gone.extend(gone.map(|(_, id)| *id));
        }
        index
    }

    fn take(&mut self, order: u64, event: &'a Event) {
        match event {
            Event::Sent {
                stream,
                key,
                sequence,
                id,
                digest,
            } => {
                let sent = Sent {
                    order,
                    stream,
                    key: key.as_ref(),
                    sequence: *sequence,
                    digest: *digest,
                    outcome: SendOutcome::Unknown,
                };
                self.records.insert(*id, sent);
            }
            Event::Acknowledged {
                id,
                partition,
                position,
            } => {
                self.set_outcome(*id, SendOutcome::Stored(partition, *position));
                self.place(partition, *position, *id);
            }
            Event::Failed { id } => self.set_outcome(*id, SendOutcome::Failed),
            Event::Unknown { .. } => self.sends_faulted = true,
            Event::Subscribed {
                group,
                stream,
                everything,
            } => {
                let group = self.groups.entry(group).or_default();
                group
                    .subscribed
                    .entry(stream)
                    .or_insert((order, *everything));
            }
            Event::Crashed { group, member } => {
                self.group(group).faults.push((order, Some(member)));
            }
            Event::Fault {
                group: Some(group),
                member,
                ..
            } => {
                self.group(group).faults.push((order, member.as_deref()));
            }
            Event::Fault { group: None, .. } => self.sends_faulted = true,
            Event::Healed { group } => self.group(group).healed.push(order),
            Event::Assigned(by) => self.group(&by.group).note_epoch(by, order),
            Event::Released(by) => {
                self.group(&by.group).released.insert(key(by));
            }
            Event::Lost(by) => {
                self.group(&by.group).lost.insert(key(by));
            }
            Event::Began(handling) => {
                let by = &handling.by;
                let group = self.group(&by.group);
                group.note_epoch(by, order);
                let unsettled = group.unsettled.entry(key(by)).or_default();
                unsettled.insert(handling.position);
                self.place(&by.partition, handling.position, handling.id);
            }
            Event::Ended {
                handling,
                outcome: Outcome::Dropped,
            } => {
                let dropped = (key(&handling.by), handling.position, handling.attempt);
                self.group(&handling.by.group).dropped.insert(dropped);
            }
            Event::Reset {
                group,
                stream,
                skips,
            } => {
                let resets = &mut self.group(group).resets;
                resets.entry(stream).or_default().push((order, *skips));
            }
            Event::DataLoss {
                partition,
                earliest,
            } => {
                self.trimmed.insert(partition, *earliest);
            }
            Event::Remapped { stream } => {
                self.remapped.insert(stream);
            }
            Event::Deleted { stream, next } => {
                self.deleted.insert(stream);
                self.predecessors.insert(next, stream);
            }
            Event::Ended { handling, outcome } if outcome.settles() => {
                let unsettled = &mut self.group(&handling.by.group).unsettled;
                if let Some(unsettled) = unsettled.get_mut(&key(&handling.by)) {
                    unsettled.remove(&handling.position);
                }
            }
            Event::Ended { .. }
            | Event::Joined { .. }
            | Event::Left { .. }
            | Event::DeadLettered { .. }
            | Event::Skipped { .. }
            | Event::Checkpointed { .. } => {}
        }
    }

    fn group(&mut self, name: &'a str) -> &mut Group<'a> {
        self.groups.entry(name).or_default()
    }

    fn set_outcome(&mut self, id: u64, outcome: SendOutcome<'a>) {
        if let Some(sent) = self.records.get_mut(&id) {
            sent.outcome = outcome;
        }
    }

    fn place(&mut self, partition: &'a Partition, position: Position, id: u64) {
        let places = self.places.entry(partition).or_default();
        places.entry(position).or_insert(id);
    }

    /// Returns the key of a record, if it is known and has one.
    pub(super) fn key_of(&self, id: u64) -> Option<&'a Arc<str>> {
        self.records.get(&id)?.key
    }

    /// Returns whether `group` must settle the record.
    pub(super) fn owes(&self, group: &str, id: u64) -> bool {
        let (Some(sent), Some(group)) = (self.records.get(&id), self.groups.get(group)) else {
            return false;
        };
        let Some((since, everything)) = group.subscribed.get(sent.stream) else {
            return false;
        };
        let freed = group
            .resets(sent.stream)
            .iter()
            .any(|(at, skips)| *skips && sent.order < *at);
        (*everything || sent.order > *since) && !freed && !self.gone.contains(&id)
    }

    /// Returns whether `group` was moved in `stream`, so that repeats and the order between epochs prove
    /// nothing.
    pub(super) fn was_reset(&self, group: &str, stream: &str) -> bool {
        self.groups
            .get(group)
            .is_some_and(|group| !group.resets(stream).is_empty())
    }

    /// Returns whether a fault hit this owner before the next one was seen.
    pub(super) fn was_faulted(&self, by: &Ownership) -> bool {
        self.groups
            .get(&*by.group)
            .is_some_and(|group| group.was_faulted(by))
    }

    /// Returns the first position that this owner began with and left unsettled: no checkpoint of the owner
    /// can pass it.
    pub(super) fn gap(&self, by: &Ownership) -> Option<Position> {
        let unsettled = &self.groups.get(&*by.group)?.unsettled;
        unsettled.get(&key(by))?.first().copied()
    }

    /// Returns whether a handling ended by being dropped.
    pub(super) fn dropped(&self, handling: &Handling) -> bool {
        let dropped = (key(&handling.by), handling.position, handling.attempt);
        let group = self.groups.get(&*handling.by.group);
        group.is_some_and(|group| group.dropped.contains(&dropped))
    }

    /// Returns the largest epoch of the partition that was seen before `order`.
    pub(super) fn newest_epoch(
        &self,
        group: &str,
        partition: &Partition,
        order: u64,
    ) -> Option<Epoch> {
        let epochs = self.groups.get(group)?.epochs.get(partition)?;
        let before = epochs.iter().filter(|(_, since)| **since < order);
        before.map(|(epoch, _)| *epoch).max()
    }

    pub(super) fn count(&self, entries: &[Entry]) -> Summary {
        let mut summary = Summary::default();
        let mut settled = BTreeSet::new();
        for Entry { event, .. } in entries {
            let counter = match event {
                Event::Sent { .. } => &mut summary.sent,
                Event::Acknowledged { .. } => &mut summary.acknowledged,
                Event::Failed { .. } => &mut summary.failed,
                Event::Unknown { .. } => &mut summary.unknown,
                Event::DeadLettered { .. } => &mut summary.dead_lettered,
                Event::Skipped { .. } => &mut summary.skipped,
                Event::Crashed { .. } => &mut summary.crashes,
                Event::Ended {
                    handling,
                    outcome: Outcome::Acked,
                } => {
                    let by = &handling.by;
                    if !settled.insert((&by.group, &by.partition, handling.position)) {
                        summary.duplicates += 1;
                    }
                    &mut summary.handled
                }
                Event::Ended {
                    outcome: Outcome::Failed | Outcome::GaveUp,
                    ..
                } => &mut summary.failures,
                _ => continue,
            };
            *counter += 1;
        }
        let partitions = self.groups.values().flat_map(|group| group.epochs.values());
        summary.handovers = partitions.map(|epochs| epochs.len() as u64 - 1).sum();
        summary
    }
}

impl<'a> Group<'a> {
    fn note_epoch(&mut self, by: &'a Ownership, order: u64) {
        let epochs = self.epochs.entry(&by.partition).or_default();
        epochs.entry(by.epoch).or_insert(order);
    }

    fn resets(&self, stream: &str) -> &[(u64, bool)] {
        self.resets.get(stream).map_or(&[], Vec::as_slice)
    }

    fn was_faulted(&self, by: &Ownership) -> bool {
        if self.lost.contains(&key(by)) {
            return true;
        }
        if self.released.contains(&key(by)) {
            return false;
        }
        let Some(epochs) = self.epochs.get(&by.partition) else {
            return false;
        };
        let first = epochs.get(&by.epoch).copied().unwrap_or(0);
        let newer = epochs.iter().filter(|(epoch, _)| **epoch > by.epoch);
        let next = newer.map(|(_, since)| *since).min().unwrap_or(u64::MAX);
        self.faults.iter().any(|(at, member)| {
            let concerns = member.is_none_or(|member| *member == *by.member);
            let over = self
                .healed
                .iter()
                .any(|healed| at < healed && *healed < first);
            concerns && *at < next && !over
        })
    }
}
