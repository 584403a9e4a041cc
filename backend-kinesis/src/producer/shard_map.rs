//! The known mapping from hashes to shards.
//!
//! The shards change while a producer runs. A map predicts the shard of a record, for rate limits and to fill
//! aggregates. The response says where a record was really stored.

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
pub(super) struct ShardMap {
    stream: Arc<str>,
    /// At least one, in the order of the ranges.
    open: Vec<OpenShard>,
    /// The ranges of all shards, including closed ones: records in flight may have been stored in one.
    ranges: HashMap<Arc<str>, HashRange, FixedState>,
    /// The indexes in `open` of the shards that get records without a key, and which of them is next.
    with_keyless: Vec<usize>,
    next: usize,
}

/// Whether the map predicted the shard in which a record was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prediction {
    Right,
    /// The shards have changed, so they must be listed again.
    Wrong,
}

/// An open shard.
#[derive(Debug)]
pub(super) struct OpenShard {
    pub(super) partition: Partition,
    /// The hashes that are routed here. The covers of all shards are disjoint and complete, even
    /// if the listed shards are not, for example during a split.
    pub(super) cover: HashRange,
    /// The partition key for records without one.
    keyless: Option<(HashKey, Bytes)>,
}

impl ShardMap {
    /// Returns `None` if no shard is open.
    pub(super) fn new(stream: Arc<str>, shards: &[Shard]) -> Option<Self> {
        let mut open: Vec<&Shard> = shards.iter().filter(|shard| shard.open).collect();
        open.sort_by_key(|shard| (shard.range.last, shard.range.first));
        let last = open.len().checked_sub(1)?;
        let mut first = 0;
        let open = open.iter().enumerate().map(|(index, shard)| {
            let end = if index == last {
                u128::MAX
            } else {
                shard.range.last
            };
            let cover = HashRange { first, last: end };
            first = end.saturating_add(1);
            OpenShard {
                partition: Partition::new(stream.clone(), &*shard.id),
                cover,
                keyless: None,
            }
        });
        let mut map = Self {
            open: open.collect(),
            ranges: shards.iter().map(|s| (s.id.clone(), s.range)).collect(),
            with_keyless: Vec::new(),
            next: 0,
            stream,
        };
        map.find_keyless();
        Some(map)
    }

    /// Finds the first partition key that is routed to each shard. So there are few of them: each
    /// aggregate lists those of its records.
    fn find_keyless(&mut self) {
        for number in 0..TRIALS {
            if self.with_keyless.len() == self.open.len() {
                break;
            }
            let key = keyless(number);
            let hash = HashKey::of(&key);
            let index = self.index_of(hash);
            let shard = &mut self.open[index];
            if shard.keyless.is_none() {
                shard.keyless = Some((hash, key));
                self.with_keyless.push(index);
            }
        }
    }

    pub(super) fn open_shards(&self) -> &[OpenShard] {
        &self.open
    }

    /// Returns the index of the shard for a hash.
    pub(super) fn index_of(&self, hash: HashKey) -> usize {
        self.open.partition_point(|shard| shard.cover.last < hash.0)
    }

    /// Returns the indexes of the shards for the hashes of `range`.
    pub(super) fn indexes_of(&self, range: HashRange) -> std::ops::RangeInclusive<usize> {
        self.index_of(HashKey(range.first))..=self.index_of(HashKey(range.last))
    }

    /// Returns the hash for a record without a key, from each open shard in turn.
    pub(super) fn next_keyless_hash(&mut self) -> HashKey {
        self.next = (self.next + 1) % self.with_keyless.len();
        let shard = &self.open[self.with_keyless[self.next]];
        let (hash, _) = shard
            .keyless
            .as_ref()
            .expect("it has a partition key for records without one");
        *hash
    }

    /// Returns the partition key of records without a key in a shard. A shard without one gets only
    /// records with an explicit hash key, for which the key of any shard will do.
    pub(super) fn keyless(&self, shard: usize) -> &Bytes {
        let own = self.open[shard].keyless.as_ref();
        let any = || self.open[self.with_keyless[0]].keyless.as_ref();
        let (_, key) = own.or_else(any).expect("the first key tried led somewhere");
        key
    }

    pub(super) fn range(&self, shard: &str) -> Option<HashRange> {
        self.ranges.get(shard).copied()
    }

    /// Returns the partition of a shard that has stored a record of this hash, and whether the map predicted it.
    pub(super) fn locate(&self, hash: HashKey, shard: &str) -> (Partition, Prediction) {
        let predicted = &self.open[self.index_of(hash)].partition;
        if predicted.id() == shard {
            return (predicted.clone(), Prediction::Right);
        }
        let partition = Partition::new(self.stream.clone(), shard);
        (partition, Prediction::Wrong)
    }

    /// Returns whether the open shards are the same.
    pub(super) fn has_same_open_shards(&self, other: &Self) -> bool {
        let same = |(one, other): (&OpenShard, &OpenShard)| {
            one.partition == other.partition && one.cover == other.cover
        };
        self.open.len() == other.open.len() && self.open.iter().zip(&other.open).all(same)
    }

    /// Adopts the information of `newer`, if the open shards are the same.
    pub(super) fn update_ranges(&mut self, newer: Self) {
        self.ranges = newer.ranges;
    }
}

#[cfg(test)]
mod tests {
    use millstream_core::Position;

    use super::*;

    /// Returns a map of shards by their ranges, in eighths of all hashes.
    fn map(ranges: &[(u128, u128, bool)]) -> Option<ShardMap> {
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
        ShardMap::new("s".into(), &shards)
    }

    fn found(map: &ShardMap, eighth: u128) -> &str {
        map.open_shards()[map.index_of(HashKey((eighth << 125) + 1))]
            .partition
            .id()
    }

    #[test]
    fn hashes_lead_to_open_shards() {
        let map = map(&[(4, 8, true), (0, 4, false), (2, 4, true), (0, 2, true)]).unwrap();
        let shards = [0, 1, 2, 3, 4, 7].map(|eighth| found(&map, eighth).to_owned());
        assert_eq!(shards, ["3", "3", "2", "2", "0", "0"]);
        assert_eq!(map.index_of(HashKey(u128::MAX)), 2);
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
                let covers = map.open_shards().iter().filter(|p| p.cover.contains(hash));
                assert_eq!(covers.count(), 1, "{eighth} of {ranges:?}");
                assert!(map.open_shards()[map.index_of(hash)].cover.contains(hash));
            }
        }
    }

    #[test]
    fn records_without_a_key_take_turns() {
        let mut map = map(&[(0, 1, true), (1, 2, true), (2, 8, true)]).unwrap();
        let mut count = [0; 3];
        for _ in 0..30 {
            let hash = map.next_keyless_hash();
            let shard = map.index_of(hash);
            assert_eq!(HashKey::of(map.keyless(shard)), hash);
            count[shard] += 1;
        }
        assert_eq!(count, [10; 3]);
    }
}
