//! Events of the driver, and back-pressure.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Member;
use super::visits::visited;
use crate::consumer::runtime::assignment::{Assignment, Leaving, Paused};
use crate::consumer::runtime::handler::Handler;
use crate::driver::{Event, StoredRecord};
use crate::telemetry::event;
use crate::{Epoch, Error, ErrorKind, Lag, OnDataLoss, Partition, Position};

/// The maximum of a drain's time that is reserved for the last checkpoint, and again for the release.
const LONGEST_RESERVE: Duration = Duration::from_millis(500);

impl<W: Handler> Member<W> {
    pub(super) fn on_event(&mut self, event: Event) {
        match event {
            Event::Assigned {
                partition,
                epoch,
                resume_after,
                stream_id,
            } => self.on_assigned(partition, epoch, resume_after, stream_id),
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
                // A closing member ignores new records. The end is behind them, and is left to the
                // next owner.
                let found = self.assignment_of(&partition, epoch);
                if let Some(index) = found.filter(|_| self.closing.is_none()) {
                    if self.assignments[index].leaving == Leaving::Active {
                        self.assignments[index].leaving = Leaving::Ended;
                        self.check_release(index);
                        self.mark_runnable(index);
                    }
                }
            }
        }
    }

    fn on_assigned(
        &mut self,
        partition: Partition,
        epoch: Epoch,
        resume_after: Option<Position>,
        stream_id: Option<Arc<str>>,
    ) {
        if let Some((older, _)) = self.index.get(&partition) {
            self.on_lost(*older);
        }
        event!(
            info, "millstream.consumer.assigned", group = %self.group,
            member = self.membership.id(), %partition, %epoch,
            resume_after = resume_after.map(tracing::field::display), "assigned"
        );
        self.control.counters.assigned.add(1);
        let mut assignment = Assignment::new(partition.clone(), epoch, resume_after, stream_id);
        if let Some(deadline) = self.closing {
            assignment.drain(deadline);
        }
        let by_user = self.control.requests().pauses(&partition);
        assignment.pause(
            Paused {
                by_user,
                by_max_unsettled: false,
                by_buffer: false,
                by_shutdown: self.closing.is_some(),
            },
            &*self.membership,
        );
        self.control
            .publish_stats(&partition, assignment.stats().clone());
        let index = self.assignments.insert(Box::new(assignment));
        if by_user {
            self.report_user_pause(&self.assignments[index]);
        }
        self.index.insert(partition, (index, epoch));
        self.count_partitions();
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
        assignment.receive(records, lag, self.now, &mut self.record_memory);
        if assignment.unsettled() >= self.options.max_unsettled_per_partition {
            assignment.pause(
                Paused {
                    by_max_unsettled: true,
                    ..assignment.paused
                },
                &*self.membership,
            );
        }
        self.count_bytes(index);
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
        if matches!(
            assignment.leaving,
            Leaving::Revoked { .. } | Leaving::Releasing
        ) {
            return;
        }
        // The end of the time is reserved for the last checkpoint and the release.
        let reserve = (within / 20).min(LONGEST_RESERVE);
        let skipped = failpoint!(DrainSkipped);
        let within = if skipped { Duration::ZERO } else { within };
        // This is not the time of the step, which may have begun long before.
        let now = Instant::now();
        let drained_by = now + within.saturating_sub(2 * reserve);
        let released_by = now + within.saturating_sub(reserve);
        assignment.drain(drained_by);
        assignment.leaving = Leaving::Revoked {
            drained_by,
            released_by,
        };
        self.departures.revoke(index, [drained_by, released_by]);
        self.handler.reclaim(&assignment.ownership);
        self.abandon_late_retries(index);
        self.check_release(index);
        self.mark_runnable(index);
    }

    /// Resumes a partition that has been settled far enough below its bounds.
    pub(super) fn resume_below_low_watermark(&mut self, index: usize) {
        let assignment = &mut self.assignments[index];
        if assignment.paused.by_max_unsettled
            && assignment.unsettled() <= self.options.max_unsettled_per_partition / 2
        {
            assignment.pause(
                Paused {
                    by_max_unsettled: false,
                    ..assignment.paused
                },
                &*self.membership,
            );
        }
        self.count_bytes(index);
    }

    /// Updates the budget with what an assignment holds, and pauses or resumes partitions by it.
    fn count_bytes(&mut self, index: usize) {
        let assignment = &mut self.assignments[index];
        if self.budget.is_tight() {
            assignment.drop_settled();
        }
        assignment.refresh_stats();
        let held = assignment.bytes();
        let before = std::mem::replace(&mut assignment.counted_bytes, held);
        self.budget.update(before, held);
        self.control
            .counters
            .buffered_bytes
            .set(self.budget.held() as u64);
        if self.budget_changes() {
            self.apply_budget();
        } else if self.buffer_full {
            let share = self.budget.share();
            if self.assignments[index].pause_beyond(share, true, &*self.membership) {
                self.mark_runnable(index);
            }
        }
    }

    /// Updates the shares after a partition was added or removed.
    pub(super) fn count_partitions(&mut self) {
        let share = self.budget.share();
        let held = self
            .assignments
            .iter()
            .inspect(|_| visited())
            .map(|(_, assignment)| assignment.counted_bytes);
        self.budget.set_partitions(self.assignments.len(), held);
        if self.budget.share() != share || self.budget_changes() {
            self.apply_budget();
        }
    }

    /// Returns whether the buffer has become full, or has room again. Otherwise a change of one partition does not
    /// affect the others. All are counted only when it does, since many may leave while the buffer is full.
    fn budget_changes(&self) -> bool {
        match self.buffer_full {
            true => self.budget.has_room(),
            false => self.budget.is_full(),
        }
    }

    /// Pauses partitions that hold more than their share while nothing more can be borrowed, and
    /// resumes them when there is room.
    fn apply_budget(&mut self) {
        if self.budget.is_full() {
            self.buffer_full = true;
        } else if self.budget.has_room() {
            self.buffer_full = false;
        }
        let share = self.budget.share();
        for index in self.indexes() {
            let assignment = &mut self.assignments[index];
            if assignment.pause_beyond(share, self.buffer_full, &*self.membership) {
                // A batch that waits to be full gets no more records.
                self.mark_runnable(index);
            }
        }
    }
}
