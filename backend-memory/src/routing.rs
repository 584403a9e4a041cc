//! Maps keys to partitions.
//!
//! Keys are hashed like Kafka's default partitioner does ([`key_hash`](millstream_core::driver::key_hash)),
//! so that keys spread over partitions as they do there. The hash is divided into `bucket = hash % n` and
//! `sub = hash / n`, where `n` is the initial number of partitions. Each partition owns ranges of the
//! (bucket, sub) plane: initially a whole bucket, after a split a half of it, after a merge the union
//! of two. The ranges always cover the plane exactly once, so every key has exactly one open
//! partition.

/// The hashes are 31 bits wide.
const HASHES: u64 = 1 << 31;

/// The hashes of `bucket` whose `sub` is in `from..to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BucketRange {
    bucket: u32,
    from: u32,
    to: u32,
}

#[derive(Debug, Clone)]
enum Bucket {
    /// One partition owns it: the common case, one array access.
    Whole(u32),
    /// Owners by the start of their range, sorted; the first starts at 0.
    Divided(Vec<(u32, u32)>),
}

/// The owners of all hashes of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Routing(Vec<Bucket>);

impl Routing {
    /// Assigns bucket `i` to partition `i`.
    pub(crate) fn modulo(partitions: usize) -> Self {
        Self((0..partitions as u32).map(Bucket::Whole).collect())
    }

    #[inline]
    pub(crate) fn route(&self, hash: u32) -> u32 {
        let buckets = self.0.len() as u32;
        match &self.0[(hash % buckets) as usize] {
            Bucket::Whole(partition) => *partition,
            Bucket::Divided(parts) => {
                let sub = hash / buckets;
                parts[parts.partition_point(|(from, _)| *from <= sub) - 1].1
            }
        }
    }

    /// Assigns the lower half of what `parent` owns to `low` and the rest to `high`. Returns false
    /// if `parent` owns a single hash.
    pub(crate) fn split(&mut self, parent: u32, low: u32, high: u32) -> bool {
        let ranges = self.owned(parent);
        let total: u64 = ranges
            .iter()
            .map(|range| u64::from(range.to - range.from))
            .sum();
        if total < 2 {
            return false;
        }
        let mut left = total / 2;
        for range in ranges {
            let take = left.min(u64::from(range.to - range.from));
            left -= take;
            let middle = range.from + take as u32;
            self.assign(
                BucketRange {
                    to: middle,
                    ..range
                },
                low,
            );
            self.assign(
                BucketRange {
                    from: middle,
                    ..range
                },
                high,
            );
        }
        true
    }

    /// Assigns everything that `one` and `other` own to `child`.
    pub(crate) fn merge(&mut self, one: u32, other: u32, child: u32) {
        for parent in [one, other] {
            for range in self.owned(parent) {
                self.assign(range, child);
            }
        }
    }

    /// Returns the number of subs in a bucket: the hashes below 2^31 of the form `sub * n + bucket`.
    fn width(&self, bucket: u32) -> u32 {
        (HASHES - u64::from(bucket)).div_ceil(self.0.len() as u64) as u32
    }

    fn ranges(&self, bucket: u32) -> Vec<(BucketRange, u32)> {
        let width = self.width(bucket);
        let parts = match &self.0[bucket as usize] {
            Bucket::Whole(partition) => &[(0, *partition)][..],
            Bucket::Divided(parts) => parts,
        };
        let ends = parts.iter().skip(1).map(|(from, _)| *from).chain([width]);
        parts
            .iter()
            .zip(ends)
            .map(|(&(from, owner), to)| (BucketRange { bucket, from, to }, owner))
            .collect()
    }

    fn owned(&self, partition: u32) -> Vec<BucketRange> {
        (0..self.0.len() as u32)
            .flat_map(|bucket| self.ranges(bucket))
            .filter(|(_, owner)| *owner == partition)
            .map(|(range, _)| range)
            .collect()
    }

    /// Assigns a range, which one partition owns, to another partition.
    fn assign(&mut self, moved: BucketRange, partition: u32) {
        if moved.from == moved.to {
            return;
        }
        let mut parts: Vec<(u32, u32)> = Vec::new();
        let mut push = |from: u32, to: u32, owner: u32| {
            if from < to && parts.last().is_none_or(|(_, last)| *last != owner) {
                parts.push((from, owner));
            }
        };
        for (range, owner) in self.ranges(moved.bucket) {
            if range.from <= moved.from && moved.to <= range.to {
                push(range.from, moved.from, owner);
                push(moved.from, moved.to, partition);
                push(moved.to, range.to, owner);
            } else {
                push(range.from, range.to, owner);
            }
        }
        self.0[moved.bucket as usize] = match parts[..] {
            [(_, owner)] => Bucket::Whole(owner),
            _ => Bucket::Divided(parts),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// After any splits and merges every hash has one open owner, and a reshard moves a key only
        /// from a parent to one of its children.
        #[test]
        fn every_key_has_one_open_partition(
            partitions in 1usize..6,
            steps in prop::collection::vec((any::<bool>(), any::<u32>(), any::<u32>()), 0..12),
            keys in prop::collection::vec(0u32..0x8000_0000, 1..64),
        ) {
            let mut routing = Routing::modulo(partitions);
            let mut open: Vec<u32> = (0..partitions as u32).collect();
            let mut next = partitions as u32;
            for (split, a, b) in steps {
                let before: Vec<u32> = keys.iter().map(|key| routing.route(*key)).collect();
                let one = open[a as usize % open.len()];
                let other = open[b as usize % open.len()];
                let (parents, children) = if split {
                    prop_assert!(routing.split(one, next, next + 1));
                    (vec![one], vec![next, next + 1])
                } else if one != other {
                    routing.merge(one, other, next);
                    (vec![one, other], vec![next])
                } else {
                    continue;
                };
                next += children.len() as u32;
                open.retain(|partition| !parents.contains(partition));
                open.extend(&children);
                for (key, was) in keys.iter().zip(before) {
                    let now = routing.route(*key);
                    prop_assert!(open.contains(&now));
                    prop_assert_eq!(parents.contains(&was), children.contains(&now));
                    prop_assert!(parents.contains(&was) || was == now);
                }
            }
        }

        /// Both halves have the same size.
        #[test]
        fn a_split_shares_the_hashes_evenly(partitions in 1usize..8) {
            let mut routing = Routing::modulo(partitions);
            routing.split(0, 100, 101);
            let width = |partition| -> u64 {
                routing.owned(partition).iter().map(|range| u64::from(range.to - range.from)).sum()
            };
            prop_assert!(width(100).abs_diff(width(101)) <= 1);
            prop_assert_eq!(width(100) + width(101), u64::from(routing.width(0)));
        }
    }
}
