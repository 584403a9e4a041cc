use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use millstream_core::{Position, Start};
use proptest::prelude::*;

use super::*;
use crate::stream::{HashRange, Shard};

const AT: Start = Start::At(SystemTime::UNIX_EPOCH);

fn id(number: usize) -> Arc<str> {
    format!("shardId-{number}").into()
}

/// Returns shards by number, with their parents, the sequence numbers at which they begin, and whether they are
/// open.
fn graph(shards: &[(usize, &[usize], u64, bool)]) -> Vec<Shard> {
    let shard = |(number, parents, starting, open): &(usize, &[usize], u64, bool)| Shard {
        id: id(*number),
        parents: parents.iter().copied().map(id).collect(),
        range: HashRange { first: 0, last: 1 },
        starting: Position::from(*starting),
        open: *open,
    };
    shards.iter().map(shard).collect()
}

/// ```text
/// 0 1 2 3 4  5
/// \ / \ / |  |
///  6   7  4  5
///   \ /   |  /\
///    8    4 9  10
/// ```
fn graph_a() -> Vec<Shard> {
    graph(&[
        (0, &[], 1, false),
        (1, &[], 1, false),
        (2, &[], 1, false),
        (3, &[], 1, false),
        (4, &[], 1, true),
        (5, &[], 1, false),
        (6, &[0, 1], 103, false),
        (7, &[2, 3], 103, false),
        (8, &[6, 7], 206, true),
        (9, &[5], 206, true),
        (10, &[5], 206, true),
    ])
}

/// ```text
/// 0  3   6   9
/// \ / \ / \ /
///  2   5   8
/// / \ / \ / \
/// 1  4   7  10
/// ```
fn graph_b() -> Vec<Shard> {
    graph(&[
        (0, &[], 1, false),
        (1, &[], 1, false),
        (2, &[0, 1], 2, false),
        (3, &[2], 3, false),
        (4, &[2], 3, false),
        (5, &[3, 4], 4, false),
        (6, &[5], 5, false),
        (7, &[5], 5, false),
        (8, &[6, 7], 6, false),
        (9, &[8], 7, true),
        (10, &[8], 7, true),
    ])
}

/// ```text
///     0      1  2 3
///   /   \    |  \ /
///  4     5   1   6
/// / \   / \  |   |
/// 7  8 9  10 1   6
/// ```
fn graph_c() -> Vec<Shard> {
    graph(&[
        (0, &[], 1, false),
        (1, &[], 1, true),
        (2, &[], 1, false),
        (3, &[], 1, false),
        (4, &[0], 103, false),
        (5, &[0], 103, false),
        (6, &[2, 3], 103, true),
        (7, &[4], 206, true),
        (8, &[4], 206, true),
        (9, &[5], 206, true),
        (10, &[5], 206, true),
    ])
}

fn known(leases: &[usize]) -> Known {
    leases.iter().map(|number| (id(*number), false)).collect()
}

fn created(shards: &[Shard], known: &Known, start: Start) -> Vec<(Arc<str>, Start)> {
    let plans = missing(shards, known, start);
    plans
        .into_iter()
        .map(|plan| (plan.shard.id, plan.begin))
        .collect()
}

#[track_caller]
fn assert_created(shards: &[Shard], leases: &[usize], start: Start, expected: &[usize]) {
    let expected: Vec<_> = expected.iter().map(|number| (id(*number), start)).collect();
    let mut created = created(shards, &known(leases), start);
    created.sort_by_key(|(shard, _)| shard.trim_start_matches("shardId-").parse::<u32>().unwrap());
    assert_eq!(created, expected, "leases {leases:?}, {start:?}");
}

#[test]
fn s34_latest_makes_the_leases_that_the_kcl_makes() {
    for (leases, expected) in [
        (&[4, 5, 7][..], &[6][..]),
        (&[2, 6], &[3, 4, 9, 10]),
        (&[4, 9, 10], &[8]),
        (&[4, 5, 6, 7], &[]),
        (&[0, 1, 2, 3, 4, 5, 6, 7], &[]),
        (&[0, 1, 4, 7, 9, 10], &[]),
        (&[], &[4, 8, 9, 10]),
    ] {
        assert_created(&graph_a(), leases, Start::Latest, expected);
    }
    for (leases, expected) in [
        (&[6][..], &[7][..]),
        (&[5], &[]),
        (&[0, 1, 2, 3, 4, 5], &[]),
        (&[], &[9, 10]),
    ] {
        assert_created(&graph_b(), leases, Start::Latest, expected);
    }
    assert_created(&graph_c(), &[9, 10], Start::Latest, &[1, 6, 7, 8]);
}

#[test]
fn s34_earliest_and_at_make_the_leases_that_the_kcl_makes() {
    for start in [Start::Earliest, AT] {
        for (leases, expected) in [
            (&[3, 4, 5][..], &[0, 1, 2][..]),
            (&[4, 5, 7], &[0, 1]),
            (&[2, 6], &[3, 4, 5]),
            (&[4, 9, 10], &[0, 1, 2, 3]),
            (&[4, 5, 6, 7], &[]),
            (&[], &[0, 1, 2, 3, 4, 5]),
        ] {
            assert_created(&graph_a(), leases, start, expected);
        }
        assert_created(&graph_b(), &[5], start, &[]);
        assert_created(&graph_b(), &[], start, &[0, 1]);
    }
}

