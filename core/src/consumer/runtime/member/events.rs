//! What the driver tells, and the back-pressure that answers it.

use std::time::Duration;

use super::Member;
use crate::consumer::runtime::assignment::{Assignment, Leaving, Paused};
use crate::consumer::runtime::handler::Handler;
use crate::driver::{Event, Membership, StoredRecord};
use crate::telemetry::event;
use crate::{Epoch, Error, ErrorKind, Lag, OnDataLoss, Partition, Position};

/// How much of the time for a drain is kept back, at the most, for a checkpoint and as much for a
/// release.
const LONGEST_RESERVE: Duration = Duration::from_millis(500);

impl<W: Handler> Member<W> {
    pub(super) fn on_event(&mut self, event: Event) {
        match event {
            Event::Assigned {
                partition,
                epoch,
                resume_after,
            } => self.on_assigned(partition, epoch, resume_after),
            Event::Records {
                partition,
                epoch,
                records,
                lag,
            } => self.on_records(&partition, epoch, records, lag),
            Event::Lag {
                partition,
                epoch,
                lag,
            } => {
                if let Some(index) = self.assignment_of(&partition, epoch) {
                    self.assignments[index].show_lag(lag);
                }
            }
            Event::DataLoss {
                partition,
                epoch,
                after,
                earliest,
            } => {
                self.on_data_loss(&partition, epoch, after, earliest);
            }
            Event::Revoking { partitions, within } => {
                for (partition, epoch) in partitions {
                    self.on_revoking(&partition, epoch, within);
                }
            }
            Event::Lost { partitions } => {
                for (partition, epoch) in partitions {
                    if let Some(index) = self.assignment_of(&partition, epoch) {
                        self.on_lost(index);
                    }
                }
            }
            Event::Ended { partition, epoch } => {
                // A member that closes lets records pass by that still come: the end is behind
                // them, and for the next owner.
                let found = self.assignment_of(&partition, epoch);
                if let Some(index) = found.filter(|_| self.closing.is_none()) {
                    if self.assignments[index].leaving == Leaving::Active {
                        self.assignments[index].leaving = Leaving::Ended;
                        self.leaving.push(index);
                    }
                }
            }
        }
    }

    fn on_assigned(&mut self, partition: Partition, epoch: Epoch, resume_after: Option<Position>) {
        if let Some((older, _)) = self.index.get(&partition) {
            self.on_lost(*older);
        }
        event!(
            info, "millstream.consumer.assigned", group = %self.group,
            member = self.membership.id(), %partition, %epoch,
            resume_after = resume_after.map(tracing::field::display), "assigned"
        );
        self.control.counters.assigned.add(1);
        let mut assignment = Assignment::new(partition.clone(), epoch, resume_after);
        if let Some(deadline) = self.closing {
            assignment.window.drain();
            assignment.ownership.drain_by(deadline);
        }
        let by_user = self.control.requests().pauses(&partition);
        assignment.pause(
            Paused {
                by_user,
                by_window: false,
                by_buffer: self.buffer_full,
            },
            &*self.membership,
        );
        self.control
            .publish_stats(&partition, assignment.stats().clone());
        let index = self.assignments.insert(assignment);
        self.index.insert(partition, (index, epoch));
    }

    fn on_records(
        &mut self,
        partition: &Partition,
        epoch: Epoch,
        records: Vec<StoredRecord>,
        lag: Lag,
    ) {
        let Some(index) = self.assignment_of(partition, epoch) else {
            return;
        };
        let assignment = &mut self.assignments[index];
        if self.closing.is_some()
            || matches!(
                assignment.leaving,
                Leaving::Revoked { .. } | Leaving::Releasing
            )
        {
            return;
        }
        self.control.counters.received.add(records.len() as u64);
        self.buffered += assignment.receive(records, lag);
        self.control
            .counters
            .buffered_bytes
            .set(self.buffered as u64);
        if assignment.window.len() >= self.options.window_records {
            assignment.pause(
                Paused {
                    by_window: true,
                    ..assignment.paused
                },
                &*self.membership,
            );
        }
        if self.buffered > self.options.buffer_bytes && !self.buffer_full {
            self.set_buffer_paused(true);
        }
        self.mark_runnable(index);
    }

