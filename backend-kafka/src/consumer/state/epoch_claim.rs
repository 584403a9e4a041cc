//! Epochs of static members.
//!
//! A member that comes back by its `instance_id` gets its partitions back in the generation of its
//! predecessor: no rebalance has involved the other members, so the broker's generation stays the same. The broker
//! itself distinguishes the two by their member ids, and refuses what the older one stores. But code that compares
//! epochs, such as a handler's own store, must see a newer owner. So an epoch is always larger than the one in the
//! note of the committed offset. A static member writes its epoch there as its claim, *before* the runtime gets the
//! partition, since the member may die before its first checkpoint.
//!
//! A partition that was added since the group began has no offset to carry a claim before its first checkpoint. If
//! two owners with the same name both die before that, they have the same epoch.

use std::time::{Duration, Instant};

use millstream_core::Epoch;
use rdkafka::error::RDKafkaErrorCode;

use super::progress::{NewPartition, Progress};
use crate::consumer::types::TopicPartition;
use crate::error::not_stored;
use crate::group::note::Note;

/// The delay before a claim that was not stored is stored again.
const PAUSE: Duration = Duration::from_millis(100);

/// How many partitions one member can reset or reassign within one generation.
const EPOCHS_PER_GENERATION: u64 = 1 << 16;

/// Returns the epoch of the next owner of a partition.
///
/// The broker's generation grows whenever a partition gets another owner. It grows neither when the same owner
/// restarts after a reset, nor when a member comes back by its name. Hence the room below it.
pub(crate) fn next_epoch(generation: i32, note: Note) -> Epoch {
    let first = u64::try_from(generation).unwrap_or(0) * EPOCHS_PER_GENERATION;
    let known = note.epoch.max(note.claim);
    let next = known.map_or(0, |Epoch(known)| known.saturating_add(1));
    Epoch(first.max(next))
}

/// Partitions to be taken over once their claim is stored.
#[derive(Debug)]
pub(crate) struct EpochClaim {
    pub(crate) partitions: Vec<NewPartition>,
    /// `None` while it is being stored.
    due: Option<Instant>,
}

impl EpochClaim {
    pub(crate) fn new(partitions: Vec<NewPartition>, now: Instant) -> Self {
        Self {
            partitions,
            due: Some(now),
        }
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Returns the offsets that store the claim, if it is due. The offsets themselves stay unchanged.
    pub(crate) fn take_due(
        &mut self,
        generation: i32,
        now: Instant,
    ) -> Option<Vec<(TopicPartition, Progress)>> {
        self.due.take_if(|due| *due <= now)?;
        let claimed = self.partitions.iter().filter_map(|new| {
            let progress = new.progress?;
            let note = Note {
                claim: Some(next_epoch(generation, progress.note)),
                ..progress.note
            };
            Some((new.name.clone(), Progress { note, ..progress }))
        });
        Some(claimed.collect())
    }

    /// Handles the result of the commit. Returns whether the partitions can be taken over.
    pub(crate) fn on_stored(
        &mut self,
        code: impl Fn(&TopicPartition) -> Option<RDKafkaErrorCode>,
        now: Instant,
    ) -> bool {
        let claimed = self.partitions.iter();
        let claimed = claimed.filter(|new| new.progress.is_some());
        let mut failed = claimed.filter_map(|new| code(&new.name));
        // A fenced member is about to learn that from its client, and can store nothing. An error that no
        // retry fixes shows with the first checkpoint.
        let again = failed.any(|code| not_stored("join", code).is_retryable());
        if again {
            self.due = Some(now + PAUSE);
        }
        !again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_larger_than_all_that_were_stored() {
        let note = |epoch: Option<u64>, claim: Option<u64>| Note {
            epoch: epoch.map(Epoch),
            claim: claim.map(Epoch),
            ..Note::default()
        };
        let generation = 3 << 16;
        for (note, expected) in [
            (note(None, None), generation),
            (note(Some(generation - 5), None), generation),
            (note(Some(generation), None), generation + 1),
            (note(Some(generation), Some(generation + 4)), generation + 5),
            (note(None, Some(generation)), generation + 1),
            (note(Some(u64::MAX), None), u64::MAX),
        ] {
            assert_eq!(next_epoch(3, note), Epoch(expected), "{note:?}");
        }
        assert_eq!(next_epoch(-1, Note::default()), Epoch(0));
    }
}
