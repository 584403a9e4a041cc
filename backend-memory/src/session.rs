//! What a member asks of the broker, under the lock.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::driver::{CheckpointUpdate, Event, JoinOptions};
use millstream_core::failpoint;
use millstream_core::{Epoch, Lag, Partition, Position};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::broker::State;
use crate::ids::{GroupId, MemberId, Slot};
use crate::journal::{Change, Marked};
use crate::log::Log;
use crate::member::{Mail, Member, Presence};
use crate::refusal::Refusal;

/// Most bytes that one call of `next` brings, unless a single record is larger.
const BATCH_BYTES: u64 = 1 << 20;

/// What a call of `next` may still bring.
struct Room {
    records: usize,
    bytes: u64,
}

/// What [`State::next`] found.
pub(crate) enum Next {
    Events(Vec<Event>),
    Nothing { until: Option<Instant> },
}

impl State {
    /// Seats a member; the first one makes the group and pins where it begins.
    #[allow(clippy::type_complexity, reason = "named nowhere else")]
    pub(crate) fn join(
        &mut self,
        name: &Arc<str>,
        join: &JoinOptions,
        now: Instant,
    ) -> Result<(GroupId, MemberId, Arc<Notify>), (Option<Arc<str>>, Refusal)> {
        let mut streams = Vec::with_capacity(join.streams.len());
        for stream in &join.streams {
            let id = self.open_stream(stream);
            streams.push(id.map_err(|refusal| (Some(stream.clone()), refusal))?);
        }
        let group = match self.group_id(name) {
            Ok(group) => group,
            Err(_) => {
                let name = name.to_string();
                self.commit(Change::Group { name })
                    .map_err(|refusal| (None, refusal))?;
                self.groups.len() - 1
            }
        };
        for stream in &streams {
            if !self.groups[group].reads(*stream) {
                let places = self.places(*stream, join.start, now);
                let pin = Change::RecordMetadata {
                    group,
                    stream: *stream,
                    places,
                };
                self.commit(pin).map_err(|refusal| (None, refusal))?;
            }
        }
        self.joined += 1;
        let wake = Arc::new(Notify::new());
        let member = Member {
            name: join.member.as_deref().map(Into::into),
            ordinal: self.joined,
            streams: streams.into_iter().collect(),
            batch_records: join.batch_records.max(1),
            drain: join.drain,
            held: Default::default(),
            mail: Default::default(),
            ready: Default::default(),
            wake: wake.clone(),
            presence: Presence::Here,
            absence: 0,
            expired: false,
            attached: true,
            deleted: None,
        };
        Ok((group, self.groups[group].join(member), wake))
    }

    pub(crate) fn next(
        &mut self,
        group: GroupId,
        member: MemberId,
        now: Instant,
    ) -> Result<Next, Refusal> {
        let found = self.member(group, member)?;
        if found.deleted.is_some() {
            return Err(Refusal::StreamDeleted);
        }
        let mut events = Vec::new();
        while let Some(mail) = self.member(group, member)?.mail.pop_front() {
            events.extend(self.open_mail(group, member, mail, now)?);
        }
        let mut room = Room {
            records: self.member(group, member)?.batch_records,
            bytes: BATCH_BYTES,
        };
        while room.records > 0 && room.bytes > 0 {
            let Some(slot) = self.member(group, member)?.ready.pop_front() else {
                break;
            };
            events.extend(self.read(group, member, slot, &mut room, now)?);
        }
        if !events.is_empty() {
            return Ok(Next::Events(events));
        }
        let until = self.deadline(group);
        Ok(Next::Nothing { until })
    }

    fn member(&mut self, group: GroupId, member: MemberId) -> Result<&mut Member, Refusal> {
        let found = self.groups[group].members.get_mut(&member);
        found.ok_or(Refusal::MemberGone)
    }

    /// Turns mail into an event, unless it is out of date.
    fn open_mail(
        &mut self,
        group: GroupId,
        member: MemberId,
        mail: Mail,
        now: Instant,
    ) -> Result<Option<Event>, Refusal> {
        match mail {
            Mail::Assigned(slot, epoch) => {
                let Some(partition) = self.partition_name(slot) else {
                    return Ok(None);
                };
                let member = self.member(group, member)?;
                let held = member
                    .held
                    .get_mut(&slot)
                    .filter(|held| held.epoch == epoch);
                let Some(held) = held else {
                    return Ok(None);
                };
                held.told = true;
                let next = held.next;
                member.queue(slot);
                Ok(Some(Event::Assigned {
                    partition,
                    epoch: Epoch(epoch),
                    resume_after: next.checked_sub(1).map(Position::from),
                }))
            }
            Mail::Revoking(slots, until) => {
                let member = self.member(group, member)?;
                let still = |(slot, epoch): &(Slot, u64)| {
                    member
                        .held
                        .get(slot)
                        .is_some_and(|held| held.epoch == *epoch)
                };
                let slots = slots.into_iter().filter(still).collect();
                let partitions = self.names_of(slots);
                Ok((!partitions.is_empty()).then(|| Event::Revoking {
                    partitions,
                    within: until.saturating_duration_since(now),
                }))
            }
            Mail::Lost(slots) => {
                let partitions = self.names_of(slots);
                Ok((!partitions.is_empty()).then_some(Event::Lost { partitions }))
            }
        }
    }

