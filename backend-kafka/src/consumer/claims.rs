//! Epochs of a member whose name stays.
//!
//! A member that comes back by its `instance_id` gets its partitions back in the generation of the
//! one before: no rebalance has told the others, so the broker's number stands. The broker itself
//! tells the two apart by their member ids, and refuses what the older one stores. But whoever
//! compares epochs, as a handler's own store does, has to see a newer owner. So an epoch is always
//! larger than the one in the note of the committed offset; and a member with a name writes its epoch
//! there as its claim, *before* it is told to the runtime, since it may die before its first
//! checkpoint.
//!
//! A partition that was added since the group's birth has no offset to carry a claim before its
//! first checkpoint: two owners by one name that both die before that have the same epoch.

use std::thread;
use std::time::{Duration, Instant};

use millstream_core::Epoch;
use rdkafka::TopicPartitionList;
use rdkafka::error::RDKafkaErrorCode;

use super::commits::add;
use super::context::Name;
use super::poller::Poller;
use super::progress::{NewPartition, Progress};
use crate::error::not_stored;
use crate::group::note::Note;

/// How soon a claim is stored again that was not stored.
const PAUSE: Duration = Duration::from_millis(100);

/// How soon the progress of partitions is known, where no step is open.
pub(super) const SOON: Duration = Duration::from_millis(500);

/// How many partitions one member can be reset or assigned anew within one generation.
const EPOCHS_PER_GENERATION: u64 = 1 << 16;

/// Partitions to be taken over once the claim to them is stored.
#[derive(Debug)]
pub(super) struct Claim {
    partitions: Vec<NewPartition>,
    pub(super) due: Instant,
}

/// The epoch of the next owner of a partition.
///
/// The broker's generation grows whenever a partition gets another owner, but neither when the same
/// owner begins anew after a reset, nor when one comes back by its name, hence the room below it.
pub(super) fn next_epoch(generation: i32, note: Note) -> Epoch {
    let first = u64::try_from(generation).unwrap_or(0) * EPOCHS_PER_GENERATION;
    let known = note.epoch.max(note.claim);
    let next = known.map_or(0, |Epoch(known)| known.saturating_add(1));
    Epoch(first.max(next))
}

impl Poller {
    /// Takes back what the member before of the same name has left open. Otherwise the progress of the
    /// partitions is told only when the broker has lost its patience with that.
    pub(super) fn inherit(&mut self, now: Instant) {
        if self.heir_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        let transactions = self.transactions.clone();
        let thread = thread::Builder::new().name("kafka-heir".into());
        if let Err(error) = thread.spawn(move || transactions.abort_earlier()) {
            tracing::warn!(target: "librdkafka", %error, "no thread to take an open step back");
        }
    }

    /// Takes partitions over: at once, or when the claim to them is stored.
    pub(super) fn claim(&mut self, partitions: Vec<NewPartition>) {
        let due = Instant::now();
        self.heir_at = None;
        self.claim = Some(Claim { partitions, due });
        if !self.named {
            self.take_over();
        }
    }

    pub(super) fn is_claim_due(&self) -> bool {
        let claim = self.claim.as_ref();
        claim.is_some_and(|claim| claim.due <= Instant::now())
    }

    /// What stores the claim: where each partition stands stays as it is.
    pub(super) fn claimed_offsets(&self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for new in self.claim.iter().flat_map(|claim| &claim.partitions) {
            if let Some(progress) = new.progress {
                let claim = Some(next_epoch(self.generation, progress.note));
                let note = Note {
                    claim,
                    ..progress.note
                };
                add(&mut list, &new.name, Progress { note, ..progress });
            }
        }
        list
    }

    pub(super) fn settle_claim(&mut self, code: impl Fn(&Name) -> Option<RDKafkaErrorCode>) {
        let Some(claim) = &mut self.claim else {
            return;
        };
        let stored = claim.partitions.iter();
        let stored = stored.filter(|new| new.progress.is_some());
        let mut failed = stored.filter_map(|new| code(&new.name));
        // One that was fenced is about to be told by its client, and can store nothing. What no
        // waiting mends shows with the first checkpoint.
        if failed.any(|code| not_stored("join", code).is_retryable()) {
            claim.due = Instant::now() + PAUSE;
        } else {
            self.take_over();
        }
    }

    fn take_over(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.pending = None;
            self.assign(claim.partitions);
            self.go_on();
        }
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
