//! A group by name, and one member of it.

use std::sync::Arc;

use async_trait::async_trait;
use millstream::driver::{self, Event, Join, Mark};
use millstream::{Epoch, Error, Lag, Partition, Position, Result};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::assignment::MemberId;
use crate::broker::{Shared, State};
use crate::journal::Change;
use crate::member::{Mail, Member, Presence};
use crate::refusal::Refusal;
use crate::stream::{GroupId, Slot};

/// Most bytes of one batch, unless a single record is larger: it bounds what a member of many partitions holds.
const BATCH_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct ConsumerGroup {
    pub(crate) shared: Arc<Shared>,
    pub(crate) name: Arc<str>,
}

#[async_trait]
impl driver::ConsumerGroup for ConsumerGroup {
    async fn join(&self, join: Join) -> Result<Arc<dyn driver::Membership>> {
        let joined = self
            .shared
            .with(|state, now| state.join(&self.name, &join, now));
        let (group, member, wake) = joined.map_err(|(stream, refusal)| {
            let error = refusal.during("join").with_group(self.name.clone());
            match stream {
                Some(stream) => error.with_stream(stream),
                None => error,
            }
        })?;
        let name = join.member.as_deref().unwrap_or("member");
        Ok(Arc::new(Membership {
            shared: self.shared.clone(),
            group,
            member,
            id: format!("{name}-{member}"),
            group_name: self.name.clone(),
            wake,
        }))
    }
}

#[derive(Debug)]
struct Membership {
    shared: Arc<Shared>,
    group: GroupId,
    member: MemberId,
    id: String,
    group_name: Arc<str>,
    wake: Arc<Notify>,
}

/// What [`State::next`] found.
enum Next {
    Events(Vec<Event>),
    Nothing { until: Option<Instant> },
}

#[async_trait]
impl driver::Membership for Membership {
    fn id(&self) -> &str {
        &self.id
    }

    async fn next(&self) -> Result<Vec<Event>> {
        loop {
            let next = self
                .ask(|state, now| state.next(self.group, self.member, now))
                .await;
            match next.map_err(|refusal| self.error(&refusal, "read"))? {
                Next::Events(events) => return Ok(events),
                // A wake-up between looking and waiting is kept by the `Notify`, as there is one waiter.
                Next::Nothing { until: None } => self.wake.notified().await,
                Next::Nothing { until: Some(until) } => {
                    // Whether woken or late: look again.
                    let _ = timeout_at(until, self.wake.notified()).await;
                }
            }
        }
    }

    async fn checkpoint(&self, marks: &[Mark]) -> Vec<Result<()>> {
        let answers = self
            .ask(|state, _| Ok(state.checkpoint(self.group, self.member, marks)))
            .await;
        let answers = answers.unwrap_or_else(|refusal| vec![Err(refusal); marks.len()]);
        let answers = answers.into_iter().zip(marks);
        answers
            .map(|(answer, mark)| {
                answer.map_err(|refusal| {
                    self.error(&refusal, "checkpoint")
                        .with_partition(&mark.partition)
                })
            })
            .collect()
    }

    async fn release(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        let released = self.ask(|state, _| {
            let slot = state.held_slot(partition)?;
            state.groups[self.group].release(self.member, slot, epoch.0)
        });
        released
            .await
            .map_err(|refusal| self.error(&refusal, "release").with_partition(partition))
    }

    async fn complete(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        let completed =
            self.ask(|state, _| state.complete(self.group, self.member, partition, epoch));
        completed
            .await
            .map_err(|refusal| self.error(&refusal, "complete").with_partition(partition))
    }

    fn pause(&self, partition: &Partition, epoch: Epoch) {
        self.set_paused(partition, epoch, true);
    }

    fn resume(&self, partition: &Partition, epoch: Epoch) {
        self.set_paused(partition, epoch, false);
    }

    async fn leave(&self) -> Result<()> {
        let left = self.ask(|state, _| {
            state.groups[self.group].leave(self.member);
            Ok(())
        });
        left.await.map_err(|refusal| self.error(&refusal, "leave"))
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.shared
            .with(|state, now| state.groups[self.group].vanish(self.member, now));
    }
}

impl Membership {
    /// Asks the broker as a member that is there: one that is paused by a fault hangs until that is over, before anything
    /// is asked.
    async fn ask<T>(
        &self,
        mut ask: impl FnMut(&mut State, Instant) -> Result<T, Refusal> + Send,
    ) -> Result<T, Refusal> {
        loop {
            let paused_until = {
                let answer = self.shared.with(|state, now| {
                    let member = state.groups[self.group].members.get(&self.member);
                    match member.ok_or(Refusal::MemberGone)?.presence {
                        Presence::Here => ask(state, now).map(Ok),
                        Presence::Paused { until } => Ok(Err(until)),
                        Presence::Gone => Err(Refusal::MemberCrashed),
                    }
                });
                match answer? {
                    Ok(answer) => return Ok(answer),
                    Err(until) => until,
                }
            };
            sleep_until(paused_until).await;
        }
    }