    /// Reads what comes next in a partition; nothing if the member has to wait there.
    fn read(
        &mut self,
        group: GroupId,
        id: MemberId,
        slot: Slot,
        room: &mut Room,
        now: Instant,
    ) -> Result<Option<Event>, Refusal> {
        let millis = self.clock.millis(now);
        let keep = self.keep;
        let Self {
            groups, catalog, ..
        } = self;
        let Some(member) = groups[group].members.get_mut(&id) else {
            return Err(Refusal::MemberGone);
        };
        let (Some(held), Some(partition)) =
            (member.held.get_mut(&slot), catalog.partition_mut(slot))
        else {
            return Ok(None);
        };
        if !std::mem::take(&mut held.queued) || held.paused || held.drain_until.is_some() {
            return Ok(None);
        }
        let log = &mut partition.log;
        log.trim(keep, millis);
        let name = partition.name.clone();
        let epoch = Epoch(held.epoch);
        let event = if held.next < log.start() {
            let after = held.next.checked_sub(1).map(Position::from);
            held.next = log.start();
            Event::DataLoss {
                partition: name,
                epoch,
                after,
                earliest: Position::from(log.start()),
            }
        } else if held.next < log.end() {
            let (records, bytes) = log.read(held.next, room.records, room.bytes);
            room.records -= records.len();
            room.bytes = room.bytes.saturating_sub(bytes);
            held.next += records.len() as u64;
            Event::Records {
                partition: name,
                epoch,
                records,
                lag: lag(log, held.next, millis),
            }
        } else if !partition.open && !held.ended {
            held.ended = true;
            return Ok(Some(Event::Ended {
                partition: name,
                epoch,
            }));
        } else {
            if !held.ended {
                partition.wait(group, id);
            }
            return Ok(None);
        };
        // To the end of the queue, so that a full partition does not starve the others.
        held.queued = true;
        member.ready.push_back(slot);
        Ok(Some(event))
    }

    pub(crate) fn checkpoint(
        &mut self,
        group: GroupId,
        member: MemberId,
        marks: &[CheckpointUpdate],
    ) -> Vec<Result<(), Refusal>> {
        let mut answers = Vec::with_capacity(marks.len());
        let mut changes = Vec::with_capacity(marks.len());
        for mark in marks {
            let fault = self.faults.count_checkpoint();
            let checked = self.check_mark(group, member, mark);
            answers.push(match (checked, fault) {
                (Err(refusal), _) => Err(refusal),
                (Ok(_), Some(fault)) if !fault.stored => Err(Refusal::CheckpointLost),
                (Ok(change), fault) => {
                    changes.push(change);
                    fault.map_or(Ok(()), |_| Err(Refusal::CheckpointLost))
                }
            });
        }
        if changes.is_empty() {
            return answers;
        }
        let change = Change::Checkpointed {
            group,
            marks: changes,
        };
        if let Err(refusal) = self.commit(change) {
            for answer in answers.iter_mut().filter(|answer| answer.is_ok()) {
                *answer = Err(refusal.clone());
            }
        }
        answers
    }

    /// Answers what a mark stores, if it may.
    pub(crate) fn check_mark(
        &self,
        group: GroupId,
        member: MemberId,
        mark: &CheckpointUpdate,
    ) -> Result<Marked, Refusal> {
        let slot = self.catalog.slot(&mark.partition)?;
        match self.groups[group].check(member, slot, mark.epoch.0) {
            Err(_) if failpoint!(FenceIgnored) => {}
            checked => checked?,
        }
        let end = self
            .catalog
            .partition(slot)
            .map_or(0, |found| found.log.end());
        let offset = mark.position.offset().filter(|_| mark.position.sub() == 0);
        let offset = offset.filter(|offset| *offset < end);
        let next = offset.ok_or(Refusal::ForeignPosition)? + 1;
        Ok((slot, mark.epoch.0, next))
    }

    pub(crate) fn complete(
        &mut self,
        group: GroupId,
        member: MemberId,
        partition: &Partition,
        epoch: Epoch,
    ) -> Result<(), Refusal> {
        let slot = self.catalog.slot(partition)?;
        self.groups[group].check(member, slot, epoch.0)?;
        let held = self.member(group, member)?.held.get(&slot);
        if !held.is_some_and(|held| held.ended) {
            return Err(Refusal::NotEnded);
        }
        let end = self
            .catalog
            .partition(slot)
            .map_or(0, |found| found.log.end());
        self.commit(Change::Completed { group, slot, end })
    }

    fn partition_name(&self, slot: Slot) -> Option<Partition> {
        self.catalog.partition(slot).map(|found| found.name.clone())
    }

    fn names_of(&self, slots: Vec<(Slot, u64)>) -> Vec<(Partition, Epoch)> {
        let name = |(slot, epoch)| Some((self.partition_name(slot)?, Epoch(epoch)));
        slots.into_iter().filter_map(name).collect()
    }
}

/// What is left in a log from `next` on.
pub(crate) fn lag(log: &Log, next: u64, now: i64) -> Lag {
    let next = next.max(log.start());
    let age = log
        .get(next)
        .map(|entry| now.saturating_sub(entry.stored_at));
    let age = age
        .and_then(|millis| u64::try_from(millis).ok())
        .unwrap_or(0);
    Lag {
        records: Some(log.end() - next),
        time: Some(Duration::from_millis(age)),
    }
}