#[test]
fn s32_first_leases_are_those_of_the_beginning_or_of_the_tip() {
    let ids = |start| -> Vec<Arc<str>> {
        let plans = initial(&graph_a(), start).into_iter();
        plans
            .map(|plan| {
                assert_eq!(plan.begin, start);
                plan.shard.id
            })
            .collect()
    };
    let roots: Vec<_> = (0..6).map(id).collect();
    assert_eq!(ids(Start::Earliest), roots);
    assert_eq!(ids(AT), roots);
    assert_eq!(ids(Start::Latest), [id(4), id(10), id(8), id(9)]);
}

#[test]
fn s36_shards_whose_parents_are_gone_are_roots() {
    let mut shards = graph_a();
    shards.retain(|shard| shard.starting > Position::from(1) || shard.open);
    let plans = initial(&shards, Start::Earliest);
    let ids: Vec<_> = plans.into_iter().map(|plan| plan.shard.id).collect();
    assert_eq!(ids, [id(4), id(6), id(7), id(10), id(9)]);
    assert_created(&shards, &[7, 9], Start::Earliest, &[4, 6, 10]);
}

#[test]
fn s37_a_merge_of_which_one_parent_is_gone_begins_with_the_other() {
    let shards = graph(&[(1, &[], 1, false), (2, &[0, 1], 2, true)]);
    assert_created(&shards, &[], Start::Earliest, &[1]);
    assert_created(&shards, &[1], Start::Earliest, &[]);
    let both = graph(&[
        (0, &[], 1, false),
        (1, &[], 1, false),
        (2, &[0, 1], 2, true),
    ]);
    assert_created(&both, &[1], Start::Earliest, &[0]);
    assert_created(&both, &[1], Start::Latest, &[0]);
}

#[test]
fn s38_the_oldest_leases_are_made_first() {
    let shards = graph(&[(3, &[], 5, true), (2, &[], 9, true), (1, &[], 5, true)]);
    let plans = initial(&shards, Start::Latest);
    let ids: Vec<_> = plans.into_iter().map(|plan| plan.shard.id).collect();
    assert_eq!(ids, [id(1), id(3), id(2)]);
}

#[test]
fn a_child_that_lost_its_lease_after_the_end_of_its_parent_gets_it_again() {
    let mut leases = known(&[4, 9, 8]);
    leases.insert(id(5), true);
    let expected = [(id(10), Start::Earliest)];
    for start in [Start::Earliest, Start::Latest, AT] {
        assert_eq!(created(&graph_a(), &leases, start), expected, "{start:?}");
    }
    // A lease that still waits for its other parent does not.
    let leases: Known = BTreeMap::from([
        (id(6), true),
        (id(7), false),
        (id(4), false),
        (id(5), false),
    ]);
    assert_eq!(created(&graph_a(), &leases, Start::Latest), []);
}

#[test]
fn s33_holes_and_overlaps_are_no_whole() {
    let third = u128::MAX / 3;
    let range = |first, last| HashRange { first, last };
    let whole = [range(third + 1, u128::MAX), range(0, third)];
    assert!(tile(whole) && first_hole(whole).is_none());
    assert!(tile([range(0, u128::MAX)]));
    for (ranges, hole) in [
        (vec![], Some(range(0, u128::MAX))),
        (vec![range(0, third)], Some(range(third + 1, u128::MAX))),
        (vec![range(third, u128::MAX)], Some(range(0, third - 1))),
        (
            vec![range(0, third), range(third + 2, u128::MAX)],
            Some(range(third + 1, third + 1)),
        ),
        (vec![range(0, third), range(third, u128::MAX)], None),
        (vec![range(0, u128::MAX), range(5, 7)], None),
        (vec![range(0, u128::MAX), range(0, u128::MAX)], None),
    ] {
        assert!(!tile(ranges.iter().copied()), "{ranges:?}");
        assert_eq!(first_hole(ranges), hole);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// No order of splits, merges and reads leaves a hole.
    #[test]
    fn s44_trees_of_splits_and_merges_have_no_hole(steps in prop::collection::vec(any::<(u16, bool)>(), 0..60)) {
        let mut leases = vec![HashRange { first: 0, last: u128::MAX }];
        for (choice, merge) in steps {
            leases.sort_unstable();
            let at = usize::from(choice) % leases.len();
            let range = leases[at];
            if merge && at + 1 < leases.len() {
                leases[at].last = leases.remove(at + 1).last;
            } else if range.last > range.first {
                let middle = range.first + (range.last - range.first) / 2;
                leases[at].last = middle;
                leases.push(HashRange { first: middle + 1, last: range.last });
            }
            prop_assert_eq!(first_hole(leases.iter().copied()), None);
            prop_assert!(tile(leases.iter().copied()));
        }
    }
}

#[test]
fn at_keeps_its_time() {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(200);
    let plans = initial(&graph_a(), Start::At(time));
    assert!(plans.iter().all(|plan| plan.begin == Start::At(time)));
}
