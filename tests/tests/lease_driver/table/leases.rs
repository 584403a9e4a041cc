//! The leases of a group: the owner of each partition, until when, and how far it is settled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_core::driver::{AssignedPartition, Subscription, plan_sticky};
use millstream_core::{Epoch, Error, ErrorKind, Partition, Position, Result};

use super::Stream;

/// A stream and the number of a partition.
type Key = (String, usize);

#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) members: BTreeMap<String, MemberRow>,
    /// They outlive their streams, so that epochs do not restart.
    leases: BTreeMap<Key, Lease>,
    /// The offsets to which the partitions of a stream are moved when all of them are released.
    pub(crate) resets: BTreeMap<String, Vec<u64>>,
}

#[derive(Debug)]
pub(crate) struct MemberRow {
    /// The id of each stream that it reads.
    pub(crate) streams: BTreeMap<String, Arc<str>>,
    pub(crate) expires: Instant,
    pub(crate) drain: Duration,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Lease {
    epoch: u64,
    owner: Option<String>,
    /// When its owner loses it, if another member is waiting for it.
    revoke_at: Option<Instant>,
    pub(crate) next_offset: Option<u64>,
    /// The epoch that has stored its progress.
    pub(crate) settled_by: Option<Epoch>,
}

fn partition((stream, number): &Key) -> Partition {
    Partition::new(stream.as_str(), number.to_string())
}

impl Lease {
    fn assign(&mut self, owner: String) {
        self.epoch += 1;
        (self.owner, self.revoke_at) = (Some(owner), None);
    }

    pub(crate) fn free(&mut self) {
        (self.owner, self.revoke_at) = (None, None);
    }

    pub(crate) fn resume_after(&self) -> Option<Position> {
        let last = self.next_offset?.checked_sub(1);
        last.map(Position::from)
    }

    pub(crate) fn settle(&mut self, position: Position, epoch: Epoch) {
        let next = position.offset().map(|offset| offset + 1);
        (self.next_offset, self.settled_by) = (self.next_offset.max(next), Some(epoch));
    }
}

impl Group {
    /// Returns the lease of a partition, if the member owns it in that epoch: the condition of each write.
    pub(crate) fn lease(
        &mut self,
        member: &str,
        of: &Partition,
        epoch: Epoch,
    ) -> Result<&mut Lease> {
        let key = (
            of.stream().to_owned(),
            of.id().parse().unwrap_or(usize::MAX),
        );
        let lease = self.leases.get_mut(&key);
        let is_owner =
            |lease: &&mut Lease| lease.epoch == epoch.0 && lease.owner.as_deref() == Some(member);
        lease.filter(is_owner).ok_or_else(|| {
            let message = "the lease has another owner or another epoch";
            Error::new(ErrorKind::Fenced, "write a lease", message).with_partition(of)
        })
    }

    /// Moves the group in a stream. Its partitions must have no owners.
    pub(crate) fn move_to(&mut self, stream: &str, offsets: &[u64]) {
        for (number, offset) in offsets.iter().enumerate() {
            let lease = self.leases.entry((stream.to_owned(), number)).or_default();
            (lease.next_offset, lease.settled_by) = (Some(*offset), None);
        }
    }

    pub(crate) fn leases(&self) -> impl Iterator<Item = (Partition, Lease)> {
        let leases = self.leases.iter();
        leases.map(|(key, lease)| (partition(key), lease.clone()))
    }

    pub(crate) fn reads(&self, stream: &str) -> bool {
        let mut leases = self.leases.iter();
        leases.any(|((name, _), lease)| name == stream && lease.next_offset.is_some())
    }

    pub(crate) fn stream_deleted(&mut self, stream: &str) {
        self.resets.remove(stream);
        for (_, lease) in self.leases.iter_mut().filter(|(key, _)| key.0 == stream) {
            lease.free();
            (lease.next_offset, lease.settled_by) = (None, None);
        }
    }

