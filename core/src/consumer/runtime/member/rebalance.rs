//! The departure of partitions: drained and released, completed, or lost.

use std::collections::BTreeSet;
use std::task::{Context, Poll};

use futures_util::stream::StreamExt;
use tokio::time::{Instant, sleep};

use super::visits::visited;
use super::{Member, RETRY};
use crate::consumer::runtime::assignment::{Assignment, Leaving};
use crate::consumer::runtime::handler::Handler;
use crate::telemetry::{Causes, event};
use crate::{Epoch, Error, ErrorKind, Partition, Result};

/// The driver's result of a release or a completion.
pub(super) struct ReleaseResult {
    partition: Partition,
    epoch: Epoch,
    result: Result<()>,
    completed: bool,
}

/// The partitions that are leaving. A partition is checked only when something has changed for it, so a
/// rebalance of many partitions costs no more than their changes.
#[derive(Debug, Default)]
pub(super) struct Departures {
    /// The assignments to check.
    to_check: Vec<usize>,
    /// When the handlers of revoked partitions are dropped, and when the partitions are released.
    deadlines: BTreeSet<(Instant, usize)>,
    /// Whether the handlers of a closing member were dropped.
    drain_aborted: bool,
}

impl Departures {
    pub(super) fn revoke(&mut self, index: usize, deadlines: [Instant; 2]) {
        self.deadlines
            .extend(deadlines.map(|deadline| (deadline, index)));
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    fn forget(&mut self, assignment: &Assignment, index: usize) {
        if let Leaving::Revoked {
            drained_by,
            released_by,
        } = assignment.leaving
        {
            self.deadlines.remove(&(drained_by, index));
            self.deadlines.remove(&(released_by, index));
        }
    }
}

impl<W: Handler> Member<W> {
    /// Queues a leaving partition for a check whether it can be released.
    pub(super) fn check_release(&mut self, index: usize) {
        let assignment = &mut self.assignments[index];
        let leaves = matches!(assignment.leaving, Leaving::Ended | Leaving::Revoked { .. });
        if leaves && !std::mem::replace(&mut assignment.release_queued, true) {
            self.departures.to_check.push(index);
        }
    }

    /// Checks the queued partitions, and releases those that can be released.
    pub(super) fn advance_releases(&mut self) -> bool {
        let mut happened = self.abort_overdue_drains();
        for index in std::mem::take(&mut self.departures.to_check) {
            // It may be gone, and another one may have its index.
            let Some(assignment) = self.assignments.get_mut(index) else {
                continue;
            };
            if std::mem::take(&mut assignment.release_queued) {
                happened |= self.try_release(index);
            }
        }
        happened
    }

    /// Releases or completes a partition, if it can be. Returns whether the driver was called.
    fn try_release(&mut self, index: usize) -> bool {
        visited();
        let assignment = &mut self.assignments[index];
        let completed = match assignment.leaving {
            Leaving::Ended if assignment.unsettled() == 0 => true,
            Leaving::Revoked { .. } if assignment.is_drained() => false,
            _ => return false,
        };
        let overdue = matches!(
            assignment.leaving,
            Leaving::Revoked { released_by, .. } if released_by <= self.now
        );
        if !overdue && assignment.next_update().is_some() {
            self.checkpointer.request_now();
            return false;
        }
        self.departures.forget(assignment, index);
        assignment.leaving = Leaving::Releasing;
        let (partition, epoch) = (assignment.partition().clone(), assignment.epoch());
        let membership = self.membership.clone();
        self.releases.push(Box::pin(async move {
            let result = match completed {
                true => membership.complete(&partition, epoch).await,
                false => membership.release(&partition, epoch).await,
            };
            if completed && result.as_ref().is_err_and(Error::is_retryable) {
                sleep(RETRY).await;
            }
            ReleaseResult {
                partition,
                epoch,
                result,
                completed,
            }
        }));
        true
    }

    /// Drops the handlers of partitions whose drain took too long.
    fn abort_overdue_drains(&mut self) -> bool {
        let mut happened = false;
        while let Some((deadline, index)) = self.departures.deadlines.first().copied() {
            if deadline > self.now {
                break;
            }
            self.departures.deadlines.pop_first();
            self.abort_drain(index);
            self.check_release(index);
            happened = true;
        }
        let closes = self.closing.is_some_and(|deadline| deadline <= self.now);
        if closes && !std::mem::replace(&mut self.departures.drain_aborted, true) {
            self.indexes()
                .into_iter()
                .for_each(|index| self.abort_drain(index));
            happened = true;
        }
        happened
    }

