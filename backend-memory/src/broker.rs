//! The broker's state, behind one lock.
//!
//! One lock, taken once for each batch: under it nothing waits, and what is done does not grow with
//! the number of partitions. A lock for each partition was left aside: a batch touches many
//! partitions and a reader then waits on several, which costs more than the one lock on the single
//! core that a test or a simulation has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use millstream_core::{PartitionDescription, Position, Start, StreamDescription};
use tokio::time::Instant;

use crate::clock::{Clock, to_millis};
use crate::config::{Config, Limits};
use crate::group::{Group, Place};
use crate::ids::{GroupId, PartitionId, Slot, StreamId};
use crate::journal::{Change, Journal, Marked, StoredRecord};
use crate::log::Keep;
use crate::pending::Pending;
use crate::rate::Allowance;
use crate::refusal::Refusal;
use crate::stream::{Catalog, Stream};

/// The broker as all handles share it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) durable: bool,
    state: Mutex<State>,
}

impl Shared {
    pub(crate) fn new(config: &Config) -> Result<Self, Refusal> {
        Ok(Self {
            durable: config.persist.is_some(),
            state: Mutex::new(State::open(config)?),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        let state = self.state.lock();
        state.expect("nothing that runs under the broker's lock panics")
    }

    /// Takes the lock and does what is due, then what is asked, then what that makes due.
    pub(crate) fn with<T>(&self, ask: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = self.lock();
        let now = Instant::now();
        state.tick(now);
        let answer = ask(&mut state, now);
        state.tick(now);
        answer
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) clock: Clock,
    pub(crate) catalog: Catalog,
    pub(crate) groups: Vec<Group>,
    pub(crate) faults: Pending,
    pub(crate) limits: Limits,
    pub(crate) allowance: Allowance,
    pub(crate) keep: Keep,
    /// How many members ever joined.
    pub(crate) joined: u64,
    pub(crate) journal: Option<Journal>,
    group_names: BTreeMap<Arc<str>, GroupId>,
    auto_create: Option<usize>,
    session_timeout: std::time::Duration,
    epoch_floor: u64,
}

impl State {
    fn open(config: &Config) -> Result<Self, Refusal> {
        config.validate()?;
        let mut state = Self {
            clock: Clock::new(config.start_time),
            catalog: Catalog::default(),
            groups: Vec::new(),
            faults: Pending::new(config.seed),
            limits: config.limits.clone(),
            allowance: Allowance {
                records_per_second: config.limits.records_per_second,
                bytes_per_second: config.limits.bytes_per_second,
            },
            keep: Keep {
                age: config.retention.age,
                bytes: config.retention.bytes,
            },
            joined: 0,
            journal: None,
            group_names: BTreeMap::new(),
            auto_create: config.auto_create_partitions,
            session_timeout: config.session_timeout,
            epoch_floor: 0,
        };
        if let Some(folder) = &config.persist {
            state.journal = Some(Journal::open(folder, config.sync, |change| {
                if let Some(millis) = change.stored_at() {
                    state.clock.not_before(millis);
                }
                state.apply(change);
            })?);
            // Counted by the next opening, so that the first run has small epochs.
            state.write(&Change::Opened)?;
        }
        Ok(state)
    }

    /// Writes a change to the journal, if there is one. A change is applied only when it was
    /// written.
    pub(crate) fn write(&mut self, change: &Change) -> Result<(), Refusal> {
        match &mut self.journal {
            Some(journal) => journal.write(change),
            None => Ok(()),
        }
    }

    /// Brings about a change that was checked and written, or is read back.
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            // The upper half of an epoch counts the openings, so that epochs grow across them
            // although not every assignment is written.
            Change::Opened => {
                self.epoch_floor += 1 << 32;
                for group in &mut self.groups {
                    group.set_epoch_floor(self.epoch_floor);
                }
            }
            Change::Created { name, partitions } => {
                self.catalog.add(Stream::new(name.into(), partitions));
            }
            Change::Deleted { stream } => {
                if let Some(deleted) = self.catalog.remove(stream) {
                    for group in &mut self.groups {
                        if group.reads(stream) {
                            group.forget(stream, &deleted.name);
                        }
                    }
                }
            }
            Change::Split { stream, parent } => {
                self.reshard(stream, |stream| vec![(parent, stream.split(parent))])
            }
            Change::Merged { stream, one, other } => {
                self.reshard(stream, |stream| stream.merge(one, other).into())
            }
            Change::Grown { stream, partitions } => self.reshard(stream, |stream| {
                stream.grow(partitions);
                Vec::new()
            }),
            Change::Stored { stream, records } => self.append(stream, records),
            Change::Group { name } => {
                self.group_names.insert(name.into(), self.groups.len());
                let group = Group::new(self.session_timeout, self.epoch_floor);
                self.groups.push(group);
            }
            Change::RecordMetadata {
                group,
                stream,
                places,
            } => self.groups[group].place(stream, &places),
            Change::Checkpointed { group, marks } => self.mark(group, marks),
            Change::Completed { group, slot, end } => self.groups[group].complete(slot, end),
            Change::Published {
                group,
                marks,
                stream,
                records,
            } => {
                self.append(stream, records);
                self.mark(group, marks);
            }
        }
    }

    fn append(&mut self, stream: StreamId, records: Vec<StoredRecord>) {
        for record in records {
            let (partition, entry) = record.into_entry();
            let slot = (stream, partition);
            if let Some(found) = self.catalog.partition_mut(slot) {
                found.log.push(entry);
                let waiters = std::mem::take(&mut found.waiters);
                wake(&mut self.groups, slot, &waiters);
            }
        }
    }

