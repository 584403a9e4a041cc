//! Parent blocking: a shard begins when its parents are at shard end.

use std::sync::Arc;

use millstream_core::{Epoch, Result};

use super::LeaseCoordinator;
use crate::lease::key::LeaseKey;

impl LeaseCoordinator {
    /// Passes a lease to the application, if no parent blocks it. A scan may be a
    /// moment old, so the parents are read as they are now.
    pub(super) fn check_parents(&mut self, key: &Arc<str>) {
        let Some(blocked) = self.renewer.blocked_lease(key) else {
            return;
        };
        let epoch = blocked.epoch;
        if blocked.parents.is_empty() {
            return self.start(key, epoch);
        }
        let keys = self.keys_of(blocked.lease, blocked.parents);
        let (table, key) = (self.table.clone(), key.clone());
        self.run_concurrently(async move {
            let mut free: Result<bool> = Ok(true);
            for parent in keys {
                match table.get(&parent).await {
                    // A parent without a lease is at shard end, or will never be read.
                    Ok(row) => free = Ok(row.is_none_or(|row| row.is_ended())),
                    Err(error) => free = Err(error),
                }
                if !matches!(free, Ok(true)) {
                    break;
                }
            }
            move |coordinator: &mut Self| coordinator.checked_parents(&key, epoch, free)
        });
    }

    fn checked_parents(&mut self, key: &Arc<str>, epoch: Epoch, free: Result<bool>) {
        let blocked = self.renewer.blocked_lease(key);
        if blocked.is_none_or(|blocked| blocked.epoch != epoch) {
            return;
        }
        match free {
            Ok(true) => self.start(key, epoch),
            Ok(false) => {}
            // The next scan repeats the check.
            Err(error) => self.on_table_error(&error),
        }
    }

    /// Checks the waiting leases again whose parents seem to be at shard end.
    pub(super) fn check_all_parents(&mut self) {
        let may_start = self.renewer.blocked().filter(|blocked| {
            let parents = self.keys_of(blocked.lease, blocked.parents);
            let mut rows = parents.iter().filter_map(|key| self.view.get(key));
            rows.all(|seen| seen.row.is_ended())
        });
        let may_start: Vec<_> = may_start.map(|blocked| blocked.key.clone()).collect();
        for key in may_start {
            self.check_parents(&key);
        }
    }

    /// Returns the keys of other shards of a lease's stream.
    pub(super) fn keys_of(&self, lease: &LeaseKey, shards: &[Arc<str>]) -> Vec<Arc<str>> {
        let Some(stream) = self.streams.get(&lease.stream) else {
            return Vec::new();
        };
        shards.iter().map(|shard| stream.key(shard)).collect()
    }

    fn start(&mut self, key: &Arc<str>, epoch: Epoch) {
        let lease = self.streams.parse(key);
        let listed = lease.and_then(|lease| {
            let mut shards = self.shards.get(&lease.stream)?.iter();
            shards.find(|shard| shard.id == lease.shard)
        });
        // Only the member that created a child's lease has the child in a list, but each row contains its shard's
        // range.
        let listed = listed.map(|shard| shard.range);
        self.renewer.start(key, epoch, listed);
    }
}
