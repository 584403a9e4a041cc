use std::collections::{BTreeMap, BTreeSet};

/// A member that can own partitions of `streams`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription<M, S> {
    /// The member.
    pub member: M,
    /// The streams that it reads.
    pub streams: BTreeSet<S>,
}

/// Plans an owner for every partition in `owned` and `unowned` that some member reads: balanced, sticky
/// and deterministic.
///
/// Members that read the same streams get counts that differ by at most 1. An owner keeps its partition
/// unless the balance requires the move: a joining member takes no more than its share, and a leaving
/// member moves only its own partitions. A driver revokes a partition that is planned for another member
/// than its owner, and assigns it when it is released.
///
/// A partition is identified by its stream and its name in it. The driver chooses the types of members, streams and
/// partitions. Of two members with equal claims, the one that is first in `subscriptions` is preferred.
pub fn plan_sticky<M, S, P>(
    subscriptions: &[Subscription<M, S>],
    owned: &BTreeMap<(S, P), M>,
    unowned: &[(S, P)],
) -> BTreeMap<(S, P), M>
where
    M: Ord + Clone,
    S: Ord + Clone,
    P: Ord + Clone,
{
    let mut loads: Vec<MemberLoad<'_, M, S, P>> = subscriptions
        .iter()
        .map(|subscription| MemberLoad {
            subscription,
            count: 0,
            partitions: BTreeMap::new(),
        })
        .collect();
    let index_of: BTreeMap<&M, usize> = subscriptions
        .iter()
        .enumerate()
        .map(|(index, subscription)| (&subscription.member, index))
        .collect();
    let mut unassigned = Vec::new();
    for (partition, member) in owned {
        match index_of.get(member) {
            Some(index) if loads[*index].reads(&partition.0) => {
                loads[*index].push(partition.clone());
            }
            _ => unassigned.push(partition),
        }
    }
    for partition in unassigned.into_iter().chain(unowned) {
        let lightest = (0..loads.len())
            .filter(|index| loads[*index].reads(&partition.0))
            .min_by_key(|index| (loads[*index].count, *index));
        if let Some(index) = lightest {
            loads[index].push(partition.clone());
        }
    }
    // Each step moves one partition to a member that has at least 2 fewer, so the loop ends.
    while let Some((from, to, stream)) = next_move(&loads) {
        let partition = loads[from].pop(&stream);
        loads[to].push(partition);
    }
    loads
        .into_iter()
        .flat_map(|load| {
            let member = &load.subscription.member;
            load.partitions
                .into_values()
                .flatten()
                .map(move |partition| (partition, member.clone()))
        })
        .collect()
}

struct MemberLoad<'a, M, S, P> {
    subscription: &'a Subscription<M, S>,
    count: usize,
    /// Grouped by stream, to find a partition that another member reads without a search.
    partitions: BTreeMap<S, Vec<(S, P)>>,
}

impl<M, S: Ord + Clone, P> MemberLoad<'_, M, S, P> {
    fn reads(&self, stream: &S) -> bool {
        self.subscription.streams.contains(stream)
    }

    fn push(&mut self, partition: (S, P)) {
        self.count += 1;
        self.partitions
            .entry(partition.0.clone())
            .or_default()
            .push(partition);
    }

    /// Takes the partition that was added last, so that a member keeps what it has owned longest.
    fn pop(&mut self, stream: &S) -> (S, P) {
        self.count -= 1;
        let partitions = self.partitions.get_mut(stream);
        partitions
            .and_then(Vec::pop)
            .expect("a move is planned only for a stream with a partition")
    }
}

