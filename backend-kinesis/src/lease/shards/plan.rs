//! Decides which leases to create, like the KCL, but from the list of all shards: services implement the
//! filters of ListShards differently.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream_core::Start;

use crate::stream::Shard;

/// A lease to be created, and its start. `Latest` is pinned at the creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) shard: Shard,
    pub(crate) begin: Start,
}

/// The leases of a stream: by shard, whether it is at shard end.
pub(crate) type Known = BTreeMap<Arc<str>, bool>;

/// Returns the initial leases of a group in a stream.
pub(crate) fn initial(shards: &[Shard], start: Start) -> Vec<Plan> {
    let listed: BTreeSet<&str> = shards.iter().map(|shard| &*shard.id).collect();
    let is_root = |shard: &&Shard| !shard.parents.iter().any(|id| listed.contains(&**id));
    let first = shards.iter().filter(|shard| match start {
        Start::Latest => shard.open,
        _ => is_root(shard),
    });
    let plans = first.map(|shard| (shard, start)).collect();
    in_order(plans)
}

/// Returns the leases without which some open shards would never be read: those of the nearest ancestors
/// that block them. Their own leases follow when the ancestors are read.
pub(crate) fn missing(shards: &[Shard], known: &Known, start: Start) -> Vec<Plan> {
    let mut walk = Walk {
        shards: shards.iter().map(|shard| (&*shard.id, shard)).collect(),
        known,
        start,
        visited: BTreeMap::new(),
        plans: BTreeMap::new(),
    };
    for shard in shards.iter().filter(|shard| shard.open) {
        if !known.contains_key(&shard.id) && !walk.descends(shard) {
            walk.plans.insert(&shard.id, start);
        }
    }
    let plans = walk
        .plans
        .iter()
        .map(|(id, begin)| (walk.shards[id], *begin));
    in_order(plans.collect())
}

/// Returns the descendants of a shard, in whatever order the shards are listed.
pub(crate) fn descendants_of<'a>(
    shard: &'a str,
    shards: &'a [Shard],
) -> impl Iterator<Item = &'a Shard> {
    let is_child = move |other: &&Shard| other.parents.iter().any(|id| &**id == shard);
    shards.iter().filter(is_child)
}

/// Sorts the oldest first, so that a worker that stops in the middle leaves no child without a parent.
fn in_order(mut plans: Vec<(&Shard, Start)>) -> Vec<Plan> {
    plans.sort_by(|(one, _), (other, _)| (one.starting, &one.id).cmp(&(other.starting, &other.id)));
    let plan = |(shard, begin): (&Shard, Start)| Plan {
        shard: shard.clone(),
        begin,
    };
    plans.into_iter().map(plan).collect()
}

struct Walk<'a> {
    shards: BTreeMap<&'a str, &'a Shard>,
    known: &'a Known,
    start: Start,
    /// By shard, whether it descends from a lease.
    visited: BTreeMap<&'a str, bool>,
    plans: BTreeMap<&'a str, Start>,
}

impl<'a> Walk<'a> {
    /// Returns whether a shard descends from one that has a lease or must be read from the beginning. Plans
    /// the leases of its ancestors that this requires.
    fn descends(&mut self, shard: &'a Shard) -> bool {
        if let Some(descends) = self.visited.get(&*shard.id) {
            return *descends;
        }
        let parents = shard.parents.iter();
        let parents: Vec<&Shard> = parents
            .filter_map(|id| self.shards.get(&**id).copied())
            .collect();
        let covered: Vec<bool> = parents.iter().map(|parent| self.covers(parent)).collect();
        let descends = covered.contains(&true);
        if descends {
            for (parent, covered) in parents.iter().zip(&covered) {
                let is_root = !self.visited.get(&*parent.id).copied().unwrap_or(true);
                if !covered || (is_root && self.reads_roots()) {
                    self.plans.insert(&parent.id, self.start);
                }
            }
            self.mend(shard, &parents);
        }
        self.visited.insert(&shard.id, descends);
        descends
    }

    /// Returns whether a child of this shard will be read after it.
    fn covers(&mut self, parent: &'a Shard) -> bool {
        self.known.contains_key(&parent.id) || self.descends(parent) || self.reads_roots()
    }

    fn reads_roots(&self) -> bool {
        self.start != Start::Latest
    }

    /// Adds the lease of a shard whose parents are at shard end. The KCL creates it before
    /// it stores the parent's end, so it was deleted since, by hand or by mistake.
    fn mend(&mut self, shard: &'a Shard, parents: &[&'a Shard]) {
        let ended = |parent: &&&Shard| self.known.get(&parent.id) == Some(&true);
        let waits = |parent: &&Shard| {
            self.known.get(&parent.id) == Some(&false) || self.plans.contains_key(&*parent.id)
        };
        if parents.iter().any(|parent| ended(&parent)) && !parents.iter().any(waits) {
            self.plans.insert(&shard.id, Start::Earliest);
        }
    }
}
