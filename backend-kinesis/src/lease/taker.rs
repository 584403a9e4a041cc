//! The lease taker's rules: which leases a member takes, and which it requests from others. They are those of the
//! KCL 2.x. All workers of a table must follow the same rules, or they would steal in circles.
//!
//! Among members that support it, a lease is requested rather than stolen, and as many at once as
//! a balance needs: the owner drains and hands over, so nothing is read twice. From a Java owner, leases are
//! stolen as another Java worker would do.

use std::collections::BTreeMap;
use std::sync::Arc;

mod preference;

use preference::Preference;
pub(crate) use preference::preferred;

/// The maximum number of leases that a member takes at once without knowing who else takes some.
const FEW: usize = 4;

/// One lease, as input of the decision.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) key: Arc<str>,
    pub(crate) owner: Option<Arc<str>>,
    /// The member that has requested it from its owner and will get it.
    pub(crate) requester: Option<Arc<str>>,
    /// The counter has not changed for the failover time.
    pub(crate) expired: bool,
    /// Nobody has renewed it for three failover times.
    pub(crate) very_old: bool,
    /// The owner understands requests.
    pub(crate) can_be_requested: bool,
}

/// The input of a decision.
#[derive(Debug)]
pub(crate) struct Situation<'a> {
    pub(crate) me: &'a str,
    pub(crate) most: usize,
    /// Whether a lease may be stolen now.
    pub(crate) may_steal: bool,
    pub(crate) claim: Claim,
}

/// Which leases without a live owner a member may take. When a fleet starts, and after an outage, all members see the
/// same leases at the same time, and most of their attempts would fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Nothing, until the table shows the others' first leases.
    Nothing,
    /// A few, so that others see this member. Each member tries them in an order of its own.
    Few,
    /// Those for which no other known member that needs more is preferred.
    Share,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The leases without a live owner.
    pub(crate) take: Vec<Arc<str>>,
    /// The number of further ones that this member lacks.
    pub(crate) lacking: usize,
    pub(crate) request: Vec<Arc<str>>,
    pub(crate) steal: Vec<Arc<str>>,
    /// The number of leases beyond the allowed ones that a balance would need.
    pub(crate) spillover: usize,
}

impl Candidate {
    fn is_available(&self) -> bool {
        self.owner.is_none() || self.expired
    }

    /// Returns the owner after all requests are granted.
    fn next_owner(&self) -> Option<&Arc<str>> {
        self.requester.as_ref().or(self.owner.as_ref())
    }
}

/// Decides which leases to take and to request. `leases` are all that the group shares.
pub(crate) fn decide(
    situation: &Situation<'_>,
    leases: &[Candidate],
    random: &mut fastrand::Rng,
) -> Decision {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::from([(situation.me, 0)]);
    for lease in leases.iter().filter(|lease| !lease.is_available()) {
        if let Some(owner) = lease.next_owner() {
            *counts.entry(owner).or_default() += 1;
        }
    }
    let mine = counts[situation.me];
    let available: Vec<&Candidate> = leases.iter().filter(|l| l.is_available()).collect();
    let mut decision = Decision::default();

    let room = situation.most.saturating_sub(mine);
    let mut very_old = available.clone();
    very_old.retain(|lease| lease.very_old);
    if !very_old.is_empty() {
        let members = members(situation.me, leases, &counts, usize::MAX);
        claim(situation, very_old, &members, room, &mut decision);
        return decision;
    }

    let balanced = match counts.len() >= leases.len() {
        true => 1,
        false => leases.len().div_ceil(counts.len()),
    };
    let target = balanced.min(situation.most);
    decision.spillover = balanced - target;
    let needed = target.saturating_sub(mine);
    if !available.is_empty() {
        let members = members(situation.me, leases, &counts, target);
        claim(situation, available, &members, needed, &mut decision);
        return decision;
    }
    balance(situation, leases, counts, target, random, &mut decision);
    decision
}

/// Returns this member, and the others with fewer leases than `target` that follow the same preferences. Java workers
/// do not, and take leases in their own time.
fn members<'a>(
    me: &'a str,
    leases: &'a [Candidate],
    counts: &BTreeMap<&'a str, usize>,
    target: usize,
) -> Vec<&'a str> {
    let owners = leases.iter().filter(|lease| lease.can_be_requested);
    let owners = owners.filter_map(|lease| lease.owner.as_deref());
    let lacks = |id: &&str| counts.get(id).is_none_or(|count| *count < target);
    let mut members: Vec<&str> = owners.filter(lacks).chain([me]).collect();
    members.sort_unstable();
    members.dedup();
    members
}

/// Takes up to `needed` of the available leases, as far as the situation allows it.
fn claim(
    situation: &Situation<'_>,
    available: Vec<&Candidate>,
    members: &[&str],
    needed: usize,
    decision: &mut Decision,
) {
    let needed = needed.min(available.len());
    if needed == 0 {
        return;
    }
    let ranked = available.into_iter();
    let ranked = ranked.map(|lease| (Preference::of(situation.me, members, &lease.key), lease));
    let mut ranked: Vec<_> = ranked.collect();
    let most = match situation.claim {
        Claim::Nothing => 0,
        Claim::Few => FEW,
        Claim::Share => {
            ranked.retain(|(preference, _)| preference.is_first());
            usize::MAX
        }
    };
    ranked.sort_unstable_by_key(|(preference, _)| *preference);
    ranked.truncate(needed.min(most));
    decision.take = ranked.iter().map(|(_, lease)| lease.key.clone()).collect();
    decision.lacking = needed - decision.take.len();
}

/// Takes from the workers with the most leases, one by one, until the target is reached or nobody has more than
/// its share.
fn balance<'a>(
    situation: &Situation<'a>,
    leases: &'a [Candidate],
    mut counts: BTreeMap<&'a str, usize>,
    target: usize,
    random: &mut fastrand::Rng,
    decision: &mut Decision,
) {
    let mut leases: Vec<&Candidate> = leases.iter().filter(|l| l.requester.is_none()).collect();
    random.shuffle(&mut leases);
    let mut may_steal = situation.may_steal;
    while let needed @ 1.. = target.saturating_sub(counts[situation.me]) {
        let others = counts.iter().filter(|(id, _)| **id != situation.me);
        let Some((&victim, &count)) = others.max_by_key(|(_, count)| **count) else {
            return;
        };
        // A worker with exactly its share gives one only to a worker that lacks more than one. Otherwise
        // the two would swap roles forever.
        if count < target || (count == target && needed == 1) {
            return;
        }
        let takable = |lease: &&Candidate| {
            lease.owner.as_deref() == Some(victim) && (lease.can_be_requested || may_steal)
        };
        let Some(position) = leases.iter().position(takable) else {
            counts.remove(victim);
            continue;
        };
        let lease = leases.swap_remove(position);
        match lease.can_be_requested {
            true => decision.request.push(lease.key.clone()),
            false => {
                may_steal = false;
                decision.steal.push(lease.key.clone());
            }
        }
        counts.insert(victim, count - 1);
        *counts.entry(situation.me).or_default() += 1;
    }
}

#[cfg(test)]
mod tests;