/// Returns the move with the largest gain, from the member with the most partitions to the one with
/// the fewest, if any move improves the balance.
fn next_move<M, S: Ord + Clone, P>(loads: &[MemberLoad<'_, M, S, P>]) -> Option<(usize, usize, S)> {
    let mut best: Option<(usize, (usize, usize, S))> = None;
    for (from, heavy) in loads.iter().enumerate() {
        for (to, light) in loads.iter().enumerate() {
            let gain = heavy.count.saturating_sub(light.count);
            if gain < 2 || best.as_ref().is_some_and(|(most, _)| gain <= *most) {
                continue;
            }
            let movable = heavy
                .partitions
                .iter()
                .rev()
                .find(|(stream, partitions)| !partitions.is_empty() && light.reads(stream));
            if let Some((stream, _)) = movable {
                best = Some((gain, (from, to, stream.clone())));
            }
        }
    }
    best.map(|(_, step)| step)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subscriptions(members: &[u64]) -> Vec<Subscription<u64, usize>> {
        let subscription = |member: &u64| Subscription {
            member: *member,
            streams: [0].into(),
        };
        members.iter().map(subscription).collect()
    }

    fn counts(plan: &BTreeMap<(usize, u32), u64>, members: &[u64]) -> Vec<usize> {
        let count = |member| plan.values().filter(|owner| **owner == member).count();
        members.iter().map(|member| count(*member)).collect()
    }

    proptest! {
        #[test]
        fn balanced_sticky_and_deterministic(
            partitions in 0u32..40,
            owners in prop::collection::vec(0u64..6, 40),
            members in prop::collection::btree_set(0u64..6, 1..6),
        ) {
            let members: Vec<_> = members.into_iter().collect();
            let (mut owned, mut unowned) = (BTreeMap::new(), Vec::new());
            for partition in 0..partitions {
                let owner = owners[partition as usize];
                if members.contains(&owner) {
                    owned.insert((0, partition), owner);
                } else {
                    unowned.push((0, partition));
                }
            }
            let planned = plan_sticky(&subscriptions(&members), &owned, &unowned);
            prop_assert_eq!(planned.len(), partitions as usize);
            let after = counts(&planned, &members);
            let most = after.iter().max().copied().unwrap_or(0);
            prop_assert!(most - after.iter().min().copied().unwrap_or(0) <= 1);

            // No more moves than needed: where the shares are uneven, the members with the most partitions keep one
            // more.
            let moved = owned.iter().filter(|(partition, owner)| planned[*partition] != **owner).count();
            let mut before = counts(&owned, &members);
            before.sort_unstable_by(|a, b| b.cmp(a));
            let share = partitions as usize / members.len();
            let uneven = partitions as usize % members.len();
            let keeps = |index: usize| share + usize::from(index < uneven);
            let surplus = |(index, count): (usize, &usize)| count.saturating_sub(keeps(index));
            let needed: usize = before.iter().enumerate().map(surplus).sum();
            prop_assert_eq!(moved, needed);
            prop_assert_eq!(planned, plan_sticky(&subscriptions(&members), &owned, &unowned));
        }
    }

    #[test]
    fn a_partition_goes_only_to_members_that_read_its_stream() {
        let reads = |member, streams: &[usize]| Subscription {
            member,
            streams: streams.iter().copied().collect(),
        };
        let subscriptions = [reads(1, &[0]), reads(2, &[0, 1]), reads(3, &[1])];
        let unowned: Vec<(usize, u32)> = (0..6)
            .map(|p| (0, p))
            .chain((0..2).map(|p| (1, p)))
            .collect();
        let planned = plan_sticky(&subscriptions, &BTreeMap::new(), &unowned);
        assert_eq!(planned.len(), 8);
        for ((stream, _), member) in &planned {
            assert!(subscriptions[*member as usize - 1].streams.contains(stream));
        }
        assert_eq!(counts(&planned, &[1, 2, 3]), [3, 3, 2]);
    }

    #[test]
    fn an_unread_stream_has_no_owner() {
        let nobody: [Subscription<u64, usize>; 0] = [];
        assert!(plan_sticky(&nobody, &BTreeMap::new(), &[(0, 0)]).is_empty());
        assert!(plan_sticky(&subscriptions(&[1]), &BTreeMap::new(), &[(7, 0)]).is_empty());
    }
}
