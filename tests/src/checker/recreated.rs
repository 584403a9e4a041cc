//! Checks the epochs of recreated streams: a partition's epochs continue in the next stream of its name, because a sink
//! that compares them would reject all of its records otherwise.

use std::collections::BTreeMap;

use millstream_core::Epoch;

use super::Violation;
use super::history_index::HistoryIndex;
use crate::history::{Entry, Event, Ownership};

/// A group, a partition's id and a stream.
type Place<'a> = (&'a str, &'a str, &'a str);

pub(super) fn check(index: &HistoryIndex<'_>, entries: &[Entry], found: &mut Vec<Violation>) {
    if index.predecessors.is_empty() {
        return;
    }
    let mut largest: BTreeMap<Place<'_>, Epoch> = BTreeMap::new();
    let mut smallest: BTreeMap<Place<'_>, &Ownership> = BTreeMap::new();
    for Entry { event, .. } in entries {
        let by = match event {
            Event::Assigned(by) => by,
            Event::Began(handling) => &handling.by,
            _ => continue,
        };
        let place = (&*by.group, by.partition.id(), by.partition.stream());
        let seen = largest.entry(place).or_insert(by.epoch);
        *seen = by.epoch.max(*seen);
        let seen = smallest.entry(place).or_insert(by);
        if by.epoch < seen.epoch {
            *seen = by;
        }
    }
    for ((group, id, stream), assigned) in &smallest {
        let mut before = index.predecessors.get(stream);
        while let Some(predecessor) = before {
            if let Some(epoch) = largest.get(&(*group, *id, *predecessor)) {
                if assigned.epoch <= *epoch {
                    found.push(Violation::EpochNotGrown {
                        assigned: (*assigned).clone(),
                        before: *epoch,
                    });
                }
                break;
            }
            // None of its records was handled: the stream before it counts.
            before = index.predecessors.get(predecessor);
        }
    }
}
