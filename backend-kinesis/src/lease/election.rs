//! Leader election: the worker that audits the whole table. All workers determine it by the same shuffle.
//!
//! There is no lock. The KCL 2.x sorts the owners, shuffles them with `java.util.Random(1947)` and
//! takes the first. So the Java workers may elect a worker of another language without a message to it,
//! and that worker must do the same arithmetic to know.

use std::cmp::Ordering;

const SEED: u64 = 1947;

/// Returns whether `me` is the leader. Without any owner, every worker is.
pub(crate) fn is_elected<'a>(owners: impl IntoIterator<Item = &'a str>, me: &str) -> bool {
    let mut owners: Vec<&str> = owners.into_iter().collect();
    owners.sort_by(|one, other| in_java(one, other));
    owners.dedup();
    match owners.len() {
        0 => true,
        count => owners[shuffled(count)[0]] == me,
    }
}

/// Compares strings in Java's order: by UTF-16 code units.
fn in_java(one: &str, other: &str) -> Ordering {
    one.encode_utf16().cmp(other.encode_utf16())
}

/// Returns `Collections.shuffle` of `0..count`.
fn shuffled(count: usize) -> Vec<usize> {
    let mut random = Random::new(SEED);
    let mut order: Vec<usize> = (0..count).collect();
    for bound in (2..=count).rev() {
        let bound_of_java = i32::try_from(bound).unwrap_or(i32::MAX);
        let other = random.next_int(bound_of_java);
        order.swap(bound - 1, usize::try_from(other).unwrap_or(0));
    }
    order
}

/// `java.util.Random`, whose sequence is part of its specification.
struct Random(u64);

impl Random {
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    const MASK: u64 = (1 << 48) - 1;

    fn new(seed: u64) -> Self {
        Self((seed ^ Self::MULTIPLIER) & Self::MASK)
    }

    fn next(&mut self, bits: u32) -> i32 {
        self.0 = self.0.wrapping_mul(Self::MULTIPLIER).wrapping_add(0xB) & Self::MASK;
        (self.0 >> (48 - bits)) as i32
    }

    fn next_int(&mut self, bound: i32) -> i32 {
        let mut bits = self.next(31);
        if bound & (bound - 1) == 0 {
            return ((i64::from(bound) * i64::from(bits)) >> 31) as i32;
        }
        // The last, incomplete run of `bound` numbers would favour the small ones.
        while bits.wrapping_sub(bits % bound).wrapping_add(bound - 1) < 0 {
            bits = self.next(31);
        }
        bits % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elects_whom_java_elects() {
        // Taken from OpenJDK 17.
        let known = [
            (1, 0),
            (2, 0),
            (3, 2),
            (4, 3),
            (5, 4),
            (6, 2),
            (7, 2),
            (8, 2),
            (9, 3),
            (10, 8),
            (11, 6),
            (12, 9),
            (16, 11),
            (20, 14),
            (32, 19),
            (50, 47),
            (64, 46),
            (100, 95),
            (128, 89),
            (256, 41),
            (1000, 748),
        ];
        for (owners, leader) in known {
            assert_eq!(shuffled(owners)[0], leader, "{owners} owners");
        }
        assert_eq!(shuffled(6), [2, 3, 5, 4, 0, 1]);
        assert_eq!(shuffled(10), [8, 5, 1, 6, 9, 4, 2, 0, 7, 3]);
    }

    #[test]
    fn every_owner_counts_once_and_no_owner_elects_all() {
        assert!(is_elected([], "me"));
        assert!(is_elected(["c", "a", "b", "c", "c"], "c"));
        assert!(!is_elected(["c", "a", "b"], "b"));
        assert!(!is_elected(["c"], "me"));
    }

    #[test]
    fn owners_are_sorted_by_units_of_utf_16() {
        // By code points the order is reversed.
        let (private, emoji) = ("\u{e000}", "\u{1f980}");
        assert!(is_elected([private, emoji], emoji));
    }
}
