//! The state machine, without waiting and without a lock.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::load::Load;
use super::{AssignedPartition, ByPartition, PartitionEvent};
use crate::driver::Event;
use crate::{Epoch, Error, Lag, Partition, Result};

/// How often the lag of a paused partition is due.
const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// The minimum age of a waiting record: zero would mean that none waits.
const LEAST_AGE: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct AssignmentsState<T> {
    assignments: ByPartition<MemberAssignment<T>>,
    /// The epoch of the last assignment of each partition, even after it has ended.
    last_epochs: ByPartition<Epoch>,
    /// Events that do not wait for records: changes of ownership, and the lag of paused partitions. They are
    /// delivered first. So `Assigned` comes before the records of its assignment, and `Lost` before the
    /// next `Assigned`.
    first: VecDeque<Event>,
    /// The partitions that have events and are not paused, each once, in turns.
    ready: VecDeque<Partition>,
    /// The load of the `ready` partitions.
    pub(super) waiting: Load,
    /// Counts what is read, to find the partition that was read longest ago.
    reads: u64,
    pub(super) failure: Option<Error>,
}

/// A partition that is assigned to the member.
#[derive(Debug)]
pub(super) struct MemberAssignment<T> {
    epoch: Epoch,
    pub(super) kept: T,
    revoking: bool,
    ended: bool,
    paused: bool,
    /// Events that were read and are not delivered yet.
    events: VecDeque<(Event, Load)>,
    /// The load of `events`.
    load: Load,
    last_read: u64,
    /// The lag that the runtime has, or gets with the waiting events.
    last_lag: Option<Lag>,
    /// When the driver was last asked for the lag of a paused partition.
    lag_told: Option<Instant>,
}

impl<T> MemberAssignment<T> {
    /// Returns the lag behind the records that the runtime has, from the lag behind everything that was read: records
    /// that a pause holds back are not delivered yet. Held events get their new lag.
    fn pass_lag(&mut self, mut left: Lag) -> Lag {
        for (event, _) in self.events.iter_mut().rev() {
            match event {
                Event::Records { records, lag, .. } => {
                    *lag = left;
                    left.records = left.records.map(|left| left + records.len() as u64);
                    let oldest = records.first().map(|record| record.timestamp);
                    // A record with a timestamp in the future waits, too.
                    let age = oldest.map(|at| at.elapsed().unwrap_or_default().max(LEAST_AGE));
                    left.time = age.or(left.time);
                }
                Event::Lag { lag, .. } => *lag = left,
                _ => {}
            }
        }
        left
    }
}

impl<T> Default for AssignmentsState<T> {
    fn default() -> Self {
        Self {
            assignments: ByPartition::default(),
            last_epochs: ByPartition::default(),
            first: VecDeque::new(),
            ready: VecDeque::new(),
            waiting: Load::default(),
            reads: 0,
            failure: None,
        }
    }
}

impl<T> AssignmentsState<T> {
    pub(super) fn assignment(
        &mut self,
        partition: &Partition,
        epoch: Epoch,
    ) -> Option<&mut MemberAssignment<T>> {
        let found = self.assignments.get_mut(partition);
        found.filter(|assignment| assignment.epoch == epoch)
    }

    /// Returns whether an epoch is larger than every one that the partition had here.
    pub(super) fn is_new(&self, partition: &Partition, epoch: Epoch) -> bool {
        let last = self.last_epochs.get(partition);
        last.is_none_or(|last| *last < epoch)
    }

    pub(super) fn assign(&mut self, assigned: &AssignedPartition, kept: T) {
        let AssignedPartition {
            partition, epoch, ..
        } = assigned;
        self.mark_lost(|lost, _| lost == partition);
        self.last_epochs.insert(partition.clone(), *epoch);
        let assignment = MemberAssignment {
            epoch: *epoch,
            kept,
            revoking: false,
            ended: false,
            paused: false,
            events: VecDeque::new(),
            load: Load::default(),
            last_read: 0,
            last_lag: None,
            lag_told: None,
        };
        self.assignments.insert(partition.clone(), assignment);
        self.first.push_back(Event::Assigned {
            partition: partition.clone(),
            epoch: *epoch,
            resume_after: assigned.resume_after,
            stream_id: assigned.stream_id.clone(),
        });
    }