    fn on_data_loss(
        &mut self,
        partition: &Partition,
        epoch: Epoch,
        after: Option<Position>,
        earliest: Position,
    ) {
        if self.assignment_of(partition, epoch).is_none() {
            return;
        }
        let message = match after {
            Some(after) => format!(
                "the records after {after} are gone by retention, the oldest left is {earliest}"
            ),
            None => {
                format!("the first records are gone by retention, the oldest left is {earliest}")
            }
        };
        match self.options.on_data_loss {
            OnDataLoss::Fail => {
                let message = format!(
                    "{message}; reset the group or use OnDataLoss::Skip to go on from there"
                );
                let error = Error::new(ErrorKind::DataLoss, "read", message);
                self.fail(
                    error
                        .with_partition(partition)
                        .with_group(self.group.clone()),
                );
            }
            OnDataLoss::Skip => {
                self.control.counters.data_losses.add(1);
                event!(
                    warn, "millstream.consumer.data_loss", group = %self.group, %partition,
                    "{message}"
                );
            }
        }
    }

    fn on_revoking(&mut self, partition: &Partition, epoch: Epoch, within: Duration) {
        let Some(index) = self.assignment_of(partition, epoch) else {
            return;
        };
        event!(
            info, "millstream.consumer.revoking", group = %self.group,
            member = self.membership.id(), %partition, %epoch, "revoking"
        );
        let assignment = &mut self.assignments[index];
        assignment.window.drain();
        match assignment.leaving {
            Leaving::Active => self.leaving.push(index),
            Leaving::Ended => {}
            Leaving::Revoked { .. } | Leaving::Releasing => return,
        }
        // The last of the time is for the last checkpoint, and for the release itself.
        let reserve = (within / 20).min(LONGEST_RESERVE);
        let skipped = failpoint!(DrainSkipped);
        let within = if skipped { Duration::ZERO } else { within };
        let drained_by = self.now + within.saturating_sub(2 * reserve);
        assignment.ownership.drain_by(drained_by);
        assignment.leaving = Leaving::Revoked {
            drained_by,
            released_by: self.now + within.saturating_sub(reserve),
        };
        self.mark_runnable(index);
    }

    /// Lifts the pauses that are no more needed after something was settled.
    pub(super) fn resume_below_low_watermark(&mut self, index: usize) {
        let assignment = &mut self.assignments[index];
        if assignment.paused.by_window && assignment.window.len() <= self.options.window_records / 2
        {
            assignment.pause(
                Paused {
                    by_window: false,
                    ..assignment.paused
                },
                &*self.membership,
            );
        }
        self.resume_buffer();
    }

    /// Lifts the pause of everything after bytes were given back.
    pub(super) fn resume_buffer(&mut self) {
        if self.buffer_full && self.buffered <= self.options.buffer_bytes / 2 {
            self.set_buffer_paused(false);
        }
    }

    /// Pauses or resumes everything, since the bytes of all partitions together have a bound.
    fn set_buffer_paused(&mut self, full: bool) {
        self.buffer_full = full;
        for (_, assignment) in &mut self.assignments {
            assignment.pause(
                Paused {
                    by_buffer: full,
                    ..assignment.paused
                },
                &*self.membership,
            );
        }
    }
}

impl Assignment {
    /// Tells the driver, if anything changes for it.
    pub(super) fn pause(&mut self, paused: Paused, membership: &dyn Membership) {
        let before = std::mem::replace(&mut self.paused, paused);
        match (before.any(), paused.any()) {
            (false, true) => membership.pause(self.partition(), self.epoch()),
            (true, false) => membership.resume(self.partition(), self.epoch()),
            _ => {}
        }
    }
}
