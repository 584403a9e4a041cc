//! Checkpoints: when they are due, and what becomes of them.
//!
//! One call at most is under way. It carries the progress of all partitions that moved since the
//! last one, so that what it costs depends on time and not on the number of records.

use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::publishing::Publication;
use super::{RETRY, Session};
use crate::driver::Mark;
use crate::runtime::assignment::Assignment;
use crate::runtime::attempt::Work;
use crate::telemetry::tell;
use crate::{Error, ErrorKind, Result};

/// How a call has ended.
pub(super) enum Stored {
    /// Progress alone: the marks, with the driver's answer to each.
    Alone(Vec<Mark>, Vec<Result<()>>),
    /// Progress with what was made below it: one answer for all.
    Published(Publication, Result<()>),
}

/// The checkpoints of one member.
pub(super) struct Progress {
    /// How often one is due.
    interval: Duration,
    /// When the next one is due, if anything is dirty.
    due: Instant,
    /// Assignments that were settled further since their last mark, each once.
    dirty: Vec<usize>,
    /// Records settled since the last call.
    settled: u64,
    /// Results staged since the last call.
    made: u64,
    /// Whether a partition that leaves waits for its mark.
    urgent: bool,
    /// Whether the last one was not stored: the next one waits for its time even if it is urgent.
    failed: bool,
    under_way: Option<BoxFuture<'static, Stored>>,
}

impl Progress {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            due: Instant::now() + interval,
            dirty: Vec::new(),
            settled: 0,
            made: 0,
            urgent: false,
            failed: false,
            under_way: None,
        }
    }

    /// When time alone makes a checkpoint due.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.under_way.is_none() && !self.dirty.is_empty()).then_some(self.due)
    }

    pub(super) fn settled(&mut self, assignment: &mut Assignment, index: usize, records: u64) {
        self.settled += records;
        if !std::mem::replace(&mut assignment.dirty, true) {
            self.dirty.push(index);
        }
    }

    /// Counts results that wait for the next call.
    pub(super) fn made(&mut self, records: u64) {
        self.made += records;
    }

    /// Gives a call up that is under way.
    pub(super) fn abandon(&mut self) {
        self.under_way = None;
    }

    /// Asks for a checkpoint as soon as none is under way.
    pub(super) fn hurry(&mut self) {
        self.urgent = true;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_none()
    }
}

impl<W: Work> Session<W> {
    pub(super) fn poll_progress(&mut self, cx: &mut Context<'_>) -> bool {
        self.begin_checkpoint();
        let Some(call) = &mut self.progress.under_way else {
            return false;
        };
        let Poll::Ready(stored) = call.as_mut().poll(cx) else {
            return false;
        };
        self.progress.under_way = None;
        match stored {
            Stored::Alone(marks, results) => {
                for (mark, result) in marks.iter().zip(results) {
                    match result {
                        Ok(()) => self.on_stored(mark),
                        Err(error) => self.on_unstored(std::slice::from_ref(mark), error),
                    }
                }
            }
            Stored::Published(publication, result) => self.on_published(publication, result),
        }
        true
    }

    fn begin_checkpoint(&mut self) {
        let stalled = self.is_stalled();
        let progress = &mut self.progress;
        let last = self.closing.is_some() && self.running.is_empty();
        let enough = self.options.checkpoint_records;
        let early = last
            || progress.urgent
            || progress.settled >= enough
            || progress.made >= enough
            || stalled;
        let due = (early && !progress.failed) || progress.due <= self.now;
        if !due || progress.dirty.is_empty() || progress.under_way.is_some() || self.broken {
            return;
        }
        progress.due = self.now + progress.interval;
        progress.settled = 0;
        progress.made = 0;
        progress.urgent = false;
        progress.failed = false;
        let mut marks = Vec::with_capacity(progress.dirty.len());
        for index in progress.dirty.drain(..) {
            let Some(assignment) = self.assignments.get_mut(index) else {
                continue;
            };
            if std::mem::take(&mut assignment.dirty) {
                assignment.publish();
                marks.extend(assignment.mark());
            }
        }
        if marks.is_empty() {
            return;
        }
        let membership = self.membership.clone();
        let call: BoxFuture<'static, Stored> = match self.work.publishes_to().cloned() {
            None => Box::pin(async move {
                let results = membership.checkpoint(&marks).await;
                Stored::Alone(marks, results)
            }),
            Some(stream) => {
                let publication = self.publication(marks);
                Box::pin(async move {
                    let result = publication.publish(&*membership, &stream).await;
                    Stored::Published(publication, result)
                })
            }
        };
        self.progress.under_way = Some(call);
    }

    pub(super) fn on_stored(&mut self, mark: &Mark) {
        let Some(index) = self.find(&mark.partition, mark.epoch) else {
            return;
        };
        self.board.counters.checkpoints.add(1);
        tell!(
            debug, "millstream.consumer.checkpointed", group = %self.group,
            partition = %mark.partition, epoch = %mark.epoch, position = %mark.position,
            "checkpointed"
        );
        self.assignments[index].stored = Some(mark.position);
    }

    /// Takes in that none of these marks was stored. Those of partitions that are not owned any
    /// more do not matter.
    pub(super) fn on_unstored(&mut self, marks: &[Mark], error: Error) {
        let mut ends_membership = false;
        for mark in marks {
            let Some(index) = self.find(&mark.partition, mark.epoch) else {
                continue;
            };
            if error.kind() == ErrorKind::Fenced {
                tell!(
                    warn, "millstream.consumer.fenced", group = %self.group,
                    partition = %mark.partition, epoch = %mark.epoch,
                    "checkpoint refused: the partition has a newer owner"
                );
                self.lose(index);
            } else if error.is_retryable() {
                tell!(
                    warn, "millstream.consumer.checkpoint_delayed", group = %self.group,
                    partition = %mark.partition, %error,
                    "checkpoint not stored, the next one takes it along"
                );
                self.progress
                    .settled(&mut self.assignments[index], index, 0);
                self.progress.failed = true;
                self.progress.due = self.now + RETRY.min(self.progress.interval);
            } else {
                ends_membership = true;
            }
        }
        if ends_membership {
            self.on_refused(error);
        }
    }

    pub(super) fn on_refused(&mut self, error: Error) {
        self.broken = true;
        self.fail(error.with_group(self.group.clone()));
    }
}
