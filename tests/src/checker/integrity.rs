//! Checks whether each record was lost, altered, never sent, stored elsewhere or out of order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream_core::{Partition, Position};

use super::history_index::{HistoryIndex, SendOutcome, Sent};
use super::{RecordLocation, Violation};
use crate::history::{Entry, Event, Outcome};

pub(super) fn check(index: &HistoryIndex<'_>, entries: &[Entry], found: &mut Vec<Violation>) {
    receipts(index, found);
    arrivals(index, entries, found);
    losses(index, entries, found);
}

fn place(id: u64, partition: &Partition, position: Position) -> RecordLocation {
    RecordLocation {
        id,
        partition: partition.clone(),
        position,
    }
}

/// Checks that receipts of one key grow in the order of sending, and never return to a partition that
/// the key has left.
fn receipts(index: &HistoryIndex<'_>, found: &mut Vec<Violation>) {
    type ByPlace<'a> = BTreeMap<u64, (u64, &'a Partition, Position)>;
    let mut keys: BTreeMap<(&str, &Arc<str>), ByPlace<'_>> = BTreeMap::new();
    for (id, sent) in &index.records {
        if let (Some(key), SendOutcome::Stored(partition, position)) = (sent.key, sent.outcome) {
            let by_sequence = keys.entry((sent.stream, key)).or_default();
            by_sequence.insert(sent.sequence, (*id, partition, position));
            let there = index.places[partition][&position];
            if there != *id {
                found.push(Violation::WrongReceipt {
                    receipt: place(*id, partition, position),
                    found: there,
                });
            }
        }
    }
    for ((stream, key), places) in keys {
        let mut newest: BTreeMap<&Partition, (u64, Position)> = BTreeMap::new();
        let mut current: Option<(u64, &Partition, Position)> = None;
        for (id, partition, position) in places.into_values() {
            let later = place(id, partition, position);
            let same = newest
                .get(partition)
                .filter(|(_, newest)| *newest >= position);
            let left = current.filter(|(_, at, _)| {
                *at != partition
                    && newest.contains_key(partition)
                    && !index.remapped.contains(stream)
            });
            let earlier = match (same, left) {
                (Some((id, position)), _) => Some(place(*id, partition, *position)),
                (None, Some((id, partition, position))) => Some(place(id, partition, position)),
                (None, None) => None,
            };
            if let Some(earlier) = earlier {
                found.push(Violation::ReceiptOrder {
                    key: key.clone(),
                    earlier,
                    later,
                });
            }
            newest.insert(partition, (id, position));
            current = Some((id, partition, position));
        }
    }
}

/// Checks that a received record was sent, is unchanged, was not rejected, and is at the position of its receipt.
fn arrivals(index: &HistoryIndex<'_>, entries: &[Entry], found: &mut Vec<Violation>) {
    let mut seen = BTreeSet::new();
    let mut first: BTreeMap<u64, (&Partition, Position)> = BTreeMap::new();
    for Entry { event, .. } in entries {
        let Event::Began(handling) = event else {
            continue;
        };
        let (id, partition, position) = (handling.id, &handling.by.partition, handling.position);
        let is_first = seen.insert((partition, position));
        let sent = index.records.get(&id);
        // Each attempt must get the record as it was sent.
        let is_altered =
            |sent: &Sent<'_>| sent.digest != handling.digest || sent.stream != partition.stream();
        if sent.is_some_and(is_altered) {
            found.push(Violation::Altered {
                handling: handling.clone(),
            });
        }
        if !is_first {
            continue;
        }
        let handling = || handling.clone();
        let Some(sent) = sent else {
            found.push(Violation::Phantom {
                handling: handling(),
            });
            continue;
        };
        if sent.outcome == SendOutcome::Failed {
            found.push(Violation::FailedYetStored {
                handling: handling(),
            });
        }
        // The receipt has the first position, if there is a receipt.
        let receipt = match sent.outcome {
            SendOutcome::Stored(partition, position) => (partition, position),
            SendOutcome::Unknown | SendOutcome::Failed => (partition, position),
        };
        let one = *first.entry(id).or_insert(receipt);
        if one != (partition, position) && !index.sends_faulted {
            found.push(Violation::StoredTwice {
                one: place(id, one.0, one.1),
                other: place(id, partition, position),
            });
        }
        let there = index.places[partition][&position];
        if there != id {
            found.push(Violation::WrongReceipt {
                receipt: place(there, partition, position),
                found: id,
            });
        }
    }
}

fn losses(index: &HistoryIndex<'_>, entries: &[Entry], found: &mut Vec<Violation>) {
    let mut settled: BTreeSet<(&str, u64)> = BTreeSet::new();
    let mut given_up: BTreeSet<(&str, u64)> = BTreeSet::new();
    for Entry { event, .. } in entries {
        match event {
            Event::Ended {
                handling,
                outcome: Outcome::Acked,
            } => {
                settled.insert((&handling.by.group, handling.id));
            }
            Event::Ended {
                handling,
                outcome: Outcome::GaveUp,
            } => {
                given_up.insert((&handling.by.group, handling.id));
            }
            Event::DeadLettered { group, id } | Event::Skipped { group, id } => {
                settled.insert((group, *id));
            }
            _ => {}
        }
    }
    for group in index.groups.keys() {
        for (id, sent) in &index.records {
            let SendOutcome::Stored(partition, position) = sent.outcome else {
                continue;
            };
            let is_owed = index.owes(group, *id) && !index.deleted.contains(sent.stream);
            if is_owed && !settled.contains(&(*group, *id)) {
                found.push(Violation::Lost {
                    group: (*group).into(),
                    record: place(*id, partition, position),
                    gave_up: given_up.contains(&(*group, *id)),
                });
            }
        }
    }
}
