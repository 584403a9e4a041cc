//! Finds the deliveries whose output the broker refuses.
//!
//! A broker that refuses a transaction does not report which record is the cause. So the transaction is
//! published in parts, each in its own transaction, and a part that is refused is split again,
//! down to the single deliveries whose output is refused alone. Parts that are accepted on the way are
//! published.
//!
//! A transaction that takes too long is split the same way, since a part of it may be published in time.
//!
//! A part of several partitions is split between two of them, where that is nearest to half of
//! the deliveries. A part of one partition is halved. So partitions with good records soon leave the search,
//! and continue while another one is still searched. Rejected: halving the deliveries even where
//! that splits a partition. The partitions behind the split would wait for all of the one before
//! them.
//!
//! Only numbers of deliveries are held here. A part of a partition always begins with the
//! first delivery whose output is not published.

#[derive(Debug, Default)]
pub(crate) struct Bisection {
    /// The parts that are left to be tried. The shares of one partition are in its order.
    parts: Vec<Vec<Share>>,
}

/// The share of one partition in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// The index of its assignment.
    pub(crate) index: usize,
    /// How many deliveries have output in the share. At least one.
    pub(crate) deliveries: usize,
}

impl Bisection {
    /// Takes a refused transaction, to be tried in parts. No other parts of its partitions may
    /// be left, unless the transaction was a part from [`next`](Self::next).
    ///
    /// A single delivery is retried: only the caller knows whether it was refused alone, or with
    /// deliveries of partitions that are lost now.
    pub(crate) fn refused(&mut self, shares: Vec<Share>) {
        let (first, second) = split(shares);
        // Before the parts of the same partition that are left.
        self.parts.splice(0..0, [first, second]);
        self.parts.retain(|part| !part.is_empty());
    }

    /// Puts a part back that was neither published nor refused.
    pub(crate) fn put_back(&mut self, shares: Vec<Share>) {
        self.parts.insert(0, shares);
        self.parts.retain(|part| !part.is_empty());
    }

    /// Takes the part to try next: the largest one that waits for no other part and for no
    /// partition that is `held`.
    pub(crate) fn next(&mut self, held: impl Fn(usize) -> bool) -> Option<Vec<Share>> {
        let mut best: Option<(usize, usize)> = None;
        for (place, part) in self.parts.iter().enumerate() {
            let waits =
                |share: &Share| held(share.index) || contains(&self.parts[..place], share.index);
            let size = size(part);
            if best.is_none_or(|(_, most)| size > most) && !part.iter().any(waits) {
                best = Some((place, size));
            }
        }
        best.map(|(place, _)| self.parts.remove(place))
    }

    /// Returns whether parts of a partition are left.
    pub(crate) fn contains(&self, index: usize) -> bool {
        contains(&self.parts, index)
    }

    /// Drops the parts of a partition that are left.
    pub(crate) fn forget(&mut self, index: usize) {
        for part in &mut self.parts {
            part.retain(|share| share.index != index);
        }
        self.parts.retain(|part| !part.is_empty());
    }
}

fn contains(parts: &[Vec<Share>], index: usize) -> bool {
    let shares = |part: &Vec<Share>| part.iter().any(|share| share.index == index);
    parts.iter().any(shares)
}

fn size(part: &[Share]) -> usize {
    part.iter().map(|share| share.deliveries).sum()
}

