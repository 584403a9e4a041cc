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
use crate::native::messages::FetchFailure;
use crate::native::topic_ids::TopicId;
use crate::offsets;

/// A partition that is assigned to the member.
#[derive(Debug)]
pub(crate) struct Assigned {
    pub(crate) name: TopicPartition,
    pub(crate) partition: Partition,
    pub(crate) epoch: Epoch,
    /// The id of the topic that is read, if the broker has reported it or a note contains it.
    pub(crate) topic_id: Option<TopicId>,
    /// The same id, but only if the broker has reported it at the assignment.
    pub(crate) stream_id: Option<TopicId>,
    /// The member's assignment that the partition came with, counted from 1.
    pub(crate) assignment: u64,
    /// The offset after the last record that was delivered to the runtime.
    pub(crate) delivered: i64,
    /// The offset to read next. It is beyond `delivered` if the following offsets hold no records for readers, like the
    /// markers of transactions.
    pub(crate) position: i64,
    /// The offset that is stored as the group's progress.
    pub(crate) committed: i64,
    pub(crate) leader_epochs: LeaderEpochs,
    /// Whether this member stored `committed`, by a checkpoint.
    pub(crate) has_checkpointed: bool,
    /// The last reset that was applied to its progress.
    pub(crate) reset: Option<u64>,
    pub(crate) stage: Stage,
    pub(crate) pause: Option<Pause>,
    /// Until when to repeat the forward of its records. Set when it was reassigned and no records have arrived since:
    /// librdkafka ends the forward some time after it was unassigned.
    pub(crate) forward_until: Option<Instant>,
    /// Whether librdkafka's position may be beyond a record that was never delivered, since a fetch failed after the
    /// last delivery.
    pub(crate) position_is_suspect: bool,
    /// The failed fetch for which the partition's bounds were requested. librdkafka fetches nothing from the partition
    /// until it is reassigned.
    pub(crate) out_of_range: Option<FetchFailure>,
    /// Failed fetches since the last record arrived.
    pub(crate) failed_fetches: Stall,
    /// Whether the partition has no leader.
    pub(crate) missing_leader: Stall,
    pub(crate) lagging: Lagging,
    pub(crate) open_transaction: OpenTransaction,
}

/// The stage of a partition's revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The runtime owns it.
    Owned,
    /// The runtime drains it, until this time at most.
    Draining {
        until: Instant,
        /// Where it restarts, if it stays with this member.
        restart: Option<RestartPoint>,
    },
    /// The runtime has released it, or was notified that it is lost.
    Released,
    /// Like `Released`; the offset at which it restarts is being stored.
    Restarting(RestartPoint),
}

/// The point where a partition restarts with the same member: an offset that a reset requests, or the beginning of
/// a topic that was recreated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RestartPoint {
    pub(crate) offset: i64,
    /// The last reset that is applied there.
    pub(crate) reset: Option<u64>,
    /// See [`Assigned::topic_id`].
    pub(crate) topic_id: Option<TopicId>,
    /// See [`Assigned::stream_id`].
    pub(crate) stream_id: Option<TopicId>,
}

/// A pause requested by the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pause {
    pub(crate) since: Instant,
    /// Whether librdkafka was paused, too.
    pub(crate) is_hard: bool,
}

impl RestartPoint {
    /// Returns the progress to store before a partition with this epoch restarts here.
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
    /// Creates a partition that is being taken over.
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

    /// Restarts the partition at another position, in a new epoch.
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

    /// Revokes the partition from the runtime at once. Returns it if the runtime had it.
    pub(crate) fn lose(&mut self) -> Option<(Partition, Epoch)> {
        let had = self.is_owned();
        self.stage = Stage::Released;
        had.then(|| (self.partition.clone(), self.epoch))
    }

    /// Returns whether the runtime has it, draining or not.
    pub(crate) fn is_owned(&self) -> bool {
        matches!(self.stage, Stage::Owned | Stage::Draining { .. })
    }

    /// Returns whether it was reassigned a moment ago, and no records have arrived since.
    pub(crate) fn is_reassigned(&self) -> bool {
        self.forward_until.is_some()
    }

    /// Returns the event of its assignment.
    pub(crate) fn assigned(&self) -> Event {
        Event::Assigned {
            partition: self.partition.clone(),
            epoch: self.epoch,
            resume_after: offsets::settled(self.committed),
            stream_id: self.stream_id.map(|id| id.to_string().into()),
        }
    }

    /// Returns the event of its lag, while no records are delivered.
    pub(crate) fn lag_event(&mut self, end: Option<u64>) -> Event {
        Event::Lag {
            partition: self.partition.clone(),
            epoch: self.epoch,
            lag: self.lagging.lag(self.position, end, None),
        }
    }

    /// Returns the position to read next.
    pub(crate) fn fetch_position(&self) -> FetchPosition {
        FetchPosition {
            partition: self.name.clone(),
            offset: Some(self.position),
            leader_epoch: self.leader_epochs.before(self.position),
        }
    }

    /// Returns the progress to store when everything before `next` is settled. Offsets after the last delivered record
    /// that hold no records for readers need no settling.
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

    /// Records the offset that is stored.
    pub(crate) fn on_committed(&mut self, next: i64) {
        self.committed = next;
        self.leader_epochs.forget_before(next);
    }

    /// Returns whether everything is settled, and is followed by transaction markers whose offset is not committed.
    ///
    /// Only if this member has checkpointed the partition. So a pipeline stores nothing besides its
    /// transactions: a commit that was sent twice, for example after a broken connection, could arrive late and
    /// undo a transaction's offset.
    /// undo one.
    pub(crate) fn is_passed(&self) -> bool {
        self.has_checkpointed && self.committed >= self.delivered && self.position > self.committed
    }
}
