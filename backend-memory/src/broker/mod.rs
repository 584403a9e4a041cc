//! The broker's state, behind one lock.
//!
//! The lock is taken once per batch. Nothing waits while it is held, and the work under it does not
//! grow with the number of partitions.
//!
//! Rejected: a lock per partition. A batch touches many partitions and a reader waits for several,
//! which costs more than one lock on the single core that a test or a simulation has.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use foldhash::quality::FixedState;
use millstream_core::driver::to_millis;
use millstream_core::{PartitionDescription, Position, Start, StreamDescription};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::Config;
use crate::coordinator::{GroupCoordinator, StartOffset};
use crate::error::BrokerError;
use crate::faults::plan::FaultPlan;
use crate::ids::{GroupId, MemberId, PartitionId, PartitionRef, StreamId};
use crate::journal::{Journal, JournalEntry, JournalRecord, OffsetCommit};
use crate::log::RetentionPolicy;
use crate::rate_limit::RateLimit;
use crate::rules::StreamRules;
use crate::stream::{Catalog, Stream};

mod checkpoints;
mod commit;
mod faults;
mod fetch;
mod join;

pub(crate) use fetch::FetchResult;
pub(crate) use join::JoinError;

/// The broker, shared by all handles.
#[derive(Debug)]
pub(crate) struct Broker {
    state: Mutex<BrokerState>,
}