    fn mark(&mut self, group: GroupId, marks: Vec<Marked>) {
        for (slot, epoch, next) in marks {
            self.groups[group].checkpoint(slot, epoch, next);
        }
    }

    /// Changes partitions, tells those who wait at the end of one that was closed, and plans again.
    #[allow(
        clippy::type_complexity,
        reason = "a list of lists, named nowhere else"
    )]
    fn reshard(
        &mut self,
        id: StreamId,
        change: impl FnOnce(&mut Stream) -> Vec<(PartitionId, Vec<(GroupId, u64)>)>,
    ) {
        let Some(stream) = self.catalog.get_mut(id) else {
            return;
        };
        for (closed, waiters) in change(stream) {
            wake(&mut self.groups, (id, closed), &waiters);
        }
        for group in &mut self.groups {
            group.stream_changed(id);
        }
    }

    /// Does what is due in all groups and of the faults.
    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some(fault) = self.faults.due(now) {
            self.bring_about(fault, now);
        }
        for group in 0..self.groups.len() {
            if self.groups[group].is_due(now) {
                self.settle(group, now);
            }
        }
    }

    fn settle(&mut self, id: GroupId, now: Instant) {
        loop {
            self.groups[id].tick(now);
            for (stream, places) in self.groups[id].drained_resets() {
                let written = self.write(&Change::RecordMetadata {
                    group: id,
                    stream,
                    places,
                });
                self.groups[id].end_reset(stream, written);
            }
            if !self.groups[id].rebalance(&self.catalog, now) {
                return;
            }
        }
    }

    /// When a waiting member of the group has to look again.
    pub(crate) fn deadline(&self, group: GroupId) -> Option<Instant> {
        let group = self.groups[group].deadline();
        group.into_iter().chain(self.faults.next_due()).min()
    }

    pub(crate) fn group_id(&self, name: &str) -> Result<GroupId, Refusal> {
        self.group_names
            .get(name)
            .copied()
            .ok_or(Refusal::UnknownGroup)
    }

    /// Finds a stream, or makes it where the settings say so.
    pub(crate) fn open_stream(&mut self, name: &str) -> Result<StreamId, Refusal> {
        match (self.catalog.id(name), self.auto_create) {
            (Err(Refusal::UnknownStream), Some(partitions)) => {
                self.create(name, partitions)?;
                self.catalog.id(name)
            }
            (found, _) => found,
        }
    }

    pub(crate) fn create(&mut self, name: &str, partitions: usize) -> Result<(), Refusal> {
        if self.catalog.id(name).is_ok() {
            return Err(Refusal::StreamExists);
        }
        if partitions == 0 {
            return Err(Refusal::NoPartitions);
        }
        self.commit(Change::Created {
            name: name.into(),
            partitions,
        })
    }

    /// Writes and applies a change that was checked.
    pub(crate) fn commit(&mut self, change: Change) -> Result<(), Refusal> {
        self.write(&change)?;
        self.apply(change);
        Ok(())
    }

    /// Where `start` is in each partition of a stream now.
    pub(crate) fn places(&mut self, id: StreamId, start: Start, now: Instant) -> Vec<Place> {
        self.trim_stream(id, now);
        let Some(stream) = self.catalog.get(id) else {
            return Vec::new();
        };
        let mut places: Vec<Place> = Vec::with_capacity(stream.partitions.len());
        for partition in &stream.partitions {
            let log = &partition.log;
            let next = match start {
                Start::Latest => log.end(),
                Start::At(time) => log.first_at(millis_up(time)),
                _ => log.start(),
            };
            // Parents have smaller numbers than their children, so theirs is known already.
            let settled = |parent: &PartitionId| places[*parent as usize].completed;
            let completed =
                !partition.open && next == log.end() && partition.parents.iter().all(settled);
            places.push(Place { next, completed });
        }
        places
    }

    pub(crate) fn trim_stream(&mut self, id: StreamId, now: Instant) {
        let now = self.clock.millis(now);
        if let Some(stream) = self.catalog.get_mut(id) {
            for partition in &mut stream.partitions {
                partition.log.trim(self.keep, now);
            }
        }
    }

    pub(crate) fn describe(
        &mut self,
        id: StreamId,
        now: Instant,
    ) -> Result<StreamDescription, Refusal> {
        self.trim_stream(id, now);
        let stream = self.catalog.get(id).ok_or(Refusal::UnknownStream)?;
        let name = |id: &PartitionId| stream.partitions[*id as usize].name.clone();
        let partitions = stream
            .partitions
            .iter()
            .filter(|partition| partition.open || !partition.log.is_empty())
            .map(|partition| {
                let log = &partition.log;
                PartitionDescription {
                    partition: partition.name.clone(),
                    open: partition.open,
                    parents: partition.parents.iter().map(name).collect(),
                    earliest: (!log.is_empty()).then(|| Position::from(log.start())),
                    latest: (!log.is_empty()).then(|| Position::from(log.end() - 1)),
                }
            });
        Ok(StreamDescription {
            name: stream.name.to_string(),
            partitions: partitions.collect(),
        })
    }
}

/// Tells members that there is something to read in a partition.
pub(crate) fn wake(groups: &mut [Group], slot: Slot, waiters: &[(GroupId, u64)]) {
    for (group, member) in waiters {
        if let Some(member) = groups[*group].members.get_mut(member) {
            member.queue(slot);
        }
    }
}

/// The first whole millisecond that is not before `time`.
fn millis_up(time: SystemTime) -> i64 {
    let up = time.checked_add(std::time::Duration::from_nanos(999_999));
    to_millis(up.unwrap_or(time))
}
