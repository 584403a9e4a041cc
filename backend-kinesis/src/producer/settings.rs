//! What all records of a producer share.

use std::collections::HashMap;

use tokio::time::Instant;

use super::rate_limiter::RateLimiter;
use super::shard_map::ShardMap;
use crate::config;

/// The settings of a producer's requests.
#[derive(Debug, Clone)]
pub(super) struct ProducerSettings {
    pub(super) config: config::Producer,
    /// The maximum record size of the stream.
    pub(super) record_bytes: usize,
    /// The common start of the ticks of all rate limiters.
    pub(super) epoch: Instant,
}

impl ProducerSettings {
    /// Returns the limiter of a shard that was idle.
    pub(super) fn limiter(&self, now: Instant) -> RateLimiter {
        RateLimiter::new(self.config.rate, self.epoch, now)
    }

    /// Returns the limiters for the shards of a new map. Shards that remain keep theirs; `known` are the limiters of
    /// the old map.
    pub(super) fn limiters(
        &self,
        old: &ShardMap,
        known: impl Iterator<Item = RateLimiter>,
        new: &ShardMap,
        now: Instant,
    ) -> Vec<RateLimiter> {
        let old = old.open_shards().iter().map(|shard| &shard.partition);
        let mut known: HashMap<_, _> = old.zip(known).collect();
        let new = new.open_shards().iter().map(|shard| &shard.partition);
        new.map(|partition| known.remove(partition).unwrap_or_else(|| self.limiter(now)))
            .collect()
    }
}
