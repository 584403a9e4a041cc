//! The coordinator of one group: a state machine over a clock that is handed in.
//!
//! Nothing runs on its own. Whoever calls in says what time it is, the coordinator does what is
//! due, and each waiting member waits no longer than [`Group::deadline`]. So a run under tokio's
//! paused clock is the same each time.
//!
//! A partition has one owner at most. It changes hands by a drain: the owner is told, releases, and
//! the next one is assigned at once with a larger epoch. An owner that does not release in time, or
//! whose session runs out, is fenced: everything it says about the partition is refused, since it
//! is neither the owner nor has it the epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use millstream_core::failpoint;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::assignment::{self, Seat};
use crate::ids::{MemberId, PartitionId, Slot, StreamId};
use crate::member::{Mail, Member};
use crate::refusal::Refusal;
use crate::stream::{Catalog, Stream};

mod presence;
mod reset;

/// A group's progress in a partition, and who has it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// The offset of the first record that is not settled.
    pub(crate) next: u64,
    /// The epoch of the last checkpoint; unset while `next` is only where the group began.
    pub(crate) written: Option<u64>,
    pub(crate) completed: bool,
    pub(crate) epoch: u64,
    pub(crate) owner: Option<MemberId>,
    draining: bool,
    /// Who gets it when its owner has drained it.
    heir: Option<MemberId>,
}

/// Where a group begins in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Place {
    pub(crate) next: u64,
    /// Whether nothing is left there: it is closed and `next` is its end.
    pub(crate) completed: bool,
}

/// A group's progress in a stream.
#[derive(Debug, Default)]
struct Reading {
    progress: Vec<Progress>,
    /// Where the group shall go once everything is drained. Nothing is assigned until then.
    reset: Option<Vec<Place>>,
    resets_asked: u64,
    resets_done: u64,
    reset_failure: Option<Refusal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Drain(MemberId),
    Expire(MemberId, u64),
    Return(MemberId, u64),
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) members: BTreeMap<MemberId, Member>,
    /// Tells those who wait for a reset.
    pub(crate) reset_done: Arc<Notify>,
    readings: BTreeMap<StreamId, Reading>,
    timers: BTreeSet<(Instant, Timer)>,
    joined: MemberId,
    session_timeout: Duration,
    /// Below every epoch that this broker gives.
    epoch_floor: u64,
    /// Whether the assignment has to be planned anew.
    dirty: bool,
}

impl Group {
    pub(crate) fn new(session_timeout: Duration, epoch_floor: u64) -> Self {
        Self {
            members: BTreeMap::new(),
            reset_done: Arc::default(),
            readings: BTreeMap::new(),
            timers: BTreeSet::new(),
            joined: 0,
            session_timeout,
            epoch_floor,
            dirty: false,
        }
    }

    pub(crate) fn set_epoch_floor(&mut self, floor: u64) {
        self.epoch_floor = floor;
    }

    pub(crate) fn reads(&self, stream: StreamId) -> bool {
        self.readings.contains_key(&stream)
    }

    /// The streams that the group has progress on.
    pub(crate) fn streams(&self) -> impl Iterator<Item = StreamId> {
        self.readings.keys().copied()
    }

    /// The progress in a partition. One that appeared after the group began is read from its
    /// beginning.
    pub(crate) fn progress(&self, slot: Slot) -> Progress {
        let reading = self.readings.get(&slot.0);
        let progress = reading.and_then(|reading| reading.progress.get(slot.1 as usize));
        progress.cloned().unwrap_or_default()
    }

    fn progress_mut(&mut self, slot: Slot) -> Option<&mut Progress> {
        let progress = &mut self.readings.get_mut(&slot.0)?.progress;
        let index = slot.1 as usize;
        if progress.len() <= index {
            progress.resize_with(index + 1, Progress::default);
        }
        progress.get_mut(index)
    }

    /// Stores where the group is in a stream; nobody owns a partition of it.
    pub(crate) fn place(&mut self, stream: StreamId, places: &[Place]) {
        let reading = self.readings.entry(stream).or_default();
        let count = reading.progress.len().max(places.len());
        reading.progress.resize_with(count, Progress::default);
        let beginning = Place {
            next: 0,
            completed: false,
        };
        let places = places.iter().copied().chain(std::iter::repeat(beginning));
        for (progress, place) in reading.progress.iter_mut().zip(places) {
            progress.next = place.next;
            progress.completed = place.completed;
            progress.written = None;
        }
        self.dirty = true;
    }

    /// Seats a new member.
    pub(crate) fn join(&mut self, member: Member) -> MemberId {
        self.joined += 1;
        self.members.insert(self.joined, member);
        self.dirty = true;
        self.joined
    }

    pub(crate) fn leave(&mut self, member: MemberId) {
        self.free_all(member);
        self.members.remove(&member);
    }

