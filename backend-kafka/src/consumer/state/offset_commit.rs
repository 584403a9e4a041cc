//! Offset commits, one at a time.
//!
//! Commits are asynchronous, and the callback that answers one names no request. So a second one waits
//! until the first is answered. The place where a partition restarts is stored the same way, by the
//! member that owns it: the broker takes no offsets for a group with members from anyone else.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;

use super::assigned::{RestartPoint, Stage};
use super::assignment::Assignment;
use super::checkpoints::{Checkpoints, Sent};
use super::progress::Progress;
use crate::consumer::types::TopicPartition;

/// How soon a place is stored again that was not stored.
const PAUSE: Duration = Duration::from_millis(100);

/// Offsets to be committed.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) offsets: Vec<(TopicPartition, Progress)>,
    pub(crate) purpose: Purpose,
}

/// What a commit is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    Checkpoint(Sent),
    /// The places where partitions restart.
    Restarts(Vec<(TopicPartition, RestartPoint)>),
    /// Where the group begins in streams that it reads first with this member.
    InitialOffsets,
    /// The epochs of partitions that are being assigned.
    Claim,
    /// Offsets behind what is settled, where only markers of transactions are between.
    Passed(Vec<(TopicPartition, i64)>),
    /// What is stored already, for the answer: whether the broker still knows the member.
    Probe(TopicPartition),
}

/// What became of a commit.
#[derive(Debug)]
pub(crate) enum CommitResult {
    /// The answer for each partition: `None` is success. One that it does not name was not stored.
    Each(HashMap<TopicPartition, Option<RDKafkaErrorCode>>),
    /// It failed as a whole.
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

/// The commit that is in flight, and what is to be committed next.
#[derive(Debug, Default)]
pub(crate) struct OffsetCommitter {
    pub(crate) checkpoints: Checkpoints,
    in_flight: Option<Purpose>,
    /// Whether a partition waits for its new place to be stored.
    has_restarts: bool,
    /// When to store places again that were not stored.
    restarts_again_at: Option<Instant>,
    /// Whether a partition was passed by markers that nobody settles.
    has_passed: bool,
    /// Whether the broker is to be asked if it still knows the member.
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

    /// Whether offsets are on their way to the broker, which may still come after later ones.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether checkpoints wait, or a commit is in flight.
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

    /// When time alone makes a commit due. None while one is in flight, whose answer comes first.
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

    /// Returns what is to be committed when nothing else is.
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

/// Stores the places where partitions restart.
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

/// Stores that partitions are read to their ends, where only markers of transactions follow what was
/// settled. Otherwise their lag would never be seen to be nothing.
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

/// Stores what is stored.
///
/// Only what this member has checkpointed. So a pipeline asks for nothing here, whose progress is
/// stored in transactions, beside which an older one could come late and undo it.
fn probe(assignment: &Assignment) -> Option<Commit> {
    let ours = assignment
        .iter()
        .find(|it| it.has_checkpointed && it.is_owned())?;
    Some(Commit {
        offsets: vec![(ours.name.clone(), ours.progress_at(ours.committed))],
        purpose: Purpose::Probe(ours.name.clone()),
    })
}
