//! The known mapping from hashes to shards.
//!
//! The shards change while a producer runs. A map is a guess that is used for rate limits and for filling
//! aggregates; the response says where a record was really stored.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::FixedState;
use millstream_core::Partition;

use crate::aggregate::keyless;
use crate::stream::{HashKey, HashRange, Shard};

/// The number of partition keys that are tried to find one for each shard. A shard with a tiny range may be
/// left without one, and then gets no records that have no key.
pub(super) const TRIALS: u64 = 36 * 36 * 36;

#[derive(Debug)]
pub(super) struct Map {
    stream: Arc<str>,
    /// At least one, in the order of the ranges.
    open: Vec<Place>,
    /// The ranges of all shards, including closed ones: records in flight may have been stored in one.
    ranges: HashMap<Arc<str>, HashRange, FixedState>,
    /// The indexes in `open` that get records without a key, and the one whose turn it is.
    spread: Vec<usize>,
    turn: usize,
}

/// An open shard.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) partition: Partition,
    /// The hashes that are routed here. The covers of all shards are disjoint and complete, even
    /// if the listed shards are not, for example during a split.
    pub(super) cover: HashRange,
    /// The partition key for records without one.
    keyless: Option<(HashKey, Bytes)>,
}

impl Map {
    /// Returns `None` if no shard is open.
    pub(super) fn new(stream: Arc<str>, shards: &[Shard]) -> Option<Self> {
        let mut open: Vec<&Shard> = shards.iter().filter(|shard| shard.open).collect();
        open.sort_by_key(|shard| (shard.range.last, shard.range.first));
        let last = open.len().checked_sub(1)?;
        let mut first = 0;
        let places = open.iter().enumerate().map(|(index, shard)| {
            let end = if index == last {
                u128::MAX
            } else {
                shard.range.last
            };
            let cover = HashRange { first, last: end };
            first = end.saturating_add(1);
            Place {
                partition: Partition::new(stream.clone(), &*shard.id),
                cover,
                keyless: None,
            }
        });
        let mut map = Self {
            open: places.collect(),
            ranges: shards.iter().map(|s| (s.id.clone(), s.range)).collect(),
            spread: Vec::new(),
            turn: 0,
            stream,
        };
        map.find_keyless();
        Some(map)
    }

    /// Finds the first partition key that is routed to each shard. So there are few of them: each
    /// aggregate lists those of its records.
    fn find_keyless(&mut self) {
        for number in 0..TRIALS {
            if self.spread.len() == self.open.len() {
                break;
            }
            let key = keyless(number);
            let hash = HashKey::of(&key);
            let index = self.find(hash);
            let place = &mut self.open[index];
            if place.keyless.is_none() {
                place.keyless = Some((hash, key));
                self.spread.push(index);
            }
        }
    }

    pub(super) fn places(&self) -> &[Place] {
        &self.open
    }

    /// Returns the index of the shard for a hash.
    pub(super) fn find(&self, hash: HashKey) -> usize {
        self.open.partition_point(|place| place.cover.last < hash.0)
    }

    /// Returns the indexes of the shards for the hashes of `range`.
    pub(super) fn find_all(&self, range: HashRange) -> std::ops::RangeInclusive<usize> {
        self.find(HashKey(range.first))..=self.find(HashKey(range.last))
    }

    /// Returns the hash for a record without a key, from each open shard in turn.
    pub(super) fn spread(&mut self) -> HashKey {
        self.turn = (self.turn + 1) % self.spread.len();
        let place = &self.open[self.spread[self.turn]];
        let (hash, _) = place
            .keyless
            .as_ref()
            .expect("it is one of those with a key");
        *hash
    }

    /// Returns the partition key of records without a key in a shard. A shard without one gets only
    /// records with an explicit hash key, for which the key of any shard will do.
    pub(super) fn keyless(&self, place: usize) -> &Bytes {
        let own = self.open[place].keyless.as_ref();
        let any = || self.open[self.spread[0]].keyless.as_ref();
        let (_, key) = own.or_else(any).expect("the first key tried led somewhere");
        key
    }