    fn abort_drain(&mut self, index: usize) {
        let assignment = &mut self.assignments[index];
        if assignment.is_drained() {
            return;
        }
        if !assignment.ownership.is_lost() {
            event!(
                warn, "millstream.consumer.drain_timeout", group = %self.group,
                partition = %assignment.partition(), in_flight = assignment.in_flight(),
                "the drain took too long; handlers in flight are dropped, and their records are \
                 delivered again"
            );
            assignment.ownership.mark_lost();
        }
        assignment.window.abort_drain();
        self.abandon_retries(index);
        self.abandon_outstanding(index);
    }

    pub(super) fn poll_releases(&mut self, cx: &mut Context<'_>) -> bool {
        let mut happened = false;
        while let Poll::Ready(Some(released)) = self.releases.poll_next_unpin(cx) {
            self.on_released(released);
            happened = true;
        }
        happened
    }

    fn on_released(&mut self, released: ReleaseResult) {
        let ReleaseResult {
            partition,
            epoch,
            result,
            completed,
        } = released;
        let Some(index) = self.assignment_of(&partition, epoch) else {
            return;
        };
        match result {
            Ok(()) => {
                self.control.counters.released.add(1);
                self.report_unsettled(&self.assignments[index]);
                if completed {
                    event!(
                        info, "millstream.consumer.completed", group = %self.group, %partition,
                        %epoch, "completed: the partition is closed and settled"
                    );
                } else {
                    event!(
                        info, "millstream.consumer.released", group = %self.group, %partition,
                        %epoch, "released"
                    );
                }
                self.remove(index);
            }
            Err(error) if error.is_retryable() && completed => {
                event!(
                    warn, "millstream.consumer.completion_delayed", group = %self.group, %partition,
                    error = %Causes(&error), "completion not stored, will be retried"
                );
                self.assignments[index].leaving = Leaving::Ended;
                self.check_release(index);
            }
            Err(error) => {
                if error.kind() != ErrorKind::Fenced {
                    event!(
                        warn, "millstream.consumer.release_failed", group = %self.group, %partition,
                        error = %Causes(&error),
                        "release failed; the partition moves after its session timeout"
                    );
                }
                self.on_lost(index);
            }
        }
    }

    /// Removes an assignment at once: another member may own the partition already.
    pub(super) fn on_lost(&mut self, index: usize) {
        let assignment = self.remove(index);
        self.control.counters.lost.add(1);
        event!(
            warn, "millstream.consumer.lost", group = %self.group, member = self.membership.id(),
            partition = %assignment.partition(), epoch = %assignment.epoch(),
            in_flight = assignment.begun(), "lost"
        );
    }

    fn remove(&mut self, index: usize) -> Box<Assignment> {
        let assignment = self.assignments.remove(index);
        assignment.ownership.mark_lost();
        self.index.remove(assignment.partition());
        self.departures.forget(&assignment, index);
        for (first, run) in &assignment.waiting {
            if let Some(due) = run.due() {
                self.retries.remove(due, index, *first);
            }
        }
        if let Some(due) = assignment.batch_due {
            self.batches_due.remove(&(due, index));
        }
        self.forget_outstanding(index, &assignment.ownership, &assignment.outstanding);
        self.count_in_flight();
        self.control
            .counters
            .abandoned
            .add(assignment.begun() as u64);
        self.budget.update(assignment.counted_bytes, 0);
        self.release_output(assignment.outputs().size());
        self.bisection.forget(index);
        self.control
            .counters
            .buffered_bytes
            .set(self.budget.held() as u64);
        self.control
            .remove_stats(assignment.partition(), assignment.stats());
        // Its records may have filled the buffer, and no other record may settle while the buffer is full.
        self.count_partitions();
        assignment
    }

    /// Returns whether a closing member has nothing left to wait for. Cheap checks come first.
    pub(super) fn is_handed_over(&self) -> bool {
        self.checkpointer.is_idle()
            && self.releases.is_empty()
            && self.departures.deadlines.is_empty()
            && self.in_flight() == 0
            && self.assignments.iter().all(|(_, assignment)| {
                visited();
                let to_complete =
                    assignment.leaving == Leaving::Ended && assignment.unsettled() == 0;
                assignment.is_drained() && assignment.next_update().is_none() && !to_complete
            })
    }

    /// Drops everything that is left of a closing member, handlers in flight first, so that the next owner
    /// starts after they have ended.
    pub(super) fn clear(&mut self) {
        self.running.clear();
        self.checkpointer.abandon();
        for index in self.indexes() {
            self.remove(index);
        }
    }
}
