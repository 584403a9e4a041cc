//! Offset commits, one at a time.
//!
//! Commits are asynchronous, and the callback with their result names no request. So a second commit waits until
//! the first has its result. The offset where a partition restarts is stored the same way, by the member that owns
//! the partition: the broker accepts offsets for a group with members only from these members.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;

use super::assigned::{RestartPoint, Stage};
use super::assignment::Assignment;
use super::checkpoints::{Checkpoints, Sent};
use super::progress::Progress;
use crate::consumer::types::TopicPartition;

/// The delay before an offset that was not stored is stored again.
const PAUSE: Duration = Duration::from_millis(100);

/// Offsets to be committed.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) offsets: Vec<(TopicPartition, Progress)>,
    pub(crate) purpose: Purpose,
}

/// The purpose of a commit.
#[derive(Debug)]
pub(crate) enum Purpose {
    Checkpoint(Sent),
    /// The positions where partitions restart.
    Restarts(Vec<(TopicPartition, RestartPoint)>),
    /// Where the group begins in streams that it reads first with this member.
    InitialOffsets,
    /// The epochs of partitions that are being assigned.
    Claim,
    /// Offsets after the settled records, with only markers of transactions in between.
    Passed(Vec<(TopicPartition, i64)>),
    /// An offset that is already stored. The response shows whether the broker still knows the member.
    Probe(TopicPartition),
}

/// The result of a commit.
#[derive(Debug)]
pub(crate) enum CommitResult {
    /// The result for each partition: `None` is success. A partition that is missing was not stored.
    Each(HashMap<TopicPartition, Option<RDKafkaErrorCode>>),
    /// The commit failed as a whole.
    Failed(RDKafkaErrorCode),
}

impl CommitResult {
    /// Returns why the offset of a partition was not stored.
    pub(crate) fn code(&self, partition: &TopicPartition) -> Option<RDKafkaErrorCode> {
        match self {
            Self::Each(each) => {
                let missing = Some(RDKafkaErrorCode::Partial);
                each.get(partition).copied().unwrap_or(missing)
            }
            Self::Failed(code) => Some(*code),
        }
    }
}

/// The commit that is in flight, and the offsets to be committed next.
#[derive(Debug, Default)]
pub(crate) struct OffsetCommitter {
    pub(crate) checkpoints: Checkpoints,
    in_flight: Option<Purpose>,
    /// Whether a partition waits for its new position to be stored.
    has_restarts: bool,
    /// When to store positions again that were not stored.
    restarts_again_at: Option<Instant>,
    /// Whether a partition was read past markers, which no handler settles.
    has_passed: bool,
    /// Whether to ask the broker if it still knows the member.
    is_to_probe: bool,
}

impl OffsetCommitter {
    pub(crate) fn store_restarts(&mut self) {
        self.has_restarts = true;
    }

    pub(crate) fn store_restarts_again(&mut self, now: Instant) {
        self.restarts_again_at = Some(now + PAUSE);
    }

    pub(crate) fn store_passed(&mut self) {
        self.has_passed = true;
    }

    pub(crate) fn probe(&mut self) {
        self.is_to_probe = true;
    }

    /// Returns whether offsets are in flight. They may still arrive after later ones.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Returns whether checkpoints wait, or a commit is in flight.
    pub(crate) fn is_committing(&self) -> bool {
        self.in_flight.is_some() || !self.checkpoints.is_empty()
    }

    pub(crate) fn begin(&mut self, purpose: Purpose) {
        debug_assert!(self.in_flight.is_none(), "one at a time");
        self.in_flight = Some(purpose);
    }

    pub(crate) fn take_in_flight(&mut self) -> Option<Purpose> {
        self.in_flight.take()
    }

    /// Returns when the next commit is due without another event. `None` while a commit is in flight: its response
    /// comes first.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        match self.in_flight {
            Some(_) => None,
            None => {
                let checkpoint = self.checkpoints.next_due();
                checkpoint.into_iter().chain(self.restarts_again_at).min()
            }
        }
    }

    /// Returns the next checkpoint or restart to be committed.
    pub(crate) fn next(
        &mut self,
        assignment: &Assignment,
        generation: i32,
        now: Instant,
    ) -> Option<Commit> {
        if let Some((offsets, sent)) = self.checkpoints.send_next(assignment, generation, now) {
            let purpose = Purpose::Checkpoint(sent);
            return Some(Commit { offsets, purpose });
        }
        let again = self.restarts_again_at.take_if(|due| *due <= now);
        if !std::mem::take(&mut self.has_restarts) && again.is_none() {
            return None;
        }
        restarts(assignment)
    }

    /// Returns the commit to make when nothing else is to be committed.
    pub(crate) fn next_minor(&mut self, assignment: &Assignment) -> Option<Commit> {
        if std::mem::take(&mut self.has_passed) {
            if let Some(commit) = passed(assignment) {
                return Some(commit);
            }
        }
        match std::mem::take(&mut self.is_to_probe) {
            true => probe(assignment),
            false => None,
        }
    }
}

/// Returns the commit that stores the positions where partitions restart.
fn restarts(assignment: &Assignment) -> Option<Commit> {
    let each = assignment.iter().filter_map(|it| match it.stage {
        Stage::Restarting(at) => {
            let progress = at.progress(it.epoch);
            Some(((it.name.clone(), progress), (it.name.clone(), at)))
        }
        _ => None,
    });
    let (offsets, restarts): (Vec<_>, Vec<_>) = each.unzip();
    let purpose = Purpose::Restarts(restarts);
    (!offsets.is_empty()).then_some(Commit { offsets, purpose })
}

/// Returns the commit for partitions that are read to their ends, where only markers of transactions follow the
/// settled records. Without it their lag would never be seen as zero.
fn passed(assignment: &Assignment) -> Option<Commit> {
    let passed = assignment
        .iter()
        .filter(|it| it.is_passed() && it.stage == Stage::Owned);
    let each = passed.map(|it| {
        let progress = it.progress_at(it.position);
        ((it.name.clone(), progress), (it.name.clone(), it.position))
    });
    let (offsets, passed): (Vec<_>, Vec<_>) = each.unzip();
    let purpose = Purpose::Passed(passed);
    (!offsets.is_empty()).then_some(Commit { offsets, purpose })
}

/// Returns a commit of an offset that is already stored.
///
/// Only of offsets that this member has checkpointed. So nothing is committed here for a pipeline, whose progress is
/// stored in transactions: a delayed commit of an older offset could undo one.
fn probe(assignment: &Assignment) -> Option<Commit> {
    let ours = assignment
        .iter()
        .find(|it| it.has_checkpointed && it.is_owned())?;
    Some(Commit {
        offsets: vec![(ours.name.clone(), ours.progress_at(ours.committed))],
        purpose: Purpose::Probe(ours.name.clone()),
    })
}
