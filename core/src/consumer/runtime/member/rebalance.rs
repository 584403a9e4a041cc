//! How partitions leave: drained and released, completed, or lost.

use std::task::{Context, Poll};

use futures_util::stream::StreamExt;
use tokio::time::{Instant, sleep};

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

impl Assignment {
    /// When its handlers are dropped and when it is released, if it was revoked.
    pub(super) fn deadlines(&self) -> Option<(Instant, Instant)> {
        match self.leaving {
            Leaving::Revoked {
                drained_by,
                released_by,
            } => Some((drained_by, released_by)),
            Leaving::Active | Leaving::Ended | Leaving::Releasing => None,
        }
    }
}

impl<W: Handler> Member<W> {
    /// Takes each partition that leaves one step further, if it can go.
    pub(super) fn advance_releases(&mut self) -> bool {
        let mut happened = self.abort_overdue_drains();
        let mut position = 0;
        while let Some(index) = self.leaving.get(position).copied() {
            if self.try_release(index) {
                self.leaving.swap_remove(position);
                happened = true;
            } else {
                position += 1;
            }
        }
        happened
    }

    /// Returns whether the driver was called.
    fn try_release(&mut self, index: usize) -> bool {
        let assignment = &mut self.assignments[index];
        let completed = match assignment.leaving {
            Leaving::Ended if assignment.window.len() == 0 => true,
            Leaving::Revoked { .. } if assignment.is_drained() => false,
            _ => return false,
        };
        let overdue = assignment
            .deadlines()
            .is_some_and(|(_, released_by)| released_by <= self.now);
        if !overdue && assignment.mark().is_some() {
            self.checkpointer.request_now();
            return false;
        }
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

    /// Drops the handlers of partitions that have drained for too long.
    fn abort_overdue_drains(&mut self) -> bool {
        let now = self.now;
        let mut happened = false;
        for index in self.leaving.clone() {
            let assignment = &self.assignments[index];
            if assignment
                .deadlines()
                .is_some_and(|(drained_by, _)| drained_by <= now)
                && !assignment.is_drained()
            {
                self.abort_drain(index);
                happened = true;
            }
        }
        if self.closing.is_some_and(|deadline| deadline <= now) {
            let all: Vec<usize> = self.assignments.iter().map(|(index, _)| index).collect();
            for index in all {
                if !self.assignments[index].is_drained() {
                    self.abort_drain(index);
                    happened = true;
                }
            }
        }
        happened
    }

    fn abort_drain(&mut self, index: usize) {
        let assignment = &mut self.assignments[index];
        if !assignment.ownership.lost.is_cancelled() {
            event!(
                warn, "millstream.consumer.drain_timeout", group = %self.group,
                partition = %assignment.partition(), in_flight = assignment.window.running(),
                "the drain took too long; deliveries in flight are dropped and come again"
            );
            assignment.ownership.lost.cancel();
        }
        assignment.window.abort_drain();
    }

    pub(super) fn poll_releases(&mut self, cx: &mut Context<'_>) -> bool {
        let Poll::Ready(Some(answer)) = self.releases.poll_next_unpin(cx) else {
            return false;
        };
        let ReleaseResult {
            partition,
            epoch,
            result,
            completed,
        } = answer;
        let Some(index) = self.assignment_of(&partition, epoch) else {
            return true;
        };
        match result {
            Ok(()) => {
                self.control.counters.released.add(1);
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
                    error = %Causes(&error), "completion not stored, trying again"
                );
                self.assignments[index].leaving = Leaving::Ended;
                self.leaving.push(index);
            }
            Err(error) => {
                if error.kind() != ErrorKind::Fenced {
                    event!(
                        warn, "millstream.consumer.release_failed", group = %self.group, %partition,
                        error = %Causes(&error), "release failed; the partition goes on after its time-out"
                    );
                }
                self.on_lost(index);
            }
        }
        true
    }

    /// Stops everything of an assignment at once: others may have the partition already.
    pub(super) fn on_lost(&mut self, index: usize) {
        let assignment = self.remove(index);
        self.control.counters.lost.add(1);
        event!(
            warn, "millstream.consumer.lost", group = %self.group, member = self.membership.id(),
            partition = %assignment.partition(), epoch = %assignment.epoch(),
            in_flight = assignment.window.running(), "lost"
        );
    }

    fn remove(&mut self, index: usize) -> Assignment {
        let assignment = self.assignments.remove(index);
        assignment.ownership.lost.cancel();
        self.index.remove(assignment.partition());
        self.leaving.retain(|leaving| *leaving != index);
        self.budget.update(assignment.counted_bytes, 0);
        self.release_output(assignment.outputs.size());
        self.control
            .counters
            .buffered_bytes
            .set(self.budget.held() as u64);
        self.control
            .remove_stats(assignment.partition(), assignment.stats());
        // What went with it may have been what filled the buffer, and nothing else may ever be
        // settled.
        self.count_partitions();
        assignment
    }

    /// Whether a member that closes has nothing left to wait for.
    pub(super) fn is_handed_over(&self) -> bool {
        self.checkpointer.is_idle()
            && self.releases.is_empty()
            && self
                .leaving
                .iter()
                .all(|index| self.assignments[*index].deadlines().is_none())
            && self.assignments.iter().all(|(_, assignment)| {
                let to_complete =
                    assignment.leaving == Leaving::Ended && assignment.window.len() == 0;
                assignment.is_drained() && assignment.mark().is_none() && !to_complete
            })
    }

    /// Drops all that is left when the member goes, the handlers in flight first: whoever takes over
    /// begins after they have ended.
    pub(super) fn clear(&mut self) {
        self.running.clear();
        self.checkpointer.abandon();
        let all: Vec<usize> = self.assignments.iter().map(|(index, _)| index).collect();
        for index in all {
            self.remove(index);
        }
    }
}
