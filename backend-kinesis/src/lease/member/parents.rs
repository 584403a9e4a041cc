//! Parent blocking: a shard begins when its parents are at shard end.

use std::sync::Arc;

use millstream_core::{Epoch, Result};
use tokio::time::Instant;

use super::Member;
use super::renewer::held::Stage;
use crate::lease::key::LeaseKey;
use crate::lease::options::{LeaseEvent, ResumePoint};

impl Member {
    /// Passes a lease to the application, if no parent blocks it. A scan may be a
    /// moment old, so the parents are read as they are now.
    pub(super) fn check_parents(&mut self, key: &Arc<str>) {
        let Some(held) = self
            .held
            .get(key)
            .filter(|held| held.stage == Stage::Waiting)
        else {
            return;
        };
        if held.row.parents.is_empty() {
            return self.begin(key);
        }
        let keys = self.keys_of(&held.lease, &held.row.parents);
        let (table, key, epoch) = (self.table.clone(), key.clone(), held.epoch);
        self.fly(async move {
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
            move |member: &mut Self| member.checked_parents(&key, epoch, free)
        });
    }

    fn checked_parents(&mut self, key: &Arc<str>, epoch: Epoch, free: Result<bool>) {
        let waits = |stage| stage == Stage::Waiting;
        let held = self.held.get(key);
        if !held.is_some_and(|held| held.epoch == epoch && waits(held.stage)) {
            return;
        }
        match free {
            Ok(true) => self.begin(key),
            Ok(false) => {}
            // The next scan repeats the check.
            Err(error) => self.on_table_error(&error),
        }
    }

    /// Checks the waiting leases again whose parents seem to be at shard end.
    pub(super) fn look_at_parents(&mut self) {
        let waiting = self.held.iter().filter(|(_, held)| {
            held.stage == Stage::Waiting
                && !self
                    .keys_of(&held.lease, &held.row.parents)
                    .iter()
                    .any(|key| self.view.get(key).is_some_and(|seen| !seen.row.is_ended()))
        });
        let waiting: Vec<_> = waiting.map(|(key, _)| key.clone()).collect();
        for key in waiting {
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

    fn begin(&mut self, key: &Arc<str>) {
        let start = self.options.start;
        let Some(held) = self.held.get_mut(key) else {
            return;
        };
        held.stage = Stage::Told;
        let Some(from) = ResumePoint::of(&held.row, start) else {
            held.stage = Stage::Ended;
            return;
        };
        let (lease, tip) = (held.lease.clone(), held.row.tip());
        let resolved = held.row.own.resolved;
        let listed = self.shards.get(&lease.stream).into_iter().flatten();
        let listed = listed.into_iter().find(|shard| shard.id == lease.shard);
        // Only the member that created a child's lease has the child in a list, but each row contains its shard's
        // range.
        let range = held.row.range.or(listed.map(|shard| shard.range));
        let event = LeaseEvent::Taken {
            epoch: held.epoch,
            from,
            tip,
            resolved,
            range,
            lease,
        };
        self.emit(event);
        self.consider_heir(key, Instant::now());
    }
}