    pub(super) fn range(&self, shard: &str) -> Option<HashRange> {
        self.ranges.get(shard).copied()
    }

    /// Returns the partition of a shard that has stored a record of this hash, and whether it was expected
    /// there.
    pub(super) fn partition(&self, hash: HashKey, shard: &str) -> (Partition, bool) {
        let expected = &self.open[self.find(hash)].partition;
        if expected.id() == shard {
            return (expected.clone(), true);
        }
        (Partition::new(self.stream.clone(), shard), false)
    }

    /// Returns whether the open shards are the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let same = |(one, other): (&Place, &Place)| {
            one.partition == other.partition && one.cover == other.cover
        };
        self.open.len() == other.open.len() && self.open.iter().zip(&other.open).all(same)
    }

    /// Adopts the information of `newer`, if the open shards are the same.
    pub(super) fn learn(&mut self, newer: Self) {
        self.ranges = newer.ranges;
    }
}

#[cfg(test)]
mod tests {
    use millstream_core::Position;

    use super::*;

    /// Returns a map of shards by their ranges, in eighths of all hashes.
    fn map(ranges: &[(u128, u128, bool)]) -> Option<Map> {
        const EIGHTH: u128 = 1 << 125;
        let shard = |(index, (first, end, open)): (usize, &(u128, u128, bool))| Shard {
            id: format!("{index}").into(),
            parents: Vec::new(),
            range: HashRange {
                first: first * EIGHTH,
                last: (EIGHTH - 1) + (end - 1) * EIGHTH,
            },
            starting: Position::from(0),
            open: *open,
        };
        let shards: Vec<_> = ranges.iter().enumerate().map(shard).collect();
        Map::new("s".into(), &shards)
    }

    fn found(map: &Map, eighth: u128) -> &str {
        map.places()[map.find(HashKey((eighth << 125) + 1))]
            .partition
            .id()
    }

    #[test]
    fn hashes_lead_to_open_shards() {
        let map = map(&[(4, 8, true), (0, 4, false), (2, 4, true), (0, 2, true)]).unwrap();
        let places = [0, 1, 2, 3, 4, 7].map(|eighth| found(&map, eighth).to_owned());
        assert_eq!(places, ["3", "3", "2", "2", "0", "0"]);
        assert_eq!(map.find(HashKey(u128::MAX)), 2);
        assert!(map.range("1").is_some());
        assert!(map.range("4").is_none());
    }

    #[test]
    fn without_an_open_shard_there_is_no_map() {
        assert!(map(&[(0, 8, false)]).is_none());
        assert!(map(&[]).is_none());
    }

    #[test]
    fn gaps_and_overlaps_leave_no_hash_out_and_none_twice() {
        for ranges in [
            [(1, 3, true), (5, 7, true), (4, 4, false)],
            [(0, 8, true), (0, 4, true), (4, 8, true)],
        ] {
            let map = map(&ranges[..]).unwrap();
            for eighth in 0..8 {
                let hash = HashKey(eighth << 125);
                let covers = map.places().iter().filter(|p| p.cover.contains(hash));
                assert_eq!(covers.count(), 1, "{eighth} of {ranges:?}");
                assert!(map.places()[map.find(hash)].cover.contains(hash));
            }
        }
    }

    #[test]
    fn records_without_a_key_take_turns() {
        let mut map = map(&[(0, 1, true), (1, 2, true), (2, 8, true)]).unwrap();
        let mut count = [0; 3];
        for _ in 0..30 {
            let hash = map.spread();
            let place = map.find(hash);
            assert_eq!(HashKey::of(map.keyless(place)), hash);
            count[place] += 1;
        }
        assert_eq!(count, [10; 3]);
    }
}
