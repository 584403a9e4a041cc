//! Fetches that fail: which of them librdkafka repeats, and which mean that records are gone.

use std::time::Instant;

use millstream_core::driver::Event;
use millstream_core::telemetry::{Causes, event};
use millstream_core::{Error, ErrorKind, Position};
use rdkafka::consumer::Consumer;

use super::aide::TopicIds;
use super::context::{Name, list};
use super::poller::Poller;
use super::questions::Question;
use super::slots::Slot;
use super::stalled::Failing;
use crate::error;
use crate::native::consume::FetchFailure;
use crate::native::topic_ids::TopicId;
use crate::offsets;

/// What an offset that cannot be read means, by the first offset and the end of its partition.
#[derive(Debug, PartialEq, Eq)]
enum OutOfRange {
    /// Retention has deleted the record: reading continues at the first offset.
    Trimmed,
    /// The log ends before it.
    BeyondEnd,
    /// The log ended before it, and has grown again since. Other records are there now.
    CutBack,
    /// It can be read, and the failure was of another offset.
    Readable,
}

impl OutOfRange {
    /// `next` is the offset to read, `failed` the one whose fetch failed: later than `next` if markers
    /// of transactions were passed, negative if librdkafka does not say.
    fn of(next: i64, failed: Option<i64>, low: i64, high: i64) -> Self {
        match failed {
            _ if next > high => Self::BeyondEnd,
            _ if next < low => Self::Trimmed,
            // The first offset only grows, so retention was not the reason. A new leader that was in sync
            // has all that could be read, and a follower's word is not taken for it.
            Some(failed) if !(0..low).contains(&failed) => Self::CutBack,
            _ => Self::Readable,
        }
    }
}

impl Poller {
    /// Handles a failed fetch.
    ///
    /// librdkafka takes the message of a failure for a record at the failed offset, and moves its
    /// position past it (2.12; confluentinc/librdkafka#4844). That position is no progress: the record
    /// was not read. It is trusted again when a record comes.
    pub(super) fn on_failed(&mut self, index: usize, failure: FetchFailure) {
        let slot = self.slots.get_mut(index);
        slot.position_is_suspect = true;
        match error::kind_of(failure.code) {
            ErrorKind::DataLoss => {
                slot.out_of_range = Some(failure);
                self.aide.ask(Question::Bounds(slot.name.clone()));
            }
            ErrorKind::NotFound => self.aide.ask(Question::Topic(slot.name.0.clone())),
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Throttled => {
                tracing::debug!(
                    target: "librdkafka", partition = %slot.partition, code = failure.code,
                    reason = failure.reason, "a fetch failed, it is repeated"
                );
                let now = Instant::now();
                let failing = slot.failing.get_or_insert_with(|| Failing::since(now));
                if failing.is_to_be_reported(now) {
                    event!(
                        warn, "millstream.kafka.partition.stalled", group = &*self.group,
                        stream = slot.partition.stream(), partition = slot.partition.id(),
                        error = %Causes(&error::from_number("read", failure.code)),
                        "partition {} cannot be read", slot.partition,
                    );
                }
            }
            _ => {
                let error = error::from_number("read", failure.code);
                let error = error.with_partition(&slot.partition);
                self.fail(error);
            }
        }
    }

    /// Has partitions read from their own place whose fetches have failed. To be called before
    /// librdkafka resumes them, for it would go on behind the record that it failed to read. Not at
    /// once: a seek ends the pause after a failed fetch, too.
    pub(super) fn seek_suspects(&self) {
        let is_suspect = |slot: &Slot| slot.position_is_suspect && slot.out_of_range.is_none();
        for index in self.slots.indices(is_suspect) {
            self.seek(self.place_of(index));
        }
    }

