//! Which member takes which free lease, so that members that see the same leases do not all try the same ones.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

/// A member's preference for a lease, by rendezvous hashing: a smaller one is tried first. Members that disagree about
/// it, such as those of another version, only collide more often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Preference {
    /// The number of members that come before this one.
    rank: usize,
    score: u64,
}

impl Preference {
    /// Returns the preference of `me` among members.
    pub(crate) fn of(me: &str, members: &[&str], lease: &str) -> Self {
        let score = self::score(me, lease);
        let before = members.iter().filter(|id| **id != me);
        let rank = before.filter(|id| self::score(id, lease) < score).count();
        Self { rank, score }
    }

    /// Returns whether this member comes before all others.
    pub(crate) fn is_first(&self) -> bool {
        self.rank == 0
    }
}

/// Returns the first members in the order of their preferences for a lease, at most `count`.
pub(crate) fn preferred<'a>(members: &[&'a str], lease: &str, count: usize) -> Vec<&'a str> {
    let mut members = members.to_vec();
    members.sort_unstable_by_key(|id| score(id, lease));
    members.truncate(count);
    members
}

fn score(member: &str, lease: &str) -> u64 {
    FixedState::default().hash_one((member, lease))
}
