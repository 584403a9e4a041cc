//! Checks the owners of partitions, and the redeliveries after a change of owner.

use std::collections::{BTreeMap, BTreeSet};

use millstream_core::{Epoch, Partition, Position};

use super::history_index::HistoryIndex;
use super::{Share, Violation};
use crate::history::{Entry, Event, Handling, Ownership};

pub(super) fn check(
    index: &HistoryIndex<'_>,
    entries: &[Entry],
    most_repeats: Option<u64>,
    found: &mut Vec<Violation>,
) {
    let mut check = OwnershipCheck {
        index,
        found,
        owners: BTreeMap::new(),
        assigned: BTreeMap::new(),
        reported: BTreeSet::new(),
        settled: BTreeMap::new(),
        repeats: BTreeMap::new(),
    };
    for Entry { order, event } in entries {
        match event {
            Event::Assigned(by) => check.assigned(by),
            Event::Lost(by) => {
                check
                    .reported
                    .insert((&by.group, &by.member, &by.partition, by.epoch));
            }
            Event::Began(handling) => check.began(handling, *order),
            Event::Ended { handling, outcome } if outcome.settles() => check.settled(handling),
            _ => {}
        }
    }
    if let Some(bound) = most_repeats {
        check.bound(bound);
    }
}

struct OwnershipCheck<'a, 'f> {
    index: &'f HistoryIndex<'a>,
    found: &'f mut Vec<Violation>,
    owners: BTreeMap<(Share<'a>, Epoch), &'a Ownership>,
    /// The largest epoch that was assigned.
    assigned: BTreeMap<Share<'a>, Epoch>,
    reported: BTreeSet<(&'a str, &'a str, &'a Partition, Epoch)>,
    /// The owner that settled a position under the largest epoch.
    settled: BTreeMap<(Share<'a>, Position), &'a Ownership>,
    repeats: BTreeMap<(Share<'a>, Epoch), (&'a Ownership, BTreeSet<Position>)>,
}

impl<'a> OwnershipCheck<'a, '_> {
    fn assigned(&mut self, by: &'a Ownership) {
        let share: Share<'a> = (&by.group, &by.partition);
        if let Some(before) = self
            .assigned
            .get(&share)
            .filter(|before| **before >= by.epoch)
        {
            self.found.push(Violation::EpochNotGrown {
                assigned: by.clone(),
                before: *before,
            });
        }
        let largest = self.assigned.entry(share).or_insert(by.epoch);
        *largest = by.epoch.max(*largest);
        self.owner(by);
    }

    fn owner(&mut self, by: &'a Ownership) {
        let share: Share<'a> = (&by.group, &by.partition);
        let first = *self.owners.entry((share, by.epoch)).or_insert(by);
        if first.member != by.member {
            // The second owner is now the one to compare with, so each change is reported once.
            self.owners.insert((share, by.epoch), by);
            self.found.push(Violation::TwoOwners {
                first: first.clone(),
                second: by.clone(),
            });
        }
    }

    fn began(&mut self, handling: &'a Handling, order: u64) {
        let by = &handling.by;
        let share: Share<'a> = (&by.group, &by.partition);
        self.owner(by);
        let reported = self
            .reported
            .contains(&(&by.group, &by.member, &by.partition, by.epoch));
        let newest = self.index.newest_epoch(&by.group, &by.partition, order);
        let newer = newest.filter(|newest| *newest > by.epoch);
        if handling.lost || reported {
            self.found.push(Violation::HandledAfterLoss {
                handling: handling.clone(),
            });
        } else if let (Some(newer), false) = (newer, self.index.was_faulted(by)) {
            self.found.push(Violation::StaleHandling {
                handling: handling.clone(),
                newer,
            });
        }
        if self.index.was_reset(&by.group, by.partition.stream()) {
            return;
        }
        let Some(settled_by) = self.settled.get(&(share, handling.position)).copied() else {
            return;
        };
        let behind_gap = self
            .index
            .gap(settled_by)
            .is_some_and(|gap| gap < handling.position);
        // A stale owner that is still running repeats records that the newer one has settled: that is legal.
        if settled_by.epoch == by.epoch
            || settled_by.epoch < by.epoch && !behind_gap && !self.index.was_faulted(settled_by)
        {
            self.found.push(Violation::Repeated {
                handling: handling.clone(),
                settled_by: settled_by.clone(),
            });
        }
        if settled_by.epoch < by.epoch {
            let (_, places) = self
                .repeats
                .entry((share, by.epoch))
                .or_insert((by, BTreeSet::new()));
            places.insert(handling.position);
        }
    }

    fn settled(&mut self, handling: &'a Handling) {
        let by = &handling.by;
        let place = ((&*by.group, &by.partition), handling.position);
        let settled = self.settled.entry(place).or_insert(by);
        if settled.epoch < by.epoch {
            *settled = by;
        }
    }

    fn bound(&mut self, bound: u64) {
        for (by, places) in self.repeats.values() {
            let repeats = places.len() as u64;
            if repeats > bound {
                self.found.push(Violation::TooManyRepeats {
                    by: (*by).clone(),
                    repeats,
                    bound,
                });
            }
        }
    }
}