    /// Decides how to go on where an offset could not be read.
    pub(super) fn on_bounds(
        &mut self,
        name: &Name,
        (low, high): (i64, i64),
        topic_id: Option<TopicId>,
    ) {
        let Some(index) = self.slots.find(&name.0, name.1) else {
            return;
        };
        // To librdkafka it would look as if that was answered.
        if self.pending.is_some() || self.queue.has_events() {
            self.astray.push(name.clone());
            return;
        }
        let slot = self.slots.get_mut(index);
        let known = slot.topic_id;
        if let Some(id) = topic_id.filter(|id| known.is_some_and(|known| known != *id)) {
            // Its offsets mean nothing there. It is assigned anew at the beginning.
            self.on_topic_ids(&TopicIds::from([(name.0.clone(), id)]));
            return;
        }
        let next = slot.next;
        let failure = slot.out_of_range.take();
        let failed = failure.as_ref().map(|failure| failure.offset);
        match OutOfRange::of(next, failed, low, high) {
            OutOfRange::BeyondEnd => {
                let message = format!(
                    "the group's progress {next} is beyond the end {high}: the topic was created \
                     anew or its end was lost; reset the group"
                );
                let error = Error::new(ErrorKind::Corrupt, "read", message);
                let error = error.with_partition(&slot.partition);
                self.fail(error);
                return;
            }
            OutOfRange::CutBack => {
                let reason = failure.map(|failure| failure.reason).unwrap_or_default();
                let message = format!(
                    "the log ended before the group's progress {next}, and has grown again to {high}: \
                     its end was lost, or the topic was created anew, and the group has not read what \
                     was stored since; reset the group ({reason})"
                );
                let error = Error::new(ErrorKind::Corrupt, "read", message);
                let error = error.with_partition(&slot.partition);
                self.fail(error);
                return;
            }
            OutOfRange::Trimmed => {
                slot.handed = low;
                slot.next = low;
                slot.leader_epochs.note(low - 1, None);
                let event = Event::DataLoss {
                    partition: slot.partition.clone(),
                    epoch: slot.epoch,
                    after: offsets::settled(next),
                    earliest: Position::from(u64::try_from(low).unwrap_or(0)),
                };
                self.put(event);
            }
            OutOfRange::Readable => {}
        }
        self.read_again(index);
    }

    /// Asks again how far the partitions reach that could not be assigned anew.
    pub(super) fn ask_for_astray(&mut self) {
        if self.pending.is_none() {
            for name in std::mem::take(&mut self.astray) {
                self.aide.ask(Question::Bounds(name));
            }
        }
    }

    /// Has the records of partitions that were assigned anew come by our queue again.
    pub(super) fn forward_strayed(&mut self) {
        for (_, slot) in self.slots.iter() {
            if slot.strayed && slot.paused.is_none() {
                self.queue.forward(&slot.name.0, slot.name.1);
            }
        }
    }

    pub(super) fn has_strayed(&self) -> bool {
        self.slots.iter().any(|(_, slot)| slot.strayed)
    }

    /// Has a partition read from its place whose fetching has ended with an error: no seek reaches it
    /// any more.
    pub(super) fn read_again(&mut self, index: usize) {
        let slot = self.slots.get_mut(index);
        slot.strayed = true;
        let name = slot.name.clone();
        // To librdkafka it would look as if a rebalance was answered.
        if self.pending.is_some() || self.queue.has_events() {
            self.astray.push(name);
            return;
        }
        let place = self.place_of(index);
        let assigned = self.consumer.incremental_unassign(&list([&name]));
        match assigned.and_then(|()| self.consumer.incremental_assign(&place)) {
            Ok(()) => self.validate(&place),
            Err(error) => {
                tracing::debug!(target: "librdkafka", %error, "a new place was not taken");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_within_the_log_that_could_not_be_read_was_cut_off() {
        for (next, failed, expected) in [
            (1_000, Some(1_000), OutOfRange::CutBack),
            // Markers of transactions were passed.
            (1_000, Some(1_004), OutOfRange::CutBack),
            // A truncation is reported without the offset.
            (1_000, Some(-1_001), OutOfRange::CutBack),
            (1_011, Some(1_011), OutOfRange::BeyondEnd),
            (99, Some(99), OutOfRange::Trimmed),
            (99, Some(104), OutOfRange::Trimmed),
            // The group was reset since.
            (1_000, Some(50), OutOfRange::Readable),
            // The answer for a failure that was dealt with.
            (1_000, None, OutOfRange::Readable),
        ] {
            assert_eq!(
                OutOfRange::of(next, failed, 100, 1_010),
                expected,
                "next {next}, failed {failed:?}"
            );
        }
    }
}
