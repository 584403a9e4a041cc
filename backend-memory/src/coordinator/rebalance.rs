//! Moves partitions between members: the sticky plan, drains, and revocations without a drain.

use std::collections::BTreeMap;

use millstream_core::driver::{Subscription, plan_sticky};
use millstream_core::failpoint;
use tokio::time::Instant;

use super::member::MemberEvent;
use super::progress::PartitionProgress;
use super::timers::Timer;
use super::{GroupCoordinator, after};
use crate::error::BrokerError;
use crate::ids::{MemberId, PartitionId, PartitionRef, StreamId};
use crate::stream::{Catalog, Stream};

impl GroupCoordinator {
    /// Plans the owner of each partition and starts the moves, if something has changed. Returns
    /// whether something has.
    pub(crate) fn rebalance(&mut self, catalog: &Catalog, now: Instant) -> bool {
        if !std::mem::take(&mut self.needs_rebalance) {
            return false;
        }
        let subscriptions: Vec<Subscription<MemberId, StreamId>> = self
            .members
            .iter()
            .filter(|(_, member)| !member.expired)
            .map(|(id, member)| Subscription {
                member: *id,
                streams: member.streams.clone(),
            })
            .collect();
        let (mut owned, mut pool) = (BTreeMap::new(), Vec::new());
        for (stream_id, group) in &mut self.streams {
            let Some(stream) = catalog
                .get(*stream_id)
                .filter(|_| group.pending_reset.is_none())
            else {
                continue;
            };
            let partitions = &mut group.partitions;
            let count = stream.partitions.len().max(partitions.len());
            partitions.resize_with(count, PartitionProgress::default);
            for id in 0..stream.partitions.len() as PartitionId {
                let progress = &partitions[id as usize];
                match progress.owner {
                    Some(owner) if !progress.draining => {
                        owned.insert((*stream_id, id), owner);
                    }
                    Some(_) => pool.push((*stream_id, id)),
                    None if is_assignable(stream, partitions, id) => pool.push((*stream_id, id)),
                    None => {}
                }
            }
        }
        let planned = plan_sticky(&subscriptions, &owned, &pool);
        let mut moving = Vec::new();
        for (partition, member) in &planned {
            match owned.get(partition) {
                Some(owner) if owner == member => {}
                Some(owner) => moving.push((*partition, *owner)),
                None if self.progress(*partition).owner.is_none() => {
                    self.assign(*partition, *member)
                }
                None => {}
            }
        }
        self.drain(moving, now);
        for partition in planned.keys().chain(&pool) {
            let next_owner = planned.get(partition).copied();
            if let Some(progress) = self.progress_mut(*partition) {
                progress.next_owner = next_owner.filter(|_| progress.draining);
            }
        }
        true
    }

    /// Ends a drain: passes the partition to its next owner.
    pub(crate) fn release(
        &mut self,
        member: MemberId,
        partition: PartitionRef,
        epoch: u64,
    ) -> Result<(), BrokerError> {
        self.check_owner(member, partition, epoch)?;
        let next_owner = self.progress(partition).next_owner;
        self.clear_owner(partition);
        if let Some(owner) = self.members.get_mut(&member) {
            owner.remove(partition);
        }
        let resetting = self.is_resetting(partition.0);
        match next_owner.filter(|next| !resetting && self.can_own(*next)) {
            Some(next_owner) => self.assign(partition, next_owner),
            None => self.needs_rebalance = true,
        }
        Ok(())
    }

    /// Asks owners to release partitions. A partition whose assignment was not announced yet is
    /// revoked at once.
    pub(super) fn drain(&mut self, partitions: Vec<(PartitionRef, MemberId)>, now: Instant) {
        if partitions.is_empty() {
            return;
        }
        let mut revocations: BTreeMap<MemberId, Vec<(PartitionRef, u64)>> = BTreeMap::new();
        for (partition, owner) in partitions {
            let announced = self
                .members
                .get(&owner)
                .and_then(|member| member.owned.get(&partition))
                .is_some_and(|owned| owned.announced);
            if !announced {
                self.revoke_now(partition);
                continue;
            }
            if let Some(progress) = self.progress_mut(partition) {
                progress.draining = true;
                let epoch = progress.epoch;
                revocations
                    .entry(owner)
                    .or_default()
                    .push((partition, epoch));
            }
        }
        for (owner, partitions) in revocations {
            let Some(member) = self.members.get_mut(&owner) else {
                continue;
            };
            let until = after(now, member.drain_timeout);
            for (partition, _) in &partitions {
                if let Some(owned) = member.owned.get_mut(partition) {
                    owned.drain_until = Some(until);
                }
            }
            let event = MemberEvent::Revoking(partitions, until);
            member.events.push_back(event);
            member.wake.notify_one();
            self.timers.insert((until, Timer::Drain(owner)));
        }
        self.wake_all();
    }