    /// Answers a drain: hands the partition to its heir.
    pub(crate) fn release(
        &mut self,
        member: MemberId,
        slot: Slot,
        epoch: u64,
    ) -> Result<(), Refusal> {
        self.check(member, slot, epoch)?;
        let heir = self.progress(slot).heir;
        self.free(slot);
        if let Some(holder) = self.members.get_mut(&member) {
            holder.held.remove(&slot);
        }
        let resetting = self
            .readings
            .get(&slot.0)
            .is_some_and(|reading| reading.reset.is_some());
        let heir = heir.filter(|heir| !resetting && self.can_own(*heir));
        match heir {
            Some(heir) => self.assign(slot, heir),
            None => self.dirty = true,
        }
        Ok(())
    }

    /// Whether `member` owns the partition in this epoch: the fence.
    pub(crate) fn check(&self, member: MemberId, slot: Slot, epoch: u64) -> Result<(), Refusal> {
        let progress = self.progress(slot);
        match progress.owner == Some(member) && progress.epoch == epoch {
            true => Ok(()),
            false => Err(Refusal::Fenced),
        }
    }

    /// Stores a checkpoint that was checked. It moves forward only: going back is what a reset is
    /// for.
    pub(crate) fn checkpoint(&mut self, slot: Slot, epoch: u64, next: u64) {
        if let Some(progress) = self.progress_mut(slot) {
            progress.next = progress.next.max(next);
            progress.written = Some(epoch);
        }
    }

    /// Stores that a closed partition is settled to its end, so that its children may begin.
    pub(crate) fn complete(&mut self, slot: Slot, end: u64) {
        let Some(progress) = self.progress_mut(slot) else {
            return;
        };
        progress.next = end;
        progress.completed = true;
        let owner = progress.owner;
        self.free(slot);
        self.dirty = true;
        if let Some(member) = owner.and_then(|owner| self.members.get_mut(&owner)) {
            member.held.remove(&slot);
        }
    }

    /// Plans again, because partitions have come or have ended.
    pub(crate) fn stream_changed(&mut self, stream: StreamId) {
        self.dirty |= self.readings.contains_key(&stream);
    }

    /// Drops everything about a stream that is deleted. Members that read it end.
    pub(crate) fn forget(&mut self, stream: StreamId, name: &Arc<str>) {
        self.readings.remove(&stream);
        for member in self.members.values_mut() {
            if member.streams.contains(&stream) {
                member.held.retain(|slot, _| slot.0 != stream);
                member.deleted = Some(name.clone());
                member.wake.notify_one();
            }
        }
        self.reset_done.notify_waiters();
        self.dirty = true;
    }

    /// Takes a partition from its owner without a drain, for another member if there is one that
    /// can have it.
    pub(crate) fn steal(&mut self, slot: Slot) -> Result<(), Refusal> {
        let owner = self.progress(slot).owner.ok_or(Refusal::UnknownPartition)?;
        self.lose(slot);
        let thief = self
            .members
            .iter()
            .filter(|(id, member)| {
                !member.expired && member.streams.contains(&slot.0) && **id != owner
            })
            .min_by_key(|(id, member)| (member.held.len(), **id))
            .map_or(owner, |(id, _)| *id);
        let resetting = self
            .readings
            .get(&slot.0)
            .is_some_and(|reading| reading.reset.is_some());
        if !resetting && self.can_own(thief) {
            self.assign(slot, thief);
        }
        Ok(())
    }

