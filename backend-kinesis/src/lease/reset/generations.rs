//! The order in which leases are moved.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::stream::Shard;

/// Sorts shards by generation: parents come before their children. A shard whose parents are not listed has none.
pub(super) fn generations(mut shards: Vec<Shard>) -> Vec<Vec<Shard>> {
    let mut generations = Vec::new();
    while !shards.is_empty() {
        let left: BTreeSet<Arc<str>> = shards.iter().map(|shard| shard.id.clone()).collect();
        let is_child = |shard: &Shard| shard.parents.iter().any(|id| left.contains(id));
        let (children, generation): (Vec<_>, Vec<_>) = shards.into_iter().partition(is_child);
        if generation.is_empty() {
            // Shards that are each other's ancestors do not exist. If they did, they would block each other anyway.
            generations.push(children);
            return generations;
        }
        generations.push(generation);
        shards = children;
    }
    generations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::source::ShardSource;
    use crate::lease::testing::source::{MemorySource, id};

    #[tokio::test]
    async fn parents_come_before_their_children_whatever_the_order_of_the_list() {
        let source = MemorySource::default();
        source.create("s", 3);
        source.split("s", 0);
        source.merge("s", 4, 1);
        source.merge("s", 5, 2);
        source.trim("s", 0);
        let mut shards = source.shards("s").await.unwrap();
        shards.reverse();
        let ids = |shards: Vec<Shard>| {
            let mut ids: Vec<_> = shards.into_iter().map(|shard| shard.id).collect();
            ids.sort();
            ids
        };
        let generations: Vec<_> = generations(shards).into_iter().map(ids).collect();
        let expected = [vec![id(1), id(2), id(3), id(4)], vec![id(5)], vec![id(6)]];
        assert_eq!(generations, expected, "generations of the shards");
        assert!(super::generations(Vec::new()).is_empty(), "no shards");
    }
}