    fn set_paused(&self, partition: &Partition, epoch: Epoch, paused: bool) {
        self.shared.with(|state, _| {
            let Ok(slot) = state.catalog.slot(partition) else {
                return;
            };
            let Some(member) = state.groups[self.group].members.get_mut(&self.member) else {
                return;
            };
            if let Some(held) = member
                .held
                .get_mut(&slot)
                .filter(|held| held.epoch == epoch.0)
            {
                held.paused = paused;
                member.queue(slot);
            }
        });
    }

    fn error(&self, refusal: &Refusal, operation: &'static str) -> Error {
        let error = refusal
            .during(operation)
            .with_group(self.group_name.clone());
        let deleted = || {
            let state = self.shared.lock();
            let member = state.groups[self.group].members.get(&self.member);
            member.and_then(|member| member.deleted.clone())
        };
        match refusal {
            Refusal::StreamDeleted => match deleted() {
                Some(stream) => error.with_stream(stream),
                None => error,
            },
            _ => error,
        }
    }
}

impl State {
    /// Seats a member; the first one makes the group and pins where it begins.
    #[allow(clippy::type_complexity, reason = "named nowhere else")]
    fn join(
        &mut self,
        name: &Arc<str>,
        join: &Join,
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
                let pin = Change::Placed {
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

    fn next(&mut self, group: GroupId, member: MemberId, now: Instant) -> Result<Next, Refusal> {
        let found = self.member(group, member)?;
        if found.deleted.is_some() {
            return Err(Refusal::StreamDeleted);
        }
        let mut events = Vec::new();
        while let Some(mail) = self.member(group, member)?.mail.pop_front() {
            events.extend(self.open_mail(group, member, mail, now)?);
        }
        let (mut records, most) = (0, self.member(group, member)?.batch_records);
        while records < most {
            let Some(slot) = self.member(group, member)?.ready.pop_front() else {
                break;
            };
            let event = self.read(group, member, slot, now)?;
            if let Some(Event::Records { records: read, .. }) = &event {
                records += read.len();
            }
            events.extend(event);
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
        let batch_records = member.batch_records;
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
            Event::Trimmed {
                partition: name,
                epoch,
                after,
                earliest: Position::from(log.start()),
            }
        } else if held.next < log.end() {
            let records = log.read(held.next, batch_records, BATCH_BYTES);
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
            if !held.ended && !partition.waiters.contains(&(group, id)) {
                partition.waiters.push((group, id));
            }
            return Ok(None);
        };
        // To the end of the queue, so that a full partition does not starve the others.
        held.queued = true;
        member.ready.push_back(slot);
        Ok(Some(event))
    }

    fn checkpoint(
        &mut self,
        group: GroupId,
        member: MemberId,
        marks: &[Mark],
    ) -> Vec<Result<(), Refusal>> {
        use millstream::planted::{self, Bug};

        let mut answers = Vec::with_capacity(marks.len());
        let mut changes = Vec::with_capacity(marks.len());
        for mark in marks {
            let fault = self.faults.count_checkpoint();
            let checked = self.held_slot(&mark.partition).and_then(|slot| {
                match self.groups[group].check(member, slot, mark.epoch.0) {
                    Err(_) if planted::is(Bug::FenceIgnored) => {}
                    checked => checked?,
                }
                let end = self
                    .catalog
                    .partition(slot)
                    .map_or(0, |found| found.log.end());
                let offset = mark.position.offset().filter(|_| mark.position.sub() == 0);
                let offset = offset.filter(|offset| *offset < end);
                Ok((
                    slot,
                    mark.epoch.0,
                    offset.ok_or(Refusal::ForeignPosition)? + 1,
                ))
            });
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

    fn complete(
        &mut self,
        group: GroupId,
        member: MemberId,
        partition: &Partition,
        epoch: Epoch,
    ) -> Result<(), Refusal> {
        let slot = self.held_slot(partition)?;
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

    /// Finds a partition that a member speaks of.
    fn held_slot(&self, partition: &Partition) -> Result<Slot, Refusal> {
        self.catalog.slot(partition)
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
pub(crate) fn lag(log: &crate::log::Log, next: u64, now: i64) -> Lag {
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