    /// When something is due next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whether something is to be done now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.dirty || self.deadline().is_some_and(|at| at <= now)
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some(&(at, timer)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Drain(member) => self.fence(member, now),
                Timer::Expire(member, absence) => self.expire(member, absence),
                Timer::Return(member, absence) => self.come_back(member, absence, now),
            }
        }
    }

    fn fence(&mut self, member: MemberId, now: Instant) {
        let Some(found) = self.members.get(&member) else {
            return;
        };
        let late = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        let mut late: Vec<Slot> = found
            .held
            .iter()
            .filter(|(_, held)| late(held.drain_until))
            .map(|(slot, _)| *slot)
            .collect();
        late.sort_unstable();
        for slot in late {
            self.lose(slot);
        }
    }

    /// Takes everything from a member without a drain.
    fn free_all(&mut self, member: MemberId) {
        let held = self
            .members
            .get(&member)
            .map(|found| found.held.keys().copied().collect());
        let mut held: Vec<Slot> = held.unwrap_or_default();
        held.sort_unstable();
        for slot in held {
            self.lose(slot);
        }
        self.dirty = true;
    }

    /// Takes a partition from its owner, which is fenced by that.
    fn lose(&mut self, slot: Slot) {
        let owner = self.progress(slot).owner;
        if let Some(member) = owner.and_then(|owner| self.members.get_mut(&owner)) {
            member.take(slot);
        }
        self.free(slot);
        self.dirty = true;
    }

    fn free(&mut self, slot: Slot) {
        if let Some(progress) = self.progress_mut(slot) {
            progress.owner = None;
            progress.draining = false;
            progress.heir = None;
        }
    }

    fn can_own(&self, member: MemberId) -> bool {
        self.members
            .get(&member)
            .is_some_and(|found| !found.expired)
    }

    fn assign(&mut self, slot: Slot, member: MemberId) {
        let floor = self.epoch_floor;
        let Some(progress) = self.progress_mut(slot) else {
            return;
        };
        progress.epoch = progress.epoch.max(floor) + 1;
        progress.owner = Some(member);
        progress.draining = false;
        progress.heir = None;
        let (epoch, next) = (progress.epoch, progress.next);
        if let Some(found) = self.members.get_mut(&member) {
            found.give(slot, epoch, next);
        }
    }

    /// Asks owners to drain. Who was not told of the assignment yet gives it back at once.
    fn revoke(&mut self, slots: Vec<(Slot, MemberId)>, now: Instant) {
        if slots.is_empty() {
            return;
        }
        let mut letters: BTreeMap<MemberId, Vec<(Slot, u64)>> = BTreeMap::new();
        for (slot, owner) in slots {
            let told = self
                .members
                .get(&owner)
                .and_then(|member| member.held.get(&slot))
                .is_some_and(|held| held.told);
            if !told {
                self.lose(slot);
                continue;
            }
            if let Some(progress) = self.progress_mut(slot) {
                progress.draining = true;
                let epoch = progress.epoch;
                letters.entry(owner).or_default().push((slot, epoch));
            }
        }
        for (owner, slots) in letters {
            let Some(member) = self.members.get_mut(&owner) else {
                continue;
            };
            let until = after(now, member.drain);
            for (slot, _) in &slots {
                if let Some(held) = member.held.get_mut(slot) {
                    held.drain_until = Some(until);
                }
            }
            member.mail.push_back(Mail::Revoking(slots, until));
            member.wake.notify_one();
            self.timers.insert((until, Timer::Drain(owner)));
        }
        self.wake_all();
    }

    /// Wakes everybody, since the next deadline may be nearer now than the one that they wait for.
    pub(crate) fn wake_all(&self) {
        for member in self.members.values() {
            member.wake.notify_one();
        }
        self.reset_done.notify_waiters();
    }

    /// Plans who shall own what and begins to bring it about, if something has changed. Answers
    /// whether it had.
    pub(crate) fn rebalance(&mut self, catalog: &Catalog, now: Instant) -> bool {
        if !std::mem::take(&mut self.dirty) {
            return false;
        }
        let seats: Vec<Seat> = self
            .members
            .iter()
            .filter(|(_, member)| !member.expired)
            .map(|(id, member)| Seat {
                member: *id,
                streams: member.streams.clone(),
            })
            .collect();
        let (mut held, mut pool) = (BTreeMap::new(), Vec::new());
        for (stream_id, reading) in &mut self.readings {
            let Some(stream) = catalog.get(*stream_id).filter(|_| reading.reset.is_none()) else {
                continue;
            };
            let progress = &mut reading.progress;
            progress.resize_with(
                stream.partitions.len().max(progress.len()),
                Progress::default,
            );
            for id in 0..stream.partitions.len() as PartitionId {
                let here = &progress[id as usize];
                match here.owner {
                    Some(owner) if !here.draining => {
                        held.insert((*stream_id, id), owner);
                    }
                    Some(_) => pool.push((*stream_id, id)),
                    None if may_begin(stream, progress, id) => pool.push((*stream_id, id)),
                    None => {}
                }
            }
        }
        let planned = assignment::plan(&seats, &held, &pool);
        let mut moving = Vec::new();
        for (slot, member) in &planned {
            match held.get(slot) {
                Some(owner) if owner == member => {}
                Some(owner) => moving.push((*slot, *owner)),
                None if self.progress(*slot).owner.is_none() => self.assign(*slot, *member),
                None => {}
            }
        }
        self.revoke(moving, now);
        for slot in planned.keys().chain(&pool) {
            let heir = planned.get(slot).copied();
            if let Some(progress) = self.progress_mut(*slot) {
                progress.heir = heir.filter(|_| progress.draining);
            }
        }
        true
    }
}

/// Whether a partition without an owner can be assigned: parents are settled to their end before
/// children begin.
fn may_begin(stream: &Stream, progress: &[Progress], id: PartitionId) -> bool {
    let settled = |parent: &PartitionId| progress[*parent as usize].completed;
    let parents = &stream.partitions[id as usize].parents;
    !progress[id as usize].completed
        && (parents.iter().all(settled) || failpoint!(ChildBeforeParent))
}

/// A time that is far enough when the true one cannot be counted.
pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    now + wait.min(FAR)
}
