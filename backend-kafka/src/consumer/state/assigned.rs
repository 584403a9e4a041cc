//! One partition of a member.

use std::time::Instant;

use millstream_core::driver::Event;
use millstream_core::{Epoch, Partition};

use super::lag::Lagging;
use super::leader_epochs::LeaderEpochs;
use super::open_transaction::OpenTransaction;
use super::progress::{NewPartition, Progress};
use super::stall::Stall;
use crate::consumer::types::{FetchPosition, TopicPartition};
use crate::group::note::Note;
use crate::native::consume::FetchFailure;
use crate::native::topic_ids::TopicId;
use crate::offsets;

/// A partition that is assigned to the member.
#[derive(Debug)]
pub(crate) struct Assigned {
    pub(crate) name: TopicPartition,
    pub(crate) partition: Partition,
    pub(crate) epoch: Epoch,
    /// The id of the topic that is read, if the broker has told it or a note has it.
    pub(crate) topic_id: Option<TopicId>,
    /// The same, only if the broker has told it at the assignment.
    pub(crate) stream_id: Option<TopicId>,
    /// Which of the member's assignments it came with, counted from 1.
    pub(crate) assignment: u64,
    /// The offset after the last record that was delivered to the runtime.
    pub(crate) delivered: i64,
    /// The offset to read next: further than `delivered` where what follows is nothing for readers, as
    /// the markers of transactions are not.
    pub(crate) position: i64,
    /// The offset that is stored as the group's progress.
    pub(crate) committed: i64,
    pub(crate) leader_epochs: LeaderEpochs,
    /// Whether it was this member that stored `committed`, by a checkpoint.
    pub(crate) has_checkpointed: bool,
    /// The last reset that its progress obeys.
    pub(crate) reset: Option<u64>,
    pub(crate) stage: Stage,
    pub(crate) pause: Option<Pause>,
    /// Until when its records are to be forwarded again, if it was assigned anew and nothing has come
    /// since: librdkafka ends the forward some time after it was unassigned.
    pub(crate) forward_until: Option<Instant>,
    /// Whether librdkafka's position may be beyond a record that never came, since a fetch has failed
    /// after the last one that did.
    pub(crate) position_is_suspect: bool,
    /// The failed fetch that the partition's bounds are asked for. librdkafka fetches no more of the
    /// partition until it is assigned anew.
    pub(crate) out_of_range: Option<FetchFailure>,
    /// Fetches that have failed since the last record came.
    pub(crate) failed_fetches: Stall,
    /// Whether it has no leader.
    pub(crate) missing_leader: Stall,
    pub(crate) lagging: Lagging,
    pub(crate) open_transaction: OpenTransaction,
}

/// How far a partition is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The runtime has it.
    Owned,
    /// The runtime drains it, until then at most.
    Draining {
        until: Instant,
        /// Where it restarts, if it stays with this member.
        restart: Option<RestartPoint>,
    },
    /// The runtime is done with it, or was told that it is lost.
    Released,
    /// As `Released`; the offset at which it restarts is being stored.
    Restarting(RestartPoint),
}

/// Where a partition restarts with the same member: at an offset that a reset asks for, or at the
/// beginning of a topic that was created again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RestartPoint {
    pub(crate) offset: i64,
    /// The last reset that is obeyed there.
    pub(crate) reset: Option<u64>,
    /// See [`Assigned::topic_id`].
    pub(crate) topic_id: Option<TopicId>,
    /// See [`Assigned::stream_id`].
    pub(crate) stream_id: Option<TopicId>,
}

/// A pause that the runtime asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pause {
    pub(crate) since: Instant,
    /// Whether librdkafka was told, too.
    pub(crate) is_hard: bool,
}

impl RestartPoint {
    /// What to store before a partition restarts here that has this epoch.
    pub(crate) fn progress(&self, Epoch(epoch): Epoch) -> Progress {
        Progress {
            next: self.offset,
            leader_epoch: None,
            note: Note {
                epoch: None,
                reset: self.reset,
                claim: Some(Epoch(epoch + 1)),
                topic: self.topic_id,
            },
        }
    }
}

