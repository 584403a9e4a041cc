//! Storing progress, one commit at a time.
//!
//! Commits are asynchronous and answered by a callback that names no request, so a second one waits
//! until the first is answered. A reset's new place is stored the same way, by the member that owns
//! the partition: the broker takes no offsets for a group with members from anyone else.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use millstream_core::Epoch;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::checkpoint::{Checkpoints, Sent};
use super::context::Name;
use super::poller::Poller;
use super::progress::Progress;
use super::slots::Stage;
use crate::error::is_gone;
use crate::group::note::Note;
use crate::native::leader_epoch;

#[derive(Debug, Default)]
pub(super) struct Commits {
    pub(super) checkpoints: Checkpoints,
    under_way: Option<UnderWay>,
    /// Whether a partition waits for its new place.
    moves: bool,
    /// When to store new places again that were not stored.
    moves_again: Option<Instant>,
    /// Whether to store where the group begins in streams that it reads first with this member.
    initial_offsets: bool,
    /// Whether a partition was passed by marks that nobody settles.
    passed: bool,
    /// Whether the broker is to be asked if it still knows the member.
    probe: bool,
}

#[derive(Debug)]
enum UnderWay {
    Checkpoint(Sent),
    Moves,
    InitialOffsets,
    Claim,
    /// What follows settled records and is nothing for readers.
    Passed(Vec<(Name, i64)>),
    /// What is stored already.
    Again(Name),
}

impl Commits {
    pub(super) fn hurry(&mut self) {
        self.moves = true;
    }

    pub(super) fn store_initial_offsets(&mut self) {
        self.initial_offsets = true;
    }

    pub(super) fn pass(&mut self) {
        self.passed = true;
    }

    pub(super) fn probe(&mut self) {
        self.probe = true;
    }

    /// Whether offsets are on their way to the broker, which may still come after later ones.
    pub(super) fn is_sent(&self) -> bool {
        self.under_way.is_some()
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some() || !self.checkpoints.is_empty()
    }

    /// When time alone makes a commit due. None while one is under way, whose answer comes first.
    pub(super) fn next_due(&self) -> Option<Instant> {
        match self.under_way {
            Some(_) => None,
            None => {
                let checkpoint = self.checkpoints.next_due();
                checkpoint.into_iter().chain(self.moves_again).min()
            }
        }
    }

    fn take_moves(&mut self, now: Instant) -> bool {
        let again = self.moves_again.take_if(|due| *due <= now).is_some();
        std::mem::take(&mut self.moves) || again
    }

    /// Drops what waits; whoever asked is told by the dropped reply.
    pub(super) fn give_up(&mut self) {
        *self = Self::default();
    }
}

impl Poller {
    /// Begins the next commit, if none is under way.
    pub(super) fn commit(&mut self) {
        while self.commits.under_way.is_none() {
            if let Some(checkpoint) = self.next_checkpoint() {
                let (list, sent) = self.prepare(checkpoint);
                self.begin_commit(&list, UnderWay::Checkpoint(sent));
            } else if self.commits.take_moves(Instant::now()) {
                self.commit_moves();
            } else if self.is_claim_due() {
                let list = self.claimed_offsets();
                self.begin_commit(&list, UnderWay::Claim);
            } else if std::mem::take(&mut self.commits.initial_offsets) {
                self.commit_initial_offsets();
            } else if std::mem::take(&mut self.commits.passed) {
                self.commit_passed();
            } else if std::mem::take(&mut self.commits.probe) {
                self.commit_again();
            } else {
                return;
            }
        }
    }

    fn commit_moves(&mut self) {
        let mut list = TopicPartitionList::new();
        for (_, slot) in self.slots.iter() {
            if let Stage::Moving(to) = slot.stage {
                let progress = Progress {
                    next: to.offset,
                    leader_epoch: None,
                    note: Note {
                        epoch: None,
                        reset: to.reset,
                        claim: Some(Epoch(slot.epoch.0 + 1)),
                        topic: to.topic_id,
                    },
                };
                add(&mut list, &slot.name, progress);
            }
        }
        self.begin_commit(&list, UnderWay::Moves);
    }

    /// Stores where the group begins. Only a member may, in a group that has some.
    fn commit_initial_offsets(&mut self) {
        let mut list = TopicPartitionList::new();
        for (name, next) in self.initial_offsets.left() {
            add(&mut list, &name, Progress::at(next));
        }
        self.begin_commit(&list, UnderWay::InitialOffsets);
    }

