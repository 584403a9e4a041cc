//! The records that readers see in the shards of a fake: millstream readers, and KCL readers.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use millstream_core::{Position, RecordMetadata};

use super::fake::World;
use crate::aggregate::{Deaggregated, deaggregate};
use crate::stream::HashKey;

/// A record's key, its unique number, and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) key: String,
    pub(super) number: u64,
    pub(super) shard: String,
    pub(super) position: Position,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// Skips the records of an aggregate that do not belong to its shard.
    Ours,
    /// Skips aggregates with such records.
    Kcl,
}

/// Returns all records that a reader sees, shard after shard: parents have lower numbers than their children, so
/// this is the order of each key.
pub(super) fn read(world: &World, reader: Reader) -> Vec<Seen> {
    let mut seen = Vec::new();
    for (shard, stored) in world.shards.iter().zip(&world.stored) {
        for (position, entry) in stored {
            let see = |key: &[u8], payload: &Bytes, sub| Seen {
                key: String::from_utf8(key.to_vec()).unwrap(),
                number: std::str::from_utf8(payload)
                    .unwrap()
                    .trim()
                    .parse()
                    .unwrap(),
                shard: shard.id.to_string(),
                position: position.with_sub_sequence(sub),
            };
            match deaggregate(&entry.data) {
                Deaggregated::UserRecords(records) => {
                    let is_in = |hash: HashKey| shard.range.contains(hash);
                    if reader == Reader::Kcl && !records.iter().all(|r| is_in(r.hash)) {
                        continue;
                    }
                    let records = records.iter().filter(|record| is_in(record.hash));
                    seen.extend(records.map(|record| {
                        let key = record.key.as_deref().unwrap_or(b"-");
                        see(key, record.payload.as_ref().unwrap(), record.sub)
                    }));
                }
                _ => seen.push(see(&entry.partition_key, &entry.data, 0)),
            }
        }
    }
    seen
}

/// Asserts that, for each key, the first records of all numbers are in order.
pub(super) fn assert_in_order(seen: &[Seen], what: &str) {
    let mut last = HashMap::<&str, u64>::new();
    let mut known = HashSet::new();
    for Seen { key, number, .. } in seen {
        if key.starts_with("millstream:-:") || key == "-" || !known.insert(number) {
            continue;
        }
        if let Some(before) = last.insert(key, *number) {
            assert!(
                before < *number,
                "{what}: of {key}, {number} came after {before}"
            );
        }
    }
}

/// Asserts that an acknowledged record is stored at its position.
pub(super) fn assert_placed(seen: &[Seen], number: u64, placed: &RecordMetadata, what: &str) {
    let is_it = |seen: &&Seen| {
        seen.number == number
            && seen.shard == placed.partition.id()
            && seen.position == placed.position
    };
    assert!(
        seen.iter().any(|seen| is_it(&seen)),
        "{what}: {number} is not at {placed:?}"
    );
}