impl Broker {
    pub(crate) fn new(config: &Config) -> Result<Self, BrokerError> {
        Ok(Self {
            state: Mutex::new(BrokerState::open(config)?),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, BrokerState> {
        let state = self.state.lock();
        state.expect("nothing that runs under the broker's lock panics")
    }

    /// Takes the lock, handles what is due, runs `request`, and handles what that made due.
    pub(crate) fn with<T>(&self, request: impl FnOnce(&mut BrokerState, Instant) -> T) -> T {
        let mut state = self.lock();
        let now = Instant::now();
        state.tick(now);
        let result = request(&mut state, now);
        state.tick(now);
        result
    }
}

#[derive(Debug)]
pub(crate) struct BrokerState {
    pub(crate) clock: Clock,
    pub(crate) catalog: Catalog,
    pub(crate) groups: Vec<GroupCoordinator>,
    pub(crate) faults: FaultPlan,
    pub(crate) rules: StreamRules,
    pub(crate) rate_limit: RateLimit,
    pub(crate) retention: RetentionPolicy,
    /// The number of joins so far.
    pub(crate) joined: u64,
    pub(crate) journal: Option<Journal>,
    group_names: BTreeMap<Arc<str>, GroupId>,
    auto_create: Option<usize>,
    session_timeout: Duration,
    epoch_floor: u64,
    /// Distinguishes the streams that this broker creates from those of other brokers.
    origin: u64,
}

impl BrokerState {
    fn open(config: &Config) -> Result<Self, BrokerError> {
        config.validate()?;
        let mut state = Self {
            clock: Clock::new(config.start_time),
            catalog: Catalog::default(),
            groups: Vec::new(),
            faults: FaultPlan::new(config.seed),
            rules: StreamRules::new(config),
            rate_limit: RateLimit {
                records_per_second: config.limits.records_per_second,
                bytes_per_second: config.limits.bytes_per_second,
            },
            retention: RetentionPolicy {
                age: config.retention.age,
                bytes: config.retention.bytes,
            },
            joined: 0,
            journal: None,
            group_names: BTreeMap::new(),
            auto_create: config.auto_create_partitions,
            session_timeout: config.session_timeout,
            epoch_floor: 0,
            origin: origin(config),
        };
        if let Some(folder) = &config.persist {
            state.journal = Some(Journal::open(folder, config.sync, |entry| {
                if let Some(millis) = entry.stored_at() {
                    state.clock.not_before(millis);
                }
                state.apply(entry);
            })?);
            // Takes effect at the next opening, so that epochs of the first run are small.
            state.write(&JournalEntry::Opened)?;
        }
        Ok(state)
    }

    /// Writes an entry to the journal, if there is one. An entry is applied only after it was
    /// written.
    pub(crate) fn write(&mut self, entry: &JournalEntry) -> Result<(), BrokerError> {
        match &mut self.journal {
            Some(journal) => journal.write(entry),
            None => Ok(()),
        }
    }

    /// Applies an entry that was checked and written, or that is replayed.
    pub(crate) fn apply(&mut self, entry: JournalEntry) {
        match entry {
            // The upper half of an epoch counts openings, so that epochs grow across them although
            // assignments are not written.
            JournalEntry::Opened => {
                self.epoch_floor += 1 << 32;
                for group in &mut self.groups {
                    group.raise_epoch_floor(self.epoch_floor);
                }
            }
            JournalEntry::StreamCreated {
                name,
                public_id,
                partitions,
            } => {
                let stream = Stream::new(name.into(), public_id.into(), partitions);
                self.catalog.add(stream);
            }
            JournalEntry::StreamDeleted { stream } => {
                if let Some(deleted) = self.catalog.remove(stream) {
                    for group in &mut self.groups {
                        if group.reads(stream) {
                            group.stream_deleted(stream, &deleted.name);
                        }
                    }
                }
            }
            JournalEntry::PartitionSplit { stream, parent } => {
                self.reshard(stream, |stream| vec![(parent, stream.split(parent))])
            }
            JournalEntry::PartitionsMerged { stream, one, other } => {
                self.reshard(stream, |stream| stream.merge(one, other).into())
            }
            JournalEntry::PartitionsAdded { stream, partitions } => {
                self.reshard(stream, |stream| {
                    stream.grow(partitions);
                    Vec::new()
                })
            }
            JournalEntry::Appended { stream, records } => self.append(stream, records),
            JournalEntry::GroupCreated { name } => {
                self.group_names.insert(name.into(), self.groups.len());
                let group = GroupCoordinator::new(self.session_timeout, self.epoch_floor);
                self.groups.push(group);
            }
            JournalEntry::OffsetsSet {
                group,
                stream,
                offsets,
            } => self.groups[group].set_offsets(stream, &offsets),
            JournalEntry::Checkpointed { group, commits } => self.commit_offsets(group, commits),
            JournalEntry::Completed {
                group,
                partition,
                end,
            } => self.groups[group].complete(partition, end),
            JournalEntry::Published {
                group,
                commits,
                stream,
                records,
            } => {
                self.append(stream, records);
                self.commit_offsets(group, commits);
            }
        }
    }

    /// Writes and applies an entry that was checked.
    pub(crate) fn commit(&mut self, entry: JournalEntry) -> Result<(), BrokerError> {
        self.write(&entry)?;
        self.apply(entry);
        Ok(())
    }

    fn append(&mut self, stream: StreamId, records: Vec<JournalRecord>) {
        for record in records {
            let (partition, entry) = record.into_log_entry();
            let partition = (stream, partition);
            if let Some(found) = self.catalog.partition_mut(partition) {
                found.log.push(entry);
                let waiters = std::mem::take(&mut found.waiters);
                wake(&mut self.groups, partition, &waiters);
            }
        }
    }

    fn commit_offsets(&mut self, group: GroupId, commits: Vec<OffsetCommit>) {
        for commit in commits {
            self.groups[group].commit(commit.partition, commit.epoch, commit.next_offset);
        }
    }

    /// Changes the partitions of a stream, wakes the waiters of closed ones, and plans again.
    fn reshard(
        &mut self,
        id: StreamId,
        reshard: impl FnOnce(&mut Stream) -> Vec<(PartitionId, Vec<(GroupId, MemberId)>)>,
    ) {
        let Some(stream) = self.catalog.get_mut(id) else {
            return;
        };
        for (closed, waiters) in reshard(stream) {
            wake(&mut self.groups, (id, closed), &waiters);
        }
        for group in &mut self.groups {
            group.partitions_changed(id);
        }
    }

    /// Handles what is due: faults and deadlines of all groups.
    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some(fault) = self.faults.take_due(now) {
            self.apply_fault(fault, now);
        }
        for group in 0..self.groups.len() {
            if self.groups[group].is_due(now) {
                self.tick_group(group, now);
            }
        }
    }

    fn tick_group(&mut self, id: GroupId, now: Instant) {
        loop {
            self.groups[id].tick(now);
            for (stream, offsets) in self.groups[id].drained_resets() {
                let written = self.write(&JournalEntry::OffsetsSet {
                    group: id,
                    stream,
                    offsets,
                });
                self.groups[id].end_reset(stream, written);
            }
            if !self.groups[id].rebalance(&self.catalog, now) {
                return;
            }
        }
    }

    /// Returns when a waiting member of the group must check again.
    pub(crate) fn deadline(&self, group: GroupId) -> Option<Instant> {
        let group = self.groups[group].deadline();
        group.into_iter().chain(self.faults.next_due()).min()
    }

    pub(crate) fn group_id(&self, name: &str) -> Result<GroupId, BrokerError> {
        self.group_names
            .get(name)
            .copied()
            .ok_or(BrokerError::UnknownGroup)
    }

    /// Finds a stream, or creates it if the settings allow that.
    pub(crate) fn open_stream(&mut self, name: &str) -> Result<StreamId, BrokerError> {
        match (self.catalog.id(name), self.auto_create) {
            (Err(BrokerError::UnknownStream), Some(partitions)) => {
                self.create(name, partitions)?;
                self.catalog.id(name)
            }
            (found, _) => found,
        }
    }

    pub(crate) fn create(&mut self, name: &str, partitions: usize) -> Result<(), BrokerError> {
        if self.catalog.id(name).is_ok() {
            return Err(BrokerError::StreamExists);
        }
        self.rules.check_stream_name(name)?;
        if partitions == 0 {
            return Err(BrokerError::NoPartitions);
        }
        self.commit(JournalEntry::StreamCreated {
            name: name.into(),
            // The number distinguishes the streams of one broker, even after it was reopened.
            public_id: format!("{:016x}-{}", self.origin, self.catalog.next_id()),
            partitions,
        })
    }

    /// Returns the offset of `start` in each partition of a stream. It compares the timestamps that
    /// readers see.
    pub(crate) fn start_offsets(
        &mut self,
        id: StreamId,
        start: Start,
        now: Instant,
    ) -> Result<Vec<StartOffset>, BrokerError> {
        self.trim_stream(id, now);
        let stream = self.catalog.get(id).ok_or(BrokerError::UnknownStream)?;
        let mut offsets: Vec<StartOffset> = Vec::with_capacity(stream.partitions.len());
        for partition in &stream.partitions {
            let log = &partition.log;
            let next_offset = match start {
                Start::Earliest => log.start(),
                Start::Latest => log.end(),
                Start::At(time) => log.first_at(to_millis_rounded_up(time)),
                _ => {
                    return Err(BrokerError::Unsupported(
                        "an unknown start, update this crate",
                    ));
                }
            };
            // Parents have smaller numbers than their children, so theirs is known here.
            let parents_completed = partition
                .parents
                .iter()
                .all(|parent| offsets[*parent as usize].completed);
            let completed = !partition.open && next_offset == log.end() && parents_completed;
            offsets.push(StartOffset {
                next_offset,
                completed,
            });
        }
        Ok(offsets)
    }

    pub(crate) fn trim_stream(&mut self, id: StreamId, now: Instant) {
        let now = self.clock.millis(now);
        if let Some(stream) = self.catalog.get_mut(id) {
            for partition in &mut stream.partitions {
                partition.log.trim(self.retention, now);
            }
        }
    }

    pub(crate) fn describe(
        &mut self,
        id: StreamId,
        now: Instant,
    ) -> Result<StreamDescription, BrokerError> {
        self.trim_stream(id, now);
        let stream = self.catalog.get(id).ok_or(BrokerError::UnknownStream)?;
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

/// Returns a number that no other broker has, unless the run must be reproducible.
fn origin(config: &Config) -> u64 {
    match config.start_time {
        Some(time) => FixedState::with_seed(config.seed).hash_one(to_millis(time)),
        None => RandomState::new().hash_one(SystemTime::now()),
    }
}

/// Queues a partition for the members that wait for it.
pub(crate) fn wake(
    groups: &mut [GroupCoordinator],
    partition: PartitionRef,
    waiters: &[(GroupId, MemberId)],
) {
    for (group, member) in waiters {
        if let Some(member) = groups[*group].members.get_mut(member) {
            member.queue(partition);
        }
    }
}

/// Rounds up to the first whole millisecond that is not before `time`.
fn to_millis_rounded_up(time: SystemTime) -> i64 {
    let up = time.checked_add(Duration::from_nanos(999_999));
    to_millis(up.unwrap_or(time))
}