    /// Stores that a partition is read to its end, where only marks of transactions follow what was
    /// settled. Otherwise its lag would never be seen to be nothing.
    fn commit_passed(&mut self) {
        let mut list = TopicPartitionList::new();
        let mut passed = Vec::new();
        for (_, slot) in self.slots.iter() {
            if slot.is_passed() && slot.stage == Stage::Owned {
                add(&mut list, &slot.name, slot.progress_at(slot.next));
                passed.push((slot.name.clone(), slot.next));
            }
        }
        self.begin_commit(&list, UnderWay::Passed(passed));
    }

    /// Stores what is stored, for the answer: whether the broker still knows the member.
    ///
    /// Only what this member has checkpointed. So a chain asks for nothing here, whose progress is
    /// stored in transactions, beside which an older one could come late and undo it.
    fn commit_again(&mut self) {
        let ours = self.slots.indices(|slot| {
            slot.checkpointed && matches!(slot.stage, Stage::Owned | Stage::Draining { .. })
        });
        let Some(first) = ours.first() else {
            return;
        };
        let slot = self.slots.get(*first);
        let (name, mut list) = (slot.name.clone(), TopicPartitionList::new());
        add(&mut list, &name, slot.progress_at(slot.stored));
        self.begin_commit(&list, UnderWay::Again(name));
    }

    fn begin_commit(&mut self, list: &TopicPartitionList, under_way: UnderWay) {
        self.commits.under_way = Some(under_way);
        if list.count() == 0 {
            self.on_committed(&[]);
        } else if let Err(code) = self.queue.commit(list) {
            self.on_not_committed(code);
        }
    }

    pub(super) fn on_not_committed(&mut self, code: RDKafkaErrorCode) {
        self.settle(|_| Some(code));
    }

    pub(super) fn on_committed(&mut self, each: &[(Name, Option<RDKafkaErrorCode>)]) {
        let codes: HashMap<(&str, i32), Option<RDKafkaErrorCode>> = each
            .iter()
            .map(|((topic, partition), code)| ((&**topic, *partition), *code))
            .collect();
        // A partition that the answer does not name was not stored.
        let missing = Some(RDKafkaErrorCode::Partial);
        self.settle(|name| codes.get(&(&*name.0, name.1)).copied().unwrap_or(missing));
    }

    fn settle(&mut self, code: impl Fn(&Name) -> Option<RDKafkaErrorCode>) {
        match self.commits.under_way.take() {
            Some(UnderWay::Checkpoint(sent)) => self.settle_checkpoint(sent, code),
            Some(UnderWay::Moves) => self.settle_moves(code),
            Some(UnderWay::Claim) => self.settle_claim(code),
            Some(UnderWay::InitialOffsets) => {
                let now = Instant::now();
                self.initial_offsets
                    .on_stored(now, |name| code(name).is_none());
            }
            Some(UnderWay::Passed(passed)) => {
                for (name, next) in passed {
                    let index = self.slots.find(&name.0, name.1);
                    if let (Some(index), None) = (index, code(&name)) {
                        self.slots.get_mut(index).set_stored(next);
                    }
                }
            }
            Some(UnderWay::Again(name)) if code(&name).is_some_and(is_gone) => {
                self.lose(|_| true);
            }
            // The member is still known; or an answer that came after it was lost.
            Some(UnderWay::Again(_)) | None => {}
        }
    }

    fn settle_moves(&mut self, code: impl Fn(&Name) -> Option<RDKafkaErrorCode>) {
        for index in self
            .slots
            .indices(|slot| matches!(slot.stage, Stage::Moving(_)))
        {
            let slot = self.slots.get(index);
            let Stage::Moving(to) = slot.stage else {
                continue;
            };
            match code(&slot.name) {
                None => self.restart(index, to),
                Some(code) if is_gone(code) => {
                    self.lose(|_| true);
                    return;
                }
                Some(_) => self.commits.moves_again = Some(Instant::now() + PAUSE),
            }
        }
    }
}

/// How soon a new place is stored again that was not stored.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) fn add(list: &mut TopicPartitionList, name: &Name, progress: Progress) {
    let mut element = list.add_partition(&name.0, name.1);
    let set = element.set_offset(Offset::Offset(progress.next));
    debug_assert!(set.is_ok(), "offsets of Kafka are not negative");
    element.set_metadata(progress.note.to_metadata());
    if let Some(epoch) = progress.leader_epoch {
        leader_epoch::set_of_last(list, epoch);
    }
}
