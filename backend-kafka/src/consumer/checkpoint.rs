//! Checkpoints of the runtime: the marks that it wants stored, alone or with a step.
//!
//! One that meets the change of a generation is not refused for good, and the next generation is there
//! in a moment. The runtime would hear of a failure and try again after a pause, within a drain for
//! which the whole group waits. So such a checkpoint stays here, before all that come after it, and is
//! sent once more as soon as the member has its part in the next generation. That holds for classic
//! groups; with KIP-848 brokers do not answer so.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use millstream_core::driver::CheckpointUpdate;
use millstream_core::{Error, ErrorKind, Result};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{Consumer, ConsumerGroupMetadata};
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::oneshot;

use super::commits::add;
use super::context::Name;
use super::poller::Poller;
use super::questions::Question;
use super::rebalance::fenced;
use super::slots::{Slot, Stage};
use crate::error::{is_gone, not_stored};
use crate::native::consume::identity;
use crate::offsets;

/// How long a checkpoint waits for the next generation. The change takes milliseconds; but the part in
/// it may be withheld for as long as others drain, and the broker takes commits meanwhile.
const FOR_GENERATION: Duration = Duration::from_secs(1);

type Reply = oneshot::Sender<Vec<Result<()>>>;

#[derive(Debug)]
pub(super) struct Checkpoint {
    marks: Vec<CheckpointUpdate>,
    reply: Reply,
    /// Whether it has met the change of a generation.
    crossed: bool,
}

/// One that waits for the broker's answer.
#[derive(Debug)]
pub(super) struct Sent {
    checkpoint: Checkpoint,
    /// What is known without asking: which marks are refused.
    refused: Vec<Option<Error>>,
    /// The last generation that the member had its part in.
    told: i32,
}

/// Those that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    wanted: VecDeque<Checkpoint>,
    /// Goes before what is wanted.
    crossed: Option<Crossed>,
}

#[derive(Debug)]
struct Crossed {
    checkpoint: Checkpoint,
    /// The generation that it is not to be sent in again, unless none follows until then.
    told: i32,
    until: Instant,
}

impl Checkpoints {
    pub(super) fn want(&mut self, marks: Vec<CheckpointUpdate>, reply: Reply) {
        self.wanted.push_back(Checkpoint {
            marks,
            reply,
            crossed: false,
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.crossed.is_none() && self.wanted.is_empty()
    }

    /// When one has waited long enough for the next generation.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.crossed.as_ref().map(|crossed| crossed.until)
    }

    fn cross(&mut self, mut checkpoint: Checkpoint, told: i32, now: Instant) {
        checkpoint.crossed = true;
        self.crossed = Some(Crossed {
            checkpoint,
            told,
            until: now + FOR_GENERATION,
        });
    }

    /// The next one to be sent. One of which nothing is `owned` any more waits for no generation: it
    /// would hold up the answer to the rebalance that took its partitions.
    fn next(
        &mut self,
        told: i32,
        now: Instant,
        owned: impl Fn(&CheckpointUpdate) -> bool,
    ) -> Option<Checkpoint> {
        let Some(crossed) = &self.crossed else {
            return self.wanted.pop_front();
        };
        let waits = crossed.told == told
            && now < crossed.until
            && crossed.checkpoint.marks.iter().any(owned);
        match waits {
            true => None,
            false => self.crossed.take().map(|crossed| crossed.checkpoint),
        }
    }
}

/// What the broker is to compare and to store with a step.
pub(super) struct Vouched {
    pub(super) offsets: TopicPartitionList,
    pub(super) member: ConsumerGroupMetadata,
    /// How many assignments the member has had.
    pub(super) assignments: u64,
}

impl Poller {
    pub(super) fn next_checkpoint(&mut self) -> Option<Checkpoint> {
        let slots = &self.slots;
        let owned = |mark: &CheckpointUpdate| {
            let index = slots.of(&mark.partition, mark.epoch);
            index.is_some_and(|index| is_owned(slots.get(index)))
        };
        let checkpoints = &mut self.commits.checkpoints;
        checkpoints.next(self.told, Instant::now(), owned)
    }

