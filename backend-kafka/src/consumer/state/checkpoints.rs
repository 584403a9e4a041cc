//! The runtime's checkpoints: the offsets that it wants stored, alone or in a transaction.
//!
//! If a checkpoint fails because the generation changes, the failure is temporary, and the next generation starts
//! shortly after. If it were reported, the runtime would see a failure and retry after a pause, within a drain for
//! which the whole group waits. So such a checkpoint is deferred: it stays here, before all later ones, and is sent
//! once more as soon as the member has its part in the next generation. That applies to classic groups: with
//! KIP-848 brokers do not respond like this.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_core::driver::CheckpointUpdate;
use millstream_core::{Error, ErrorKind, Partition, Result};
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::oneshot;

use super::assigned::{Assigned, Stage};
use super::assignment::Assignment;
use super::progress::Progress;
use crate::consumer::types::TopicPartition;
use crate::error::{is_gone, not_stored};
use crate::offsets;

/// How long a checkpoint waits for the next generation. The change takes milliseconds. But the member's assignment
/// may be withheld for as long as others drain, and the broker accepts commits during that time.
const FOR_GENERATION: Duration = Duration::from_secs(1);

/// The same for a checkpoint of a partition that drains: no generation follows before the drain ends, and the runtime
/// waits half a second for the last checkpoint.
const IN_DRAIN: Duration = Duration::from_millis(100);

type Reply = oneshot::Sender<Vec<Result<()>>>;

#[derive(Debug)]
pub(crate) struct Checkpoint {
    marks: Vec<CheckpointUpdate>,
    reply: Reply,
    /// Whether it was refused once because the generation changed.
    is_deferred: bool,
}

/// A checkpoint that waits for the broker's response.
#[derive(Debug)]
pub(crate) struct Sent {
    checkpoint: Checkpoint,
    /// The updates that were refused without a request, with their errors.
    refused: Vec<Option<Error>>,
    /// The last generation in which the member had its assignment.
    generation: i32,
}

/// The consequences of the response to a checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// Topics that the coordinator does not know.
    pub(crate) unknown_topics: Vec<Arc<str>>,
    /// Whether the coordinator no longer knows the member.
    pub(crate) is_gone: bool,
}

/// The checkpoints that wait to be sent.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    wanted: VecDeque<Checkpoint>,
    /// Sent before those in `wanted`.
    deferred: Option<Deferred>,
}

#[derive(Debug)]
struct Deferred {
    checkpoint: Checkpoint,
    /// The generation in which it must not be sent again, unless none follows before `until`.
    generation: i32,
    until: Instant,
}

impl Checkpoints {
    pub(crate) fn push(&mut self, marks: Vec<CheckpointUpdate>, reply: Reply) {
        self.wanted.push_back(Checkpoint {
            marks,
            reply,
            is_deferred: false,
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.deferred.is_none() && self.wanted.is_empty()
    }

    /// Returns when the deferred checkpoint has waited long enough for the next generation.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.deferred.as_ref().map(|deferred| deferred.until)
    }

    /// Returns the offsets to send for the next checkpoint.
    pub(crate) fn send_next(
        &mut self,
        assignment: &Assignment,
        generation: i32,
        now: Instant,
    ) -> Option<(Vec<(TopicPartition, Progress)>, Sent)> {
        let is_owned = |mark: &CheckpointUpdate| owned(assignment, mark).is_some();
        let checkpoint = self.next(generation, now, is_owned)?;
        let each = checkpoint.marks.iter();
        let each = each.map(|mark| offset_of("checkpoint", mark, assignment));
        let mut offsets = Vec::new();
        let refused = each.map(|offset| offset.map(|offset| offsets.push(offset)).err());
        let sent = Sent {
            refused: refused.collect(),
            checkpoint,
            generation,
        };
        Some((offsets, sent))
    }

    /// Returns the next checkpoint to send. A checkpoint whose partitions are no longer owned does not wait for a
    /// generation: it would delay the acknowledgement of the rebalance that revoked them.
    fn next(
        &mut self,
        generation: i32,
        now: Instant,
        is_owned: impl Fn(&CheckpointUpdate) -> bool,
    ) -> Option<Checkpoint> {
        let Some(deferred) = &self.deferred else {
            return self.wanted.pop_front();
        };
        let waits = deferred.generation == generation
            && now < deferred.until
            && deferred.checkpoint.marks.iter().any(is_owned);
        match waits {
            true => None,
            false => self.deferred.take().map(|deferred| deferred.checkpoint),
        }
    }

    fn defer(&mut self, mut checkpoint: Checkpoint, generation: i32, until: Instant) {
        checkpoint.is_deferred = true;
        self.deferred = Some(Deferred {
            checkpoint,
            generation,
            until,
        });
    }

    /// Handles the response to a checkpoint: replies, or defers it.
    pub(crate) fn settle(
        &mut self,
        sent: Sent,
        code: impl Fn(&TopicPartition) -> Option<RDKafkaErrorCode>,
        assignment: &mut Assignment,
        now: Instant,
    ) -> Settled {
        let Sent {
            checkpoint,
            refused,
            generation,
        } = sent;
        let codes = checkpoint.marks.iter().zip(&refused);
        let codes = codes.map(|(mark, refused)| match refused {
            Some(_) => None,
            None => code(&name_of(&mark.partition)),
        });
        let codes: Vec<_> = codes.collect();
        let mut codes_of_failures = codes.iter().flatten();
        if !checkpoint.is_deferred && codes_of_failures.any(|code| is_of_last_generation(*code)) {
            let mut marks = checkpoint.marks.iter();
            let drains = marks
                .any(|mark| owned(assignment, mark).is_some_and(|it| it.stage != Stage::Owned));
            let wait = if drains { IN_DRAIN } else { FOR_GENERATION };
            self.defer(checkpoint, generation, now + wait);
            return Settled::default();
        }
        let mut settled = Settled::default();
        let marks = checkpoint.marks.iter().zip(refused).zip(&codes);
        let results = marks.map(|((mark, refused), code)| match (refused, code) {
            (Some(error), _) => Err(error),
            (None, Some(code)) => {
                settled.is_gone |= is_gone(*code);
                if *code == RDKafkaErrorCode::UnknownTopicOrPartition {
                    settled.unknown_topics.push(mark.partition.stream().into());
                }
                Err(not_stored("checkpoint", *code).with_partition(&mark.partition))
            }
            (None, None) => {
                if let Some(it) = on_stored(assignment, mark) {
                    it.has_checkpointed = true;
                }
                Ok(())
            }
        });
        let results = results.collect();
        // If the call was dropped, its updates are stored or not.
        let _ = checkpoint.reply.send(results);
        settled
    }
}

/// Records that an update is stored. Returns its partition, if it is still assigned in that epoch.
pub(crate) fn on_stored<'a>(
    assignment: &'a mut Assignment,
    mark: &CheckpointUpdate,
) -> Option<&'a mut Assigned> {
    let index = assignment.find_in_epoch(&mark.partition, mark.epoch)?;
    let it = assignment.get_mut(index);
    it.on_committed(offsets::next(mark.position).unwrap_or(it.committed));
    Some(it)
}

