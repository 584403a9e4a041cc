//! Checkpoints: when they are due, and what becomes of them.
//!
//! One call at most is under way. It carries the progress of all partitions that moved since the
//! last one, so that what it costs depends on time and not on the number of records.

use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::{RETRY, Session};
use crate::driver::Mark;
use crate::runtime::assignment::Assignment;
use crate::runtime::attempt::Work;
use crate::telemetry::tell;
use crate::{Error, ErrorKind, Result};

/// The marks of one call, with the driver's answer to each.
type Stored = (Vec<Mark>, Vec<Result<()>>);

/// The checkpoints of one member.
pub(super) struct Progress {
    /// When the next one is due, if anything is dirty.
    due: Instant,
    /// Assignments that were settled further since their last mark, each once.
    dirty: Vec<usize>,
    /// Records settled since the last call.
    settled: u64,
    /// Whether a partition that leaves waits for its mark.
    urgent: bool,
    /// Whether the last one was not stored: the next one waits for its time even if it is urgent.
    failed: bool,
    under_way: Option<BoxFuture<'static, Stored>>,
}

impl Progress {
    pub(super) fn new(due: Instant) -> Self {
        Self {
            due,
            dirty: Vec::new(),
            settled: 0,
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
        let Poll::Ready((marks, results)) = call.as_mut().poll(cx) else {
            return false;
        };
        self.progress.under_way = None;
        for (mark, result) in marks.iter().zip(results) {
            self.on_stored(mark, result);
        }
        true
    }

    fn begin_checkpoint(&mut self) {
        let progress = &mut self.progress;
        let last = self.closing.is_some() && self.running.is_empty();
        let early = last || progress.urgent || progress.settled >= self.options.checkpoint_records;
        let due = (early && !progress.failed) || progress.due <= self.now;
        if !due || progress.dirty.is_empty() || progress.under_way.is_some() || self.broken {
            return;
        }
        progress.due = self.now + self.options.checkpoint_interval;
        progress.settled = 0;
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
        progress.under_way = Some(Box::pin(async move {
            let results = membership.checkpoint(&marks).await;
            (marks, results)
        }));
    }

    fn on_stored(&mut self, mark: &Mark, result: Result<()>) {
        let Some(index) = self.find(&mark.partition, mark.epoch) else {
            return;
        };
        match result {
            Ok(()) => {
                self.board.counters.checkpoints.add(1);
                tell!(
                    debug, "millstream.consumer.checkpointed", group = %self.group,
                    partition = %mark.partition, epoch = %mark.epoch, position = %mark.position,
                    "checkpointed"
                );
                self.assignments[index].stored = Some(mark.position);
            }
            Err(error) if error.kind() == ErrorKind::Fenced => {
                tell!(
                    warn, "millstream.consumer.fenced", group = %self.group,
                    partition = %mark.partition, epoch = %mark.epoch,
                    "checkpoint refused: the partition has a newer owner"
                );
                self.lose(index);
            }
            Err(error) if error.is_retryable() => {
                tell!(
                    warn, "millstream.consumer.checkpoint_delayed", group = %self.group,
                    partition = %mark.partition, %error,
                    "checkpoint not stored, the next one takes it along"
                );
                self.progress
                    .settled(&mut self.assignments[index], index, 0);
                self.progress.failed = true;
                self.progress.due = self.now + RETRY.min(self.options.checkpoint_interval);
            }
            Err(error) => self.on_refused(error),
        }
    }

    fn on_refused(&mut self, error: Error) {
        self.broken = true;
        self.fail(error.with_group(self.group.clone()));
    }
}