    /// What to send for it.
    pub(super) fn prepare(&self, checkpoint: Checkpoint) -> (TopicPartitionList, Sent) {
        let (list, refused) = self.offsets_of("checkpoint", &checkpoint.marks);
        let sent = Sent {
            checkpoint,
            refused,
            told: self.told,
        };
        (list, sent)
    }

    /// The offsets that marks stand for, and what is known to be wrong with some of them.
    fn offsets_of(
        &self,
        operation: &'static str,
        marks: &[CheckpointUpdate],
    ) -> (TopicPartitionList, Vec<Option<Error>>) {
        let mut list = TopicPartitionList::new();
        let refused = marks.iter().map(|mark| {
            let slot = self.slots.of(&mark.partition, mark.epoch);
            let slot = slot.map(|index| self.slots.get(index));
            let Some(slot) = slot.filter(|slot| is_owned(slot)) else {
                return Some(fenced(operation, &mark.partition));
            };
            let Some(next) = offsets::next(mark.position) else {
                let message = format!("{} is no position of Kafka", mark.position);
                // `Invalid` would blame a record of the step.
                let error = Error::new(ErrorKind::NotFound, operation, message);
                return Some(error.with_partition(&mark.partition));
            };
            add(&mut list, &slot.name, slot.progress_at(next));
            None
        });
        let refused = refused.collect();
        (list, refused)
    }

    /// Vouches for the steps that wait, unless offsets are on their way beside transactions: librdkafka
    /// keeps those back while the coordinator moves, so that they could come after the step, and undo
    /// it. None are sent for a partition while a step of it is open, since nothing is settled there
    /// beyond what is stored.
    pub(super) fn vouch_for_steps(&mut self) {
        if self.commits.is_sent() {
            return;
        }
        while let Some((marks, reply)) = self.steps.pop_front() {
            // A dropped call stores nothing.
            let _ = reply.send(self.vouch(&marks));
        }
    }

    /// Looks at a step before it is stored: whether the member owns what it marks.
    ///
    /// Who the member is comes first. So a step that was allowed in one generation goes to the broker
    /// with that one or an older one, and never with one in which others own the partition.
    fn vouch(&self, marks: &[CheckpointUpdate]) -> Result<Vouched> {
        let member = self.identified();
        let (offsets, refused) = self.offsets_of("publish", marks);
        if let Some(error) = refused.into_iter().flatten().next() {
            // The runtime was told which are lost, and tries again with the others.
            let message = "some of the partitions are not this member's any more";
            return Err(Error::new(ErrorKind::Unavailable, "publish", message).with_source(error));
        }
        match member {
            Some(member) => Ok(Vouched {
                offsets,
                member,
                assignments: self.assignments,
            }),
            None => {
                let message = "the member is in no group at the moment";
                Err(Error::new(ErrorKind::Unavailable, "publish", message))
            }
        }
    }

    /// The member as brokers can check it: a step with neither a member's id nor a generation is stored
    /// by brokers whoever owns its partitions (KIP-447, for older clients). librdkafka has neither
    /// between a heartbeat that was refused and the next join.
    fn identified(&self) -> Option<ConsumerGroupMetadata> {
        let before = identity(&*self.consumer)?;
        let member = self.consumer.group_metadata()?;
        // Generations and ids never come again, so it was the same between the two.
        (before.is_member() && identity(&*self.consumer)? == before).then_some(member)
    }

    pub(super) fn settle_checkpoint(
        &mut self,
        sent: Sent,
        code: impl Fn(&Name) -> Option<RDKafkaErrorCode>,
    ) {
        let Sent {
            checkpoint,
            refused,
            told,
        } = sent;
        let codes = checkpoint.marks.iter().zip(&refused);
        let codes = codes.map(|(mark, refused)| match refused {
            Some(_) => None,
            None => {
                let topic = mark.partition.stream().into();
                let number = mark.partition.id().parse().unwrap_or(-1);
                code(&(topic, number))
            }
        });
        let codes: Vec<_> = codes.collect();
        if !checkpoint.crossed
            && codes
                .iter()
                .flatten()
                .any(|code| is_of_last_generation(*code))
        {
            let checkpoints = &mut self.commits.checkpoints;
            checkpoints.cross(checkpoint, told, Instant::now());
            return;
        }
        for (mark, code) in checkpoint.marks.iter().zip(&codes) {
            if *code == Some(RDKafkaErrorCode::UnknownTopicOrPartition) {
                let topic = mark.partition.stream().into();
                self.aide.ask(Question::Topic(topic));
            }
        }
        let marks = checkpoint.marks.iter().zip(refused).zip(&codes);
        let results = marks.map(|((mark, refused), code)| match (refused, code) {
            (Some(error), _) => Err(error),
            (None, Some(code)) => {
                Err(not_stored("checkpoint", *code).with_partition(&mark.partition))
            }
            (None, None) => {
                self.note_stored(mark);
                self.note_checkpointed(mark);
                Ok(())
            }
        });
        let results = results.collect();
        // A dropped call has stored its marks or not.
        let _ = checkpoint.reply.send(results);
        if codes.into_iter().flatten().any(is_gone) {
            self.lose(|_| true);
        }
    }

