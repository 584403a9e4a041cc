//! Which partition a key belongs to.
//!
//! Keys are hashed as Kafka's default partitioner does (murmur2, sign bit cleared), so that a
//! program sees the same spread here as there. The hash is cut into `bucket = hash % n` and `sub =
//! hash / n`, where `n` is the number of partitions that the stream began with. Each partition owns
//! pieces of the (bucket, sub) plane: a whole bucket at first, a half of it after a split, the
//! union of two after a merge. The pieces always cover the plane exactly once, so every key has
//! exactly one open partition.

/// The hashes are 31 bits wide.
const HASHES: u64 = 1 << 31;

/// Kafka's murmur2 of a key, sign bit cleared (Java: `Utils.toPositive(Utils.murmur2(key))`).
pub(crate) fn hash(key: &[u8]) -> u32 {
    murmur2(key) & 0x7fff_ffff
}

/// <https://github.com/apache/kafka/blob/4.0.0/clients/src/main/java/org/apache/kafka/common/utils/Utils.java>,
/// `murmur2`.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    let mut h = SEED ^ data.len() as u32;
    let (words, rest) = data.split_at(data.len() & !3);
    for word in words.chunks_exact(4) {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> R;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * index);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// The hashes of `bucket` whose `sub` is in `from..to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    bucket: u32,
    from: u32,
    to: u32,
}

#[derive(Debug, Clone)]
enum Bucket {
    /// One partition owns it all: the common case, one array access.
    Whole(u32),
    /// Owners by where their part begins, sorted; the first begins at 0.
    Divided(Vec<(u32, u32)>),
}

/// The owners of all hashes of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Routing(Vec<Bucket>);

impl Routing {
    /// Gives bucket `i` to partition `i`.
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

    /// Gives the lower half of what `parent` owns to `low` and the rest to `high`. False if a
    /// single hash is left, which cannot be halved.
    pub(crate) fn split(&mut self, parent: u32, low: u32, high: u32) -> bool {
        let pieces = self.owned(parent);
        let total: u64 = pieces
            .iter()
            .map(|piece| u64::from(piece.to - piece.from))
            .sum();
        if total < 2 {
            return false;
        }
        let mut left = total / 2;
        for piece in pieces {
            let take = left.min(u64::from(piece.to - piece.from));
            left -= take;
            let middle = piece.from + take as u32;
            self.give(
                Piece {
                    to: middle,
                    ..piece
                },
                low,
            );
            self.give(
                Piece {
                    from: middle,
                    ..piece
                },
                high,
            );
        }
        true
    }

    /// Gives all that `one` and `other` own to `child`.
    pub(crate) fn merge(&mut self, one: u32, other: u32, child: u32) {
        for parent in [one, other] {
            for piece in self.owned(parent) {
                self.give(piece, child);
            }
        }
    }

    /// How many subs a bucket has: the hashes below 2^31 of the form `sub * n + bucket`.
    fn width(&self, bucket: u32) -> u32 {
        (HASHES - u64::from(bucket)).div_ceil(self.0.len() as u64) as u32
    }

    fn pieces(&self, bucket: u32) -> Vec<(Piece, u32)> {
        let width = self.width(bucket);
        let parts = match &self.0[bucket as usize] {
            Bucket::Whole(partition) => &[(0, *partition)][..],
            Bucket::Divided(parts) => parts,
        };
        let ends = parts.iter().skip(1).map(|(from, _)| *from).chain([width]);
        parts
            .iter()
            .zip(ends)
            .map(|(&(from, owner), to)| (Piece { bucket, from, to }, owner))
            .collect()
    }

    fn owned(&self, partition: u32) -> Vec<Piece> {
        (0..self.0.len() as u32)
            .flat_map(|bucket| self.pieces(bucket))
            .filter(|(_, owner)| *owner == partition)
            .map(|(piece, _)| piece)
            .collect()
    }

    /// Gives a part of one piece, or all of it, to another partition.
    fn give(&mut self, given: Piece, partition: u32) {
        if given.from == given.to {
            return;
        }
        let mut parts: Vec<(u32, u32)> = Vec::new();
        let mut push = |from: u32, to: u32, owner: u32| {
            if from < to && parts.last().is_none_or(|(_, last)| *last != owner) {
                parts.push((from, owner));
            }
        };
        for (piece, owner) in self.pieces(given.bucket) {
            if piece.from <= given.from && given.to <= piece.to {
                push(piece.from, given.from, owner);
                push(given.from, given.to, partition);
                push(given.to, piece.to, owner);
            } else {
                push(piece.from, piece.to, owner);
            }
        }
        self.0[given.bucket as usize] = match parts[..] {
            [(_, owner)] => Bucket::Whole(owner),
            _ => Bucket::Divided(parts),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `UtilsTest.testMurmur2` of Apache Kafka.
    #[test]
    fn murmur2_agrees_with_java() {
        let vectors: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (
                b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (key, expected) in vectors {
            assert_eq!(murmur2(key) as i32, expected, "{key:?}");
        }
    }

    #[test]
    fn the_sign_bit_is_cleared_not_negated() {
        assert_eq!(hash(b"21"), (-973_932_308_i32 as u32) & 0x7fff_ffff);
    }

    proptest! {
        /// After any splits and merges every hash has one owner, which is open, and a split moves a
        /// key only to the children of the partition that it was in.
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

        /// Halves are halves.
        #[test]
        fn a_split_shares_the_hashes_evenly(partitions in 1usize..8) {
            let mut routing = Routing::modulo(partitions);
            routing.split(0, 100, 101);
            let width = |partition| -> u64 {
                routing.owned(partition).iter().map(|piece| u64::from(piece.to - piece.from)).sum()
            };
            prop_assert!(width(100).abs_diff(width(101)) <= 1);
            prop_assert_eq!(width(100) + width(101), u64::from(routing.width(0)));
        }
    }
}
