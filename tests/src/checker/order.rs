//! Checks the order of each key: by sending, by storing, and one at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_core::{Epoch, Partition, Position};

use super::history_index::{HistoryIndex, SendOutcome};
use super::{Share, Violation};
use crate::history::{Entry, Event, Handling, Outcome};

pub(super) fn check(index: &HistoryIndex<'_>, entries: &[Entry], found: &mut Vec<Violation>) {
    let mut check = OrderCheck {
        index,
        found,
        stored: BTreeMap::new(),
        sent: BTreeMap::new(),
        sent_order: send_order(index),
        latest: BTreeMap::new(),
        open: BTreeMap::new(),
    };
    for Entry { event, .. } in entries {
        match event {
            Event::Began(handling) => check.began(handling),
            Event::Ended { handling, outcome } => check.ended(handling, *outcome),
            _ => {}
        }
    }
}

/// Records in the order in which they must be settled, with the settled ones marked.
#[derive(Debug)]
struct Queue<K> {
    /// Each with its id and whether it is settled.
    items: BTreeMap<K, (u64, bool)>,
}

impl<K: Ord + Copy> Queue<K> {
    fn settle(&mut self, key: K) {
        if let Some((_, settled)) = self.items.get_mut(&key) {
            *settled = true;
        }
    }

    /// Returns the first unsettled one, if it is before `key`. It is reported once, so that one
    /// loss is not reported again for all records after it.
    fn before(&mut self, key: K) -> Option<(K, u64)> {
        while let Some(first) = self.items.first_entry() {
            if first.get().1 {
                first.remove();
                continue;
            }
            if *first.key() >= key {
                return None;
            }
            let (key, (id, _)) = first.remove_entry();
            return Some((key, id));
        }
        None
    }
}

type Key<'a> = &'a Arc<str>;
/// A sequence with one order: a key of a stream, or a key of one partition if keys may move.
type Line<'a> = (&'a str, Option<&'a Partition>, Key<'a>);

struct OrderCheck<'a, 'f> {
    index: &'f HistoryIndex<'a>,
    found: &'f mut Vec<Violation>,
    stored: BTreeMap<(Share<'a>, Key<'a>), Queue<Position>>,
    sent: BTreeMap<(&'a str, Line<'a>), Queue<u64>>,
    sent_order: BTreeMap<Line<'a>, Vec<(u64, u64)>>,
    /// The last handling of a key under an epoch, and whether it settled.
    latest: BTreeMap<(Share<'a>, Epoch, Key<'a>), (&'a Handling, bool)>,
    open: BTreeMap<(&'a str, &'a str, Key<'a>), Vec<&'a Handling>>,
}

fn line<'a>(
    index: &HistoryIndex<'a>,
    stream: &'a str,
    partition: &'a Partition,
    key: Key<'a>,
) -> Line<'a> {
    let partition = index.remapped.contains(stream).then_some(partition);
    (stream, partition, key)
}

/// Returns the acknowledged records of each line: sequence numbers with ids.
fn send_order<'a>(index: &HistoryIndex<'a>) -> BTreeMap<Line<'a>, Vec<(u64, u64)>> {
    let mut lines: BTreeMap<Line<'a>, Vec<(u64, u64)>> = BTreeMap::new();
    for (id, sent) in &index.records {
        if let (Some(key), SendOutcome::Stored(partition, _)) = (sent.key, sent.outcome) {
            let line = line(index, sent.stream, partition, key);
            lines.entry(line).or_default().push((sent.sequence, *id));
        }
    }
    lines
}