    pub(super) fn note_stored(&mut self, mark: &CheckpointUpdate) {
        if let Some(index) = self.slots.of(&mark.partition, mark.epoch) {
            let slot = self.slots.get_mut(index);
            slot.set_stored(offsets::next(mark.position).unwrap_or(slot.stored));
        }
    }

    fn note_checkpointed(&mut self, mark: &CheckpointUpdate) {
        if let Some(index) = self.slots.of(&mark.partition, mark.epoch) {
            self.slots.get_mut(index).checkpointed = true;
        }
    }
}

/// Whether progress may be stored: the runtime has the partition still.
fn is_owned(slot: &Slot) -> bool {
    matches!(slot.stage, Stage::Owned | Stage::Draining { .. })
}

/// Whether a commit came when the group was changing its generation.
fn is_of_last_generation(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::IllegalGeneration | RDKafkaErrorCode::RebalanceInProgress
    )
}

#[cfg(test)]
mod tests {
    use millstream_core::{Epoch, Partition, Position};

    use super::*;

    const OWNED: fn(&CheckpointUpdate) -> bool = |_| true;

    /// Two that are wanted, of which the first was sent in generation 3 and met the change of it.
    fn crossed(now: Instant) -> Checkpoints {
        let mut checkpoints = Checkpoints::default();
        for position in [7, 8] {
            let mark = CheckpointUpdate {
                partition: Partition::new("cars", "0"),
                epoch: Epoch(1),
                position: Position::from(position),
            };
            // Nobody waits for what becomes of it.
            checkpoints.want(vec![mark], oneshot::channel().0);
        }
        let first = checkpoints.next(3, now, OWNED).expect("two are wanted");
        checkpoints.cross(first, 3, now);
        checkpoints
    }

    /// What is next: its position, and whether it has met a change.
    fn next(checkpoints: &mut Checkpoints, told: i32, now: Instant) -> Option<(Position, bool)> {
        let next = checkpoints.next(told, now, OWNED)?;
        Some((next.marks[0].position, next.crossed))
    }

    #[test]
    fn one_that_met_a_change_goes_first_in_the_next_generation() {
        let now = Instant::now();
        let mut checkpoints = crossed(now);
        assert_eq!(next(&mut checkpoints, 3, now), None, "all wait for it");
        assert!(!checkpoints.is_empty());
        let expected = Some((Position::from(7), true));
        assert_eq!(next(&mut checkpoints, 4, now), expected);
        assert_eq!(checkpoints.next_due(), None);
        let expected = Some((Position::from(8), false));
        assert_eq!(next(&mut checkpoints, 4, now), expected);
        assert!(checkpoints.is_empty());
    }

    #[test]
    fn it_does_not_wait_for_ever() {
        let now = Instant::now();
        let mut checkpoints = crossed(now);
        let due = checkpoints.next_due().expect("it waits");
        let before = due - Duration::from_millis(1);
        assert_eq!(next(&mut checkpoints, 3, before), None);
        let expected = Some((Position::from(7), true));
        assert_eq!(next(&mut checkpoints, 3, due), expected);
    }

    #[test]
    fn it_waits_for_nothing_when_its_partitions_are_gone() {
        let now = Instant::now();
        let mut checkpoints = crossed(now);
        assert!(checkpoints.next(3, now, |_| false).is_some());
        assert_eq!(checkpoints.next_due(), None);
    }
}