    /// Assigns a partition to another member, or to the same one in a new epoch. Returns whether it had
    /// an owner.
    pub(crate) fn steal(&mut self, stolen: &Partition) -> bool {
        let others: Vec<String> = self.members.keys().cloned().collect();
        let mut leases = self.leases.iter_mut();
        let found = leases.find(|(key, _)| partition(key) == *stolen);
        let Some((lease, owner)) = found.and_then(|(_, lease)| {
            let owner = lease.owner.take()?;
            Some((lease, owner))
        }) else {
            return false;
        };
        let other = others.into_iter().find(|other| *other != owner);
        lease.assign(other.unwrap_or(owner));
        true
    }

    /// Returns the assignments of a member.
    pub(crate) fn assigned(
        &self,
        member: &str,
        streams: &BTreeMap<String, Stream>,
        now: Instant,
    ) -> Vec<AssignedPartition> {
        let leases = self.leases.iter();
        let owned = leases.filter(|(_, lease)| lease.owner.as_deref() == Some(member));
        let assigned = owned.map(|(key, lease)| AssignedPartition {
            partition: partition(key),
            epoch: Epoch(lease.epoch),
            resume_after: lease.resume_after(),
            stream_id: streams.get(&key.0).map(|stream| stream.id.clone()),
            revoke_within: lease.revoke_at.map(|at| at.saturating_duration_since(now)),
        });
        assigned.collect()
    }

    /// Frees the partitions of members that are gone, and those that were not released in time; then assigns partitions
    /// as planned.
    pub(crate) fn rebalance(&mut self, streams: &BTreeMap<String, Stream>, now: Instant) {
        self.members.retain(|_, member| member.expires > now);
        for lease in self.leases.values_mut() {
            let is_gone = |owner: &String| !self.members.contains_key(owner);
            if lease.revoke_at.is_some_and(|at| at <= now) || lease.owner.iter().any(is_gone) {
                lease.free();
            }
        }
        let names: BTreeSet<&String> = self
            .members
            .values()
            .flat_map(|m| m.streams.keys())
            .collect();
        for name in names {
            for number in 0..streams.get(name).map_or(0, |stream| stream.logs.len()) {
                self.leases.entry((name.clone(), number)).or_default();
            }
        }
        self.advance_resets(now);
        let (mut owned, mut unowned) = (BTreeMap::new(), Vec::new());
        for (key, lease) in &self.leases {
            match &lease.owner {
                _ if self.resets.contains_key(&key.0) => {}
                Some(owner) if lease.revoke_at.is_none() => {
                    owned.insert(key.clone(), owner.clone());
                }
                _ => unowned.push(key.clone()),
            }
        }
        let subscriptions = self.members.iter().map(|(id, member)| Subscription {
            member: id.clone(),
            streams: member.streams.keys().cloned().collect(),
        });
        let subscriptions: Vec<_> = subscriptions.collect();
        for (key, member) in plan_sticky(&subscriptions, &owned, &unowned) {
            let lease = self.leases.entry(key).or_default();
            match &lease.owner {
                None => lease.assign(member),
                Some(owner) if *owner != member && lease.revoke_at.is_none() => {
                    lease.revoke_at = Some(now + self.members[owner].drain);
                }
                Some(_) => {}
            }
        }
    }

    /// Revokes the partitions of streams that are reset, and moves the group when all are free.
    fn advance_resets(&mut self, now: Instant) {
        for (stream, offsets) in std::mem::take(&mut self.resets) {
            let mut is_free = true;
            for (_, lease) in self.leases.iter_mut().filter(|(key, _)| key.0 == stream) {
                if let Some(owner) = &lease.owner {
                    is_free = false;
                    lease
                        .revoke_at
                        .get_or_insert(now + self.members[owner].drain);
                }
            }
            match is_free {
                true => self.move_to(&stream, &offsets),
                false => drop(self.resets.insert(stream, offsets)),
            }
        }
    }
}