/// Returns the offset to store for an update, or why it cannot be stored.
pub(crate) fn offset_of(
    operation: &'static str,
    mark: &CheckpointUpdate,
    assignment: &Assignment,
) -> Result<(TopicPartition, Progress)> {
    let Some(it) = owned(assignment, mark) else {
        return Err(fenced(operation, &mark.partition));
    };
    let Some(next) = offsets::next(mark.position) else {
        let message = format!("{} is no position of Kafka", mark.position);
        // `Invalid` would blame a record of the delivery.
        let error = Error::new(ErrorKind::NotFound, operation, message);
        return Err(error.with_partition(&mark.partition));
    };
    Ok((it.name.clone(), it.progress_at(next)))
}

/// Returns the partition of an update whose progress may be stored: the runtime still has it.
fn owned<'a>(assignment: &'a Assignment, mark: &CheckpointUpdate) -> Option<&'a Assigned> {
    let index = assignment.find_in_epoch(&mark.partition, mark.epoch)?;
    Some(assignment.get(index)).filter(|it| it.is_owned())
}

/// Returns the error of a call for a partition that the member does not own.
pub(crate) fn fenced(operation: &'static str, partition: &Partition) -> Error {
    let message = "the partition is not this member's any more, a newer owner may have it";
    Error::new(ErrorKind::Fenced, operation, message).with_partition(partition)
}

fn name_of(partition: &Partition) -> TopicPartition {
    let number = partition.id().parse().unwrap_or(-1);
    (partition.stream().into(), number)
}

/// Returns whether a commit failed because the group was changing its generation.
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

    /// Returns two waiting checkpoints. The first was sent in generation 3 and refused because the generation changed.
    fn deferred(now: Instant) -> Checkpoints {
        let mut checkpoints = Checkpoints::default();
        for position in [7, 8] {
            let mark = CheckpointUpdate {
                partition: Partition::new("cars", "0"),
                epoch: Epoch(1),
                position: Position::from(position),
            };
            // The result is not read.
            checkpoints.push(vec![mark], oneshot::channel().0);
        }
        let first = checkpoints.next(3, now, OWNED).expect("two are wanted");
        checkpoints.defer(first, 3, now + FOR_GENERATION);
        checkpoints
    }

    /// Returns the next checkpoint: its position, and whether it is deferred.
    fn next(
        checkpoints: &mut Checkpoints,
        generation: i32,
        now: Instant,
    ) -> Option<(Position, bool)> {
        let next = checkpoints.next(generation, now, OWNED)?;
        Some((next.marks[0].position, next.is_deferred))
    }

    #[test]
    fn one_that_met_a_change_goes_first_in_the_next_generation() {
        let now = Instant::now();
        let mut checkpoints = deferred(now);
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
    fn it_does_not_wait_forever() {
        let now = Instant::now();
        let mut checkpoints = deferred(now);
        let due = checkpoints.next_due().expect("it waits");
        let before = due - Duration::from_millis(1);
        assert_eq!(next(&mut checkpoints, 3, before), None);
        let expected = Some((Position::from(7), true));
        assert_eq!(next(&mut checkpoints, 3, due), expected);
    }

    #[test]
    fn it_waits_for_nothing_when_its_partitions_are_gone() {
        let now = Instant::now();
        let mut checkpoints = deferred(now);
        assert!(checkpoints.next(3, now, |_| false).is_some());
        assert_eq!(checkpoints.next_due(), None);
    }
}
