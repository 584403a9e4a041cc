//! Checks the stored checkpoint: it never passes an unsettled record, never goes back, and is written by
//! owners.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_core::{Epoch, Partition, Position};

use super::history_index::HistoryIndex;
use super::{RecordLocation, Share, Violation};
use crate::history::{Entry, Event, Handling};

pub(super) fn check(index: &HistoryIndex<'_>, entries: &[Entry], found: &mut Vec<Violation>) {
    let mut check = ProgressCheck {
        index,
        found,
        unsettled: BTreeMap::new(),
        read: BTreeMap::new(),
    };
    for Entry { order, event } in entries {
        match event {
            Event::Began(handling) => check.began(handling),
            Event::Ended { handling, outcome } if outcome.settles() => check.settled(handling),
            Event::Checkpointed {
                group,
                partition,
                position,
                epoch,
            } => {
                let read = Read {
                    order: *order,
                    position: *position,
                    epoch: *epoch,
                };
                check.read(group, partition, read);
            }
            _ => {}
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Read {
    order: u64,
    position: Option<Position>,
    epoch: Option<Epoch>,
}

struct ProgressCheck<'a, 'f> {
    index: &'f HistoryIndex<'a>,
    found: &'f mut Vec<Violation>,
    /// The records that the group must settle in a partition and has not settled.
    unsettled: BTreeMap<Share<'a>, BTreeMap<Position, u64>>,
    /// The last checkpoint read, and the one before it.
    read: BTreeMap<Share<'a>, (Read, Option<Read>)>,
}

impl<'a> ProgressCheck<'a, '_> {
    fn unsettled(&mut self, share: Share<'a>) -> &mut BTreeMap<Position, u64> {
        let index = self.index;
        self.unsettled.entry(share).or_insert_with(|| {
            let (group, partition) = share;
            let places = index.places.get(partition).into_iter().flatten();
            let owed = places.filter(|(_, id)| index.owes(group, **id));
            owed.map(|(at, id)| (*at, *id)).collect()
        })
    }

    fn settled(&mut self, handling: &'a Handling) {
        let share = (&*handling.by.group, &handling.by.partition);
        self.unsettled(share).remove(&handling.position);
    }

    fn began(&mut self, handling: &'a Handling) {
        let by = &handling.by;
        let share: Share<'a> = (&by.group, &by.partition);
        let Some((
            Read {
                position: Some(stored),
                epoch,
                ..
            },
            _,
        )) = self.read.get(&share).copied()
        else {
            return;
        };
        // An owner that is older than the writer may still be running.
        let stale = epoch.is_some_and(|epoch| by.epoch < epoch);
        let reset = self.index.was_reset(&by.group, by.partition.stream());
        if handling.position <= stored && !stale && !reset {
            self.found.push(Violation::RepeatedBelowCheckpoint {
                handling: handling.clone(),
                checkpoint: stored,
            });
        }
    }

    fn read(&mut self, group: &'a Arc<str>, partition: &'a Partition, read: Read) {
        let share: Share<'a> = (group, partition);
        if let Some(checkpoint) = read.position {
            let unsettled = self.unsettled(share);
            let mut passed = Vec::new();
            // Reported once: passed records are removed.
            while let Some(first) = unsettled.first_entry() {
                if *first.key() > checkpoint {
                    break;
                }
                passed.push(first.remove_entry());
            }
            for (position, id) in passed {
                let record = RecordLocation {
                    id,
                    partition: partition.clone(),
                    position,
                };
                self.found.push(Violation::CheckpointPastUnsettled {
                    group: group.clone(),
                    record,
                    checkpoint,
                    epoch: read.epoch,
                });
            }
        }
        let before = self.read.get(&share).copied();
        if let (Some((last, earlier)), false) =
            (before, self.index.was_reset(group, partition.stream()))
        {
            self.compare(group, partition, read, last, earlier);
        }
        self.read
            .insert(share, (read, before.map(|(last, _)| last)));
    }

    fn compare(
        &mut self,
        group: &Arc<str>,
        partition: &Partition,
        read: Read,
        last: Read,
        earlier: Option<Read>,
    ) {
        if let Some(from) = last.position.filter(|from| read.position < Some(*from)) {
            self.found.push(Violation::CheckpointWentBack {
                group: group.clone(),
                partition: partition.clone(),
                from,
                to: read.position,
            });
        }
        let changed = (last.position, last.epoch) != (read.position, read.epoch);
        let (Some(epoch), Some(earlier), true) = (read.epoch, earlier, changed) else {
            return;
        };
        // This checkpoint was written after the read of `last` began, and that was after the read of `earlier`
        // had ended.
        let newest = self.index.newest_epoch(group, partition, earlier.order);
        if let Some(newer) = newest.filter(|newest| *newest > epoch) {
            self.found.push(Violation::StaleCheckpoint {
                group: group.clone(),
                partition: partition.clone(),
                epoch,
                newer,
            });
        }
    }
}