    pub(super) fn revoke(&mut self, partition: &Partition, epoch: Epoch, within: Duration) {
        let Some(assignment) = self.assignment(partition, epoch) else {
            return;
        };
        if std::mem::replace(&mut assignment.revoking, true) {
            return;
        }
        self.discard(partition);
        self.first.push_back(Event::Revoking {
            partitions: vec![(partition.clone(), epoch)],
            within,
        });
    }

    /// Ends the selected assignments, with one event.
    pub(super) fn mark_lost(&mut self, is_lost: impl Fn(&Partition, Epoch) -> bool) {
        let assignments = self.assignments.iter();
        let lost = assignments.filter(|(partition, found)| is_lost(partition, found.epoch));
        let mut lost: Vec<_> = lost.map(|(p, found)| (p.clone(), found.epoch)).collect();
        if lost.is_empty() {
            return;
        }
        // Each map has its own iteration order. Sorting makes the order the same in each run.
        lost.sort_unstable();
        for (partition, epoch) in &lost {
            self.end(partition, *epoch);
        }
        self.first.push_back(Event::Lost { partitions: lost });
    }

    pub(super) fn close(&mut self, partition: &Partition, epoch: Epoch) -> Option<T> {
        let kept = self.end(partition, epoch)?;
        // A partition that was completed need not be released.
        self.first.retain(|event| match event {
            Event::Revoking { partitions, .. } => partitions.iter().all(|(p, _)| p != partition),
            _ => true,
        });
        Some(kept)
    }

    fn end(&mut self, partition: &Partition, epoch: Epoch) -> Option<T> {
        self.assignment(partition, epoch)?;
        self.discard(partition);
        Some(self.assignments.remove(partition)?.kept)
    }

    pub(super) fn close_all(&mut self) {
        let last_epochs = std::mem::take(&mut self.last_epochs);
        *self = Self {
            last_epochs,
            ..Self::default()
        };
    }

    /// Drops events that were read and are not delivered yet. The next owner reads their records.
    fn discard(&mut self, partition: &Partition) {
        self.withdraw(partition);
        if let Some(assignment) = self.assignments.get_mut(partition) {
            assignment.events.clear();
            assignment.load = Load::default();
        }
    }

    /// Removes a partition from the delivery queue.
    fn withdraw(&mut self, partition: &Partition) {
        let Some(assignment) = self.assignments.get(partition) else {
            return;
        };
        if !assignment.paused {
            self.waiting -= assignment.load;
            self.ready.retain(|ready| ready != partition);
        }
    }

    pub(super) fn push(
        &mut self,
        partition: &Partition,
        epoch: Epoch,
        event: PartitionEvent,
        update: impl FnOnce(&mut T),
    ) -> Result<(), PartitionEvent> {
        self.reads += 1;
        let reads = self.reads;
        let found = self.assignment(partition, epoch);
        let Some(assignment) = found.filter(|found| !found.revoking && !found.ended) else {
            return Err(event);
        };
        update(&mut assignment.kept);
        let load = match &event {
            PartitionEvent::Records { records, .. } => Load::of(records),
            _ => Load::default(),
        };
        if load.records > 0 {
            assignment.last_read = reads;
        }
        let event = match event {
            PartitionEvent::Records { lag, .. } if load.records == 0 => PartitionEvent::Lag(lag),
            event => event,
        };
        let holds_records = assignment.paused && assignment.load.records > 0;
        match &event {
            // Held records grow older, even if the lag behind them has not changed.
            PartitionEvent::Lag(lag) if assignment.last_lag == Some(*lag) && !holds_records => {
                return Ok(());
            }
            PartitionEvent::Lag(lag) | PartitionEvent::Records { lag, .. } => {
                assignment.last_lag = Some(*lag);
            }
            PartitionEvent::Ended => assignment.ended = true,
            PartitionEvent::DataLoss { .. } => {}
        }
        let paused = assignment.paused;
        if let (PartitionEvent::Lag(lag), true) = (&event, paused) {
            let lag = PartitionEvent::Lag(assignment.pass_lag(*lag));
            self.first.push_back(lag.with_assignment(partition, epoch));
            return Ok(());
        }
        let event = event.with_assignment(partition, epoch);
        let is_first = assignment.events.is_empty();
        assignment.events.push_back((event, load));
        assignment.load += load;
        if !paused {
            self.waiting += load;
            if is_first {
                self.ready.push_back(partition.clone());
            }
        }
        Ok(())
    }