    /// Revokes the partitions that a member did not release in time.
    pub(super) fn revoke_undrained(&mut self, member: MemberId, now: Instant) {
        let Some(found) = self.members.get(&member) else {
            return;
        };
        let is_late = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        let mut late: Vec<PartitionRef> = found
            .owned
            .iter()
            .filter(|(_, owned)| is_late(owned.drain_until))
            .map(|(partition, _)| *partition)
            .collect();
        late.sort_unstable();
        for partition in late {
            self.revoke_now(partition);
        }
    }

    /// Revokes everything from a member without a drain.
    pub(super) fn revoke_all_now(&mut self, member: MemberId) {
        let owned = self
            .members
            .get(&member)
            .map(|found| found.owned.keys().copied().collect());
        let mut owned: Vec<PartitionRef> = owned.unwrap_or_default();
        owned.sort_unstable();
        for partition in owned {
            self.revoke_now(partition);
        }
        self.needs_rebalance = true;
    }

    /// Moves a partition from its owner without a drain, to another member if one can own it.
    pub(crate) fn steal(&mut self, partition: PartitionRef) -> Result<(), BrokerError> {
        let progress = self.progress(partition);
        let owner = progress.owner.ok_or(BrokerError::UnknownPartition)?;
        self.revoke_now(partition);
        let new_owner = self
            .members
            .iter()
            .filter(|(id, member)| {
                !member.expired && member.streams.contains(&partition.0) && **id != owner
            })
            .min_by_key(|(id, member)| (member.owned.len(), **id))
            .map_or(owner, |(id, _)| *id);
        if !self.is_resetting(partition.0) && self.can_own(new_owner) {
            self.assign(partition, new_owner);
        }
        Ok(())
    }

    /// Revokes a partition without a drain, which fences its owner.
    fn revoke_now(&mut self, partition: PartitionRef) {
        let owner = self.progress(partition).owner;
        if let Some(member) = owner.and_then(|owner| self.members.get_mut(&owner)) {
            member.revoke(partition);
        }
        self.clear_owner(partition);
        self.needs_rebalance = true;
    }

    pub(super) fn clear_owner(&mut self, partition: PartitionRef) {
        if let Some(progress) = self.progress_mut(partition) {
            progress.owner = None;
            progress.draining = false;
            progress.next_owner = None;
        }
    }

    fn can_own(&self, member: MemberId) -> bool {
        self.members
            .get(&member)
            .is_some_and(|found| !found.expired)
    }

    fn is_resetting(&self, stream: StreamId) -> bool {
        let progress = self.streams.get(&stream);
        progress.is_some_and(|progress| progress.pending_reset.is_some())
    }

    fn assign(&mut self, partition: PartitionRef, member: MemberId) {
        let floor = self.epoch_floor;
        let Some(progress) = self.progress_mut(partition) else {
            return;
        };
        progress.epoch = progress.epoch.max(floor) + 1;
        progress.owner = Some(member);
        progress.draining = false;
        progress.next_owner = None;
        let (epoch, next_offset) = (progress.epoch, progress.next_offset);
        if let Some(found) = self.members.get_mut(&member) {
            found.assign(partition, epoch, next_offset);
        }
    }
}

/// Returns whether a partition without an owner can be assigned: parents must be settled to their
/// end before their children are read.
fn is_assignable(stream: &Stream, partitions: &[PartitionProgress], id: PartitionId) -> bool {
    let completed = |parent: &PartitionId| partitions[*parent as usize].completed;
    let parents = &stream.partitions[id as usize].parents;
    !partitions[id as usize].completed
        && (parents.iter().all(completed) || failpoint!(ChildBeforeParent))
}