impl<'a> OrderCheck<'a, '_> {
    fn began(&mut self, handling: &'a Handling) {
        let Some(key) = self.index.key_of(handling.id) else {
            return;
        };
        let by = &handling.by;
        self.alone(handling, key);
        let within = self.within_epoch(handling, key);
        if !self.index.was_reset(&by.group, by.partition.stream()) && !within {
            self.across_epochs(handling, key);
        }
        let open = (&*by.group, by.partition.stream(), key);
        self.open.entry(open).or_default().push(handling);
        let share = (&*by.group, &by.partition);
        self.latest
            .insert((share, by.epoch, key), (handling, false));
    }

    fn ended(&mut self, handling: &'a Handling, outcome: Outcome) {
        let Some(key) = self.index.key_of(handling.id) else {
            return;
        };
        let by = &handling.by;
        let open = (&*by.group, by.partition.stream(), key);
        if let Some(open) = self.open.get_mut(&open) {
            open.retain(|other| *other != handling);
        }
        if !outcome.settles() {
            return;
        }
        let share = (&*by.group, &by.partition);
        if let Some((latest, settled)) = self.latest.get_mut(&(share, by.epoch, key)) {
            *settled |= latest.position == handling.position;
        }
        self.stored(handling, key).settle(handling.position);
        let sequence = self.index.records[&handling.id].sequence;
        self.sent(handling, key).settle(sequence);
    }

    /// Checks that no handler of the group has another record of the key.
    fn alone(&mut self, second: &'a Handling, key: Key<'a>) {
        let (stream, by) = (second.by.partition.stream(), &second.by);
        let open = self.open.get(&(&*by.group, stream, key));
        for first in open.into_iter().flatten() {
            let clash = if first.by.partition != by.partition {
                // It is unknown which of the two is stale, so neither may be.
                let apart = self.index.remapped.contains(stream);
                !apart && !self.index.was_faulted(&first.by) && !self.index.was_faulted(by)
            } else if first.by.epoch == by.epoch {
                true
            } else {
                let older = if first.by.epoch < by.epoch {
                    &first.by
                } else {
                    by
                };
                !self.index.was_faulted(older)
            };
            let same_epoch = first.by == *by;
            if clash && (same_epoch || !self.index.dropped(first)) {
                self.found.push(Violation::Overlap {
                    first: (*first).clone(),
                    second: second.clone(),
                    key: key.clone(),
                });
            }
        }
    }

    /// Checks that in one epoch a key only moves forward, and only when the record before is settled.
    fn within_epoch(&mut self, handling: &'a Handling, key: Key<'a>) -> bool {
        let share = (&*handling.by.group, &handling.by.partition);
        let Some((latest, settled)) = self.latest.get(&(share, handling.by.epoch, key)) else {
            return false;
        };
        let (culprit, earlier) = if latest.position > handling.position {
            (*latest, handling.position)
        } else if latest.position < handling.position && !settled {
            (handling, latest.position)
        } else {
            return false;
        };
        self.found.push(Violation::Overtaken {
            handling: culprit.clone(),
            earlier,
            key: key.clone(),
        });
        true
    }

    /// Checks that at the first handling of a record, all records before it are settled, by any owner.
    fn across_epochs(&mut self, handling: &'a Handling, key: Key<'a>) {
        let sequence = self.index.records[&handling.id].sequence;
        let overtaken = self.stored(handling, key).before(handling.position);
        let passed = self.sent(handling, key).before(sequence);
        let acknowledged = matches!(
            self.index.records[&handling.id].outcome,
            SendOutcome::Stored(..)
        );
        if let Some((earlier, _)) = overtaken {
            self.found.push(Violation::Overtaken {
                handling: handling.clone(),
                earlier,
                key: key.clone(),
            });
        } else if let (Some((_, earlier)), true) = (passed, acknowledged) {
            self.found.push(Violation::OutOfOrder {
                handling: handling.clone(),
                earlier,
                key: key.clone(),
            });
        }
    }

    fn stored(&mut self, handling: &'a Handling, key: Key<'a>) -> &mut Queue<Position> {
        let (group, partition) = (&*handling.by.group, &handling.by.partition);
        let index = self.index;
        self.stored
            .entry(((group, partition), key))
            .or_insert_with(|| {
                let of_key = |id: u64| index.key_of(id) == Some(key) && index.owes(group, id);
                let places = index.places.get(partition).into_iter().flatten();
                let items = places.filter(|(_, id)| of_key(**id));
                Queue {
                    items: items.map(|(at, id)| (*at, (*id, false))).collect(),
                }
            })
    }

    fn sent(&mut self, handling: &'a Handling, key: Key<'a>) -> &mut Queue<u64> {
        let (group, partition) = (&*handling.by.group, &handling.by.partition);
        let index = self.index;
        let line = line(index, partition.stream(), partition, key);
        let order = &self.sent_order;
        self.sent.entry((group, line)).or_insert_with(|| {
            let records = order.get(&line).into_iter().flatten();
            let items = records.filter(|(_, id)| index.owes(group, *id));
            Queue {
                items: items.map(|(at, id)| (*at, (*id, false))).collect(),
            }
        })
    }
}
