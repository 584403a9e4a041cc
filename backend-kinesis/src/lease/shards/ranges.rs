//! Ranges of hash keys: open shards cover each key once, leases cover each key at least once.

use crate::stream::HashRange;

/// Returns whether the ranges cover each hash key exactly once.
pub(crate) fn tile(ranges: impl IntoIterator<Item = HashRange>) -> bool {
    let mut ranges: Vec<HashRange> = ranges.into_iter().collect();
    ranges.sort_unstable();
    let adjoin = |pair: &[HashRange]| pair[0].last.checked_add(1) == Some(pair[1].first);
    ranges.first().is_some_and(|range| range.first == 0)
        && ranges.last().is_some_and(|range| range.last == u128::MAX)
        && ranges.iter().all(|range| range.first <= range.last)
        && ranges.windows(2).all(adjoin)
}

/// Returns the first hash keys that no range covers. The ranges may overlap.
pub(crate) fn first_hole(ranges: impl IntoIterator<Item = HashRange>) -> Option<HashRange> {
    let mut ranges: Vec<HashRange> = ranges.into_iter().collect();
    ranges.sort_unstable();
    let mut next = 0;
    for range in ranges {
        if range.first > next {
            return Some(HashRange {
                first: next,
                last: range.first - 1,
            });
        }
        next = next.max(range.last.checked_add(1)?);
    }
    Some(HashRange {
        first: next,
        last: u128::MAX,
    })
}