impl Assigned {
    /// A partition as it is taken over.
    pub(crate) fn new(new: NewPartition, epoch: Epoch, assignment: u64) -> Self {
        let stored = new.progress;
        let note = stored.map_or_else(Note::default, |progress| progress.note);
        let next = stored.map_or(0, |progress| progress.next);
        let leader_epoch = stored.and_then(|progress| progress.leader_epoch);
        Self {
            partition: Partition::new(new.name.0.clone(), new.name.1.to_string()),
            name: new.name,
            epoch,
            topic_id: new.stream_id.or(note.topic),
            stream_id: new.stream_id,
            assignment,
            delivered: next,
            position: next,
            committed: next,
            leader_epochs: LeaderEpochs::at(next, leader_epoch),
            has_checkpointed: false,
            reset: note.reset,
            stage: Stage::Owned,
            pause: None,
            forward_until: None,
            position_is_suspect: false,
            out_of_range: None,
            failed_fetches: Stall::default(),
            missing_leader: Stall::default(),
            lagging: Lagging::default(),
            open_transaction: OpenTransaction::default(),
        }
    }

    /// Begins it anew from another place, in a new epoch.
    pub(crate) fn restart(&mut self, at: RestartPoint) {
        self.epoch = Epoch(self.epoch.0 + 1);
        self.topic_id = at.topic_id;
        self.stream_id = at.stream_id;
        self.delivered = at.offset;
        self.position = at.offset;
        self.committed = at.offset;
        self.leader_epochs = LeaderEpochs::at(at.offset, None);
        self.reset = at.reset;
        self.stage = Stage::Owned;
        self.pause = None;
        self.position_is_suspect = false;
        self.out_of_range = None;
    }

    /// Takes it from the runtime at once. Returns it if the runtime had it.
    pub(crate) fn lose(&mut self) -> Option<(Partition, Epoch)> {
        let had = self.is_owned();
        self.stage = Stage::Released;
        had.then(|| (self.partition.clone(), self.epoch))
    }

    /// Whether the runtime has it, drained or not.
    pub(crate) fn is_owned(&self) -> bool {
        matches!(self.stage, Stage::Owned | Stage::Draining { .. })
    }

    /// Whether it was assigned anew a moment ago, and nothing has come since.
    pub(crate) fn is_reassigned(&self) -> bool {
        self.forward_until.is_some()
    }

    /// Its assignment as it begins.
    pub(crate) fn assigned(&self) -> Event {
        Event::Assigned {
            partition: self.partition.clone(),
            epoch: self.epoch,
            resume_after: offsets::settled(self.committed),
            stream_id: self.stream_id.map(|id| id.to_string().into()),
        }
    }

    /// What is left of it, where nothing is delivered now.
    pub(crate) fn lag_event(&mut self, end: Option<u64>) -> Event {
        Event::Lag {
            partition: self.partition.clone(),
            epoch: self.epoch,
            lag: self.lagging.lag(self.position, end, None),
        }
    }

    /// Where it is to be read next.
    pub(crate) fn fetch_position(&self) -> FetchPosition {
        FetchPosition {
            partition: self.name.clone(),
            offset: Some(self.position),
            leader_epoch: self.leader_epochs.before(self.position),
        }
    }

    /// What to store when everything before `next` is settled: what follows the last record that was
    /// delivered, and is nothing for readers, needs no settling.
    pub(crate) fn progress_at(&self, next: i64) -> Progress {
        let next = match next == self.delivered {
            true => self.position.max(next),
            false => next,
        };
        Progress {
            next,
            leader_epoch: self.leader_epochs.before(next),
            note: Note {
                epoch: Some(self.epoch),
                reset: self.reset,
                claim: None,
                topic: self.topic_id,
            },
        }
    }

    /// Records what is stored.
    pub(crate) fn on_committed(&mut self, next: i64) {
        self.committed = next;
        self.leader_epochs.forget_before(next);
    }

    /// Whether all is settled, and markers of transactions follow that are not stored as passed.
    ///
    /// Only behind what this member has checkpointed. So a pipeline stores nothing beside its
    /// transactions: a request that was sent twice, as over a connection that broke, could come late and
    /// undo one.
    pub(crate) fn is_passed(&self) -> bool {
        self.has_checkpointed && self.committed >= self.delivered && self.position > self.committed
    }
}