    pub(super) fn pause(&mut self, partition: &Partition, epoch: Epoch) {
        let found = self.assignment(partition, epoch);
        if found.is_some_and(|assignment| !assignment.paused) {
            self.withdraw(partition);
            if let Some(assignment) = self.assignments.get_mut(partition) {
                assignment.paused = true;
            }
        }
    }

    pub(super) fn resume(&mut self, partition: &Partition, epoch: Epoch) {
        let found = self.assignment(partition, epoch);
        let Some(assignment) = found.filter(|assignment| assignment.paused) else {
            return;
        };
        assignment.paused = false;
        let load = assignment.load;
        if !assignment.events.is_empty() {
            self.ready.push_back(partition.clone());
        }
        self.waiting += load;
    }

    pub(super) fn has_events(&self) -> bool {
        !self.first.is_empty() || !self.ready.is_empty() || self.failure.is_some()
    }

    /// Takes the next events for the runtime: about as many records as `batch`, and no more bytes, unless a single
    /// event has more. `None` if there are none.
    pub(super) fn take(&mut self, batch: Load) -> Option<Result<Vec<Event>>> {
        let mut events: Vec<Event> = self.first.drain(..).collect();
        let mut taken = Load::default();
        while taken.is_below(batch) {
            let Some(partition) = self.ready.pop_front() else {
                break;
            };
            let Some(assignment) = self.assignments.get_mut(&partition) else {
                continue;
            };
            let next = assignment.events.front().map(|(_, load)| *load);
            if next.is_some_and(|next| taken.records > 0 && taken.bytes + next.bytes > batch.bytes)
            {
                self.ready.push_front(partition);
                break;
            }
            if let Some((event, load)) = assignment.events.pop_front() {
                taken += load;
                assignment.load -= load;
                self.waiting -= load;
                events.push(event);
            }
            if !assignment.events.is_empty() {
                self.ready.push_back(partition);
            }
        }
        match (events.is_empty(), &self.failure) {
            (false, _) => Some(Ok(events)),
            (true, Some(error)) => Some(Err(error.clone())),
            (true, None) => None,
        }
    }
}

impl<T: Clone> AssignmentsState<T> {
    pub(super) fn readable(&self) -> Vec<(Partition, Epoch, T)> {
        let is_readable =
            |found: &MemberAssignment<T>| !found.paused && !found.revoking && !found.ended;
        let mut readable = self.select(is_readable);
        readable.sort_by_key(|(_, found)| found.last_read);
        Self::entries(readable)
    }

    pub(super) fn lag_due(&mut self, now: Instant) -> Vec<(Partition, Epoch, T)> {
        let is_due = |found: &MemberAssignment<T>| {
            let told = found.lag_told;
            let is_time = told.is_none_or(|told| now.duration_since(told) >= LAG_INTERVAL);
            found.paused && !found.revoking && !found.ended && is_time
        };
        let due = Self::entries(self.select(is_due));
        for (partition, epoch, _) in &due {
            if let Some(found) = self.assignment(partition, *epoch) {
                found.lag_told = Some(now);
            }
        }
        due
    }

    /// Returns assignments in the order of their partitions.
    fn select(
        &self,
        is_selected: impl Fn(&MemberAssignment<T>) -> bool,
    ) -> Vec<(&Partition, &MemberAssignment<T>)> {
        let assignments = self.assignments.iter();
        let mut found: Vec<_> = assignments
            .filter(|(_, found)| is_selected(found))
            .collect();
        found.sort_unstable_by_key(|(partition, _)| *partition);
        found
    }

    fn entries(found: Vec<(&Partition, &MemberAssignment<T>)>) -> Vec<(Partition, Epoch, T)> {
        let entry = |(partition, found): (&Partition, &MemberAssignment<T>)| {
            (partition.clone(), found.epoch, found.kept.clone())
        };
        found.into_iter().map(entry).collect()
    }
}

impl PartitionEvent {
    /// Returns the event for the runtime.
    fn with_assignment(self, partition: &Partition, epoch: Epoch) -> Event {
        let partition = partition.clone();
        match self {
            Self::Records { records, lag } => Event::Records {
                partition,
                epoch,
                records,
                lag,
            },
            Self::Lag(lag) => Event::Lag {
                partition,
                epoch,
                lag,
            },
            Self::DataLoss { after, earliest } => Event::DataLoss {
                partition,
                epoch,
                after,
                earliest,
            },
            Self::Ended => Event::Ended { partition, epoch },
        }
    }
}