/// Splits a part in two. The second one is empty if it has a single delivery.
fn split(mut shares: Vec<Share>) -> (Vec<Share>, Vec<Share>) {
    if let [share] = shares[..] {
        let half = share.deliveries / 2;
        let of = |deliveries| Share {
            deliveries,
            ..share
        };
        return match half {
            0 => (shares, Vec::new()),
            _ => (vec![of(half)], vec![of(share.deliveries - half)]),
        };
    }
    let all = size(&shares);
    let mut before = 0;
    let distances = shares.iter().map(|share| {
        before += share.deliveries;
        all.abs_diff(2 * before)
    });
    // The split cannot be after the last share.
    let last = shares.len().saturating_sub(1);
    let nearest = distances.take(last).enumerate().min_by_key(|(_, far)| *far);
    let second = shares.split_off(nearest.map_or(0, |(place, _)| place + 1));
    (shares, second)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(index: usize, deliveries: usize) -> Share {
        Share { index, deliveries }
    }

    fn next(bisection: &mut Bisection) -> Vec<Share> {
        bisection.next(|_| false).unwrap()
    }

    #[test]
    fn halves_one_partition_down_to_the_delivery() {
        let mut bisection = Bisection::default();
        bisection.refused(vec![share(0, 5)]);
        assert_eq!(next(&mut bisection), [share(0, 2)]);
        bisection.refused(vec![share(0, 2)]);
        assert_eq!(next(&mut bisection), [share(0, 1)]);
        assert_eq!(next(&mut bisection), [share(0, 1)]);
        assert_eq!(next(&mut bisection), [share(0, 3)]);
        assert!(!bisection.contains(0));
    }

    #[test]
    fn splits_between_partitions_first() {
        let mut bisection = Bisection::default();
        bisection.refused(vec![share(0, 7), share(1, 1), share(2, 4)]);
        assert_eq!(next(&mut bisection), [share(0, 7)]);
        bisection.refused(vec![share(0, 7)]);
        assert_eq!(next(&mut bisection), [share(1, 1), share(2, 4)]);
        assert_eq!(next(&mut bisection), [share(0, 3)]);
    }

    #[test]
    fn a_held_partition_waits_and_others_go_on() {
        let mut bisection = Bisection::default();
        bisection.refused(vec![share(0, 2), share(1, 1)]);
        assert_eq!(bisection.next(|index| index == 0), Some(vec![share(1, 1)]));
        assert_eq!(bisection.next(|index| index == 0), None);
        assert_eq!(next(&mut bisection), [share(0, 2)]);
    }

    #[test]
    fn a_single_delivery_is_tried_again_and_a_lost_partition_is_not() {
        let mut bisection = Bisection::default();
        bisection.refused(vec![share(3, 1)]);
        assert_eq!(next(&mut bisection), [share(3, 1)]);
        bisection.refused(vec![]);
        bisection.put_back(vec![]);
        assert_eq!(bisection.next(|_| false), None);
        bisection.refused(vec![share(3, 4), share(5, 4)]);
        bisection.forget(3);
        assert_eq!(next(&mut bisection), [share(5, 4)]);
        assert_eq!(bisection.next(|_| false), None);
    }

    /// The fate of a refused delivery, and of a part that is tried.
    #[derive(Debug, Clone, Copy)]
    struct Chance {
        /// How many parts are tried while its partition is held.
        held: usize,
        /// Whether the part is put back once.
        retried: bool,
        lost: bool,
    }

    fn chance() -> impl Strategy<Value = Chance> {
        let held = prop_oneof![Just(0), 1..20_usize];
        (held, prop::bool::weighted(0.1), prop::bool::weighted(0.02)).prop_map(
            |(held, retried, lost)| Chance {
                held,
                retried,
                lost,
            },
        )
    }

    proptest! {
        /// Compares good and bad deliveries of partitions with a plain list: each is published or blamed
        /// once, in the order of its partition, only bad ones are blamed, a held partition waits, and
        /// few parts are tried.
        #[test]
        fn finds_the_bad_ones_and_no_others(
            partitions in prop::collection::vec(prop::collection::vec(prop::bool::weighted(0.9), 1..60), 1..12),
            chances in prop::collection::vec(chance(), 1..50),
        ) {
            let mut chances = chances.into_iter().cycle();
            let mut left = partitions.clone();
            let mut held = vec![0; partitions.len()];
            let mut lost = vec![false; partitions.len()];
            let mut bisection = Bisection::default();
            let all = (0..).zip(&partitions).map(|(index, good)| share(index, good.len()));
            bisection.refused(all.collect());
            let bad = partitions.iter().flatten().filter(|good| !**good).count();
            let total: usize = partitions.iter().map(Vec::len).sum();
            let depth = 4 * (total.ilog2() as usize + 2);
            let (mut tried, mut free) = (0, 0);
            loop {
                held.iter_mut().for_each(|left| *left = usize::saturating_sub(*left, 1));
                let Some(part) = bisection.next(|index| held[index] > 0) else {
                    if held.iter().all(|left| *left == 0) {
                        break;
                    }
                    continue;
                };
                let chance = chances.next().unwrap();
                if chance.retried {
                    bisection.put_back(part);
                    // This must end: the next part is not put back, if there is one that is not.
                    free += 1;
                    prop_assert!(free < 10_000);
                    if free > 200 { break; }
                    continue;
                }
                tried += 1;
                prop_assert!(!part.is_empty());
                for share in &part {
                    prop_assert!(held[share.index] == 0 && !lost[share.index]);
                    prop_assert!((1..=left[share.index].len()).contains(&share.deliveries));
                }
                let is_good = |share: &Share| left[share.index][..share.deliveries].iter().all(|good| *good);
                if part.iter().all(is_good) {
                    for share in part {
                        left[share.index].drain(..share.deliveries);
                    }
                } else if size(&part) == 1 {
                    let index = part[0].index;
                    left[index].remove(0);
                    held[index] = chance.held;
                    if chance.lost {
                        lost[index] = true;
                        bisection.forget(index);
                    }
                } else {
                    bisection.refused(part);
                }
            }
            for (index, left) in left.iter().enumerate() {
                prop_assert!(free > 200 || lost[index] || left.is_empty());
            }
            prop_assert!(tried <= 2 * bad * depth + 2, "{tried} tried for {bad} of {total}");
        }
    }
}
