//! Who shall own what: balanced, sticky, and the same answer for the same question.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{MemberId, Slot, StreamId};

/// A member that can own partitions of `streams`.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) member: MemberId,
    pub(crate) streams: BTreeSet<StreamId>,
}

/// Plans an owner for every partition in `held` and `pool` that some member reads.
///
/// Members that read the same streams get counts that differ by 1 at most. Whoever holds a
/// partition keeps it unless that is needed for the balance, so a joining member takes no more than
/// its share and a leaving one moves nothing but its own. Each step moves one partition from a
/// member to one that has at least 2 fewer, which is why it ends.
pub(crate) fn plan(
    seats: &[Seat],
    held: &BTreeMap<Slot, MemberId>,
    pool: &[Slot],
) -> BTreeMap<Slot, MemberId> {
    let mut loads: Vec<Load<'_>> = seats
        .iter()
        .map(|seat| Load {
            seat,
            count: 0,
            slots: BTreeMap::new(),
        })
        .collect();
    let place: BTreeMap<MemberId, usize> = seats
        .iter()
        .enumerate()
        .map(|(index, seat)| (seat.member, index))
        .collect();
    let mut homeless = Vec::new();
    for (slot, member) in held {
        match place.get(member) {
            Some(index) if loads[*index].reads(slot.0) => loads[*index].push(*slot),
            _ => homeless.push(*slot),
        }
    }
    for slot in homeless.into_iter().chain(pool.iter().copied()) {
        let lightest = (0..loads.len())
            .filter(|index| loads[*index].reads(slot.0))
            .min_by_key(|index| (loads[*index].count, *index));
        if let Some(index) = lightest {
            loads[index].push(slot);
        }
    }
    while let Some((from, to, stream)) = next_move(&loads) {
        let slot = loads[from].pop(stream);
        loads[to].push(slot);
    }
    loads
        .into_iter()
        .flat_map(|load| {
            let member = load.seat.member;
            load.slots
                .into_values()
                .flatten()
                .map(move |slot| (slot, member))
        })
        .collect()
}

struct Load<'a> {
    seat: &'a Seat,
    count: usize,
    /// By stream, so that a partition that another member reads is found without a search.
    slots: BTreeMap<StreamId, Vec<Slot>>,
}

impl Load<'_> {
    fn reads(&self, stream: StreamId) -> bool {
        self.seat.streams.contains(&stream)
    }

    fn push(&mut self, slot: Slot) {
        self.count += 1;
        self.slots.entry(slot.0).or_default().push(slot);
    }

    /// The newest comes first, so that what a member holds the longest stays.
    fn pop(&mut self, stream: StreamId) -> Slot {
        self.count -= 1;
        let slots = self.slots.get_mut(&stream);
        slots
            .and_then(Vec::pop)
            .expect("a move is planned only for a partition that is there")
    }
}

/// The move from the heaviest to the lightest member that there is, if it is worth one.
fn next_move(loads: &[Load<'_>]) -> Option<(usize, usize, StreamId)> {
    let mut best: Option<(usize, (usize, usize, StreamId))> = None;
    for (from, heavy) in loads.iter().enumerate() {
        for (to, light) in loads.iter().enumerate() {
            let gain = heavy.count.saturating_sub(light.count);
            if gain < 2 || best.is_some_and(|(most, _)| gain <= most) {
                continue;
            }
            let movable = heavy
                .slots
                .iter()
                .rev()
                .find(|(stream, slots)| !slots.is_empty() && light.reads(**stream));
            if let Some((stream, _)) = movable {
                best = Some((gain, (from, to, *stream)));
            }
        }
    }
    best.map(|(_, step)| step)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seats(members: &[MemberId]) -> Vec<Seat> {
        let seat = |member: &MemberId| Seat {
            member: *member,
            streams: [0].into(),
        };
        members.iter().map(seat).collect()
    }

    fn counts(plan: &BTreeMap<Slot, MemberId>, members: &[MemberId]) -> Vec<usize> {
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
            let (mut held, mut pool) = (BTreeMap::new(), Vec::new());
            for partition in 0..partitions {
                let owner = owners[partition as usize];
                if members.contains(&owner) {
                    held.insert((0, partition), owner);
                } else {
                    pool.push((0, partition));
                }
            }
            let planned = plan(&seats(&members), &held, &pool);
            prop_assert_eq!(planned.len(), partitions as usize);
            let after = counts(&planned, &members);
            let most = after.iter().max().copied().unwrap_or(0);
            prop_assert!(most - after.iter().min().copied().unwrap_or(0) <= 1);

            // As few moves as there can be: the fullest members keep one more where the shares are
            // uneven.
            let moved = held.iter().filter(|(slot, owner)| planned[*slot] != **owner).count();
            let mut before = counts(&held, &members);
            before.sort_unstable_by(|a, b| b.cmp(a));
            let share = partitions as usize / members.len();
            let uneven = partitions as usize % members.len();
            let keeps = |index: usize| share + usize::from(index < uneven);
            let surplus = |(index, count): (usize, &usize)| count.saturating_sub(keeps(index));
            let needed: usize = before.iter().enumerate().map(surplus).sum();
            prop_assert_eq!(moved, needed);
            prop_assert_eq!(planned, plan(&seats(&members), &held, &pool));
        }
    }

    #[test]
    fn a_partition_goes_only_to_members_that_read_its_stream() {
        let seats = [
            Seat {
                member: 1,
                streams: [0].into(),
            },
            Seat {
                member: 2,
                streams: [0, 1].into(),
            },
            Seat {
                member: 3,
                streams: [1].into(),
            },
        ];
        let pool: Vec<Slot> = (0..6)
            .map(|p| (0, p))
            .chain((0..2).map(|p| (1, p)))
            .collect();
        let planned = plan(&seats, &BTreeMap::new(), &pool);
        assert_eq!(planned.len(), 8);
        for ((stream, _), member) in &planned {
            assert!(seats[*member as usize - 1].streams.contains(stream));
        }
        assert_eq!(counts(&planned, &[1, 2, 3]), [3, 3, 2]);
    }

    #[test]
    fn nobody_reads_it_nobody_owns_it() {
        assert!(plan(&[], &BTreeMap::new(), &[(0, 0)]).is_empty());
        assert!(plan(&seats(&[1]), &BTreeMap::new(), &[(7, 0)]).is_empty());
    }
}
