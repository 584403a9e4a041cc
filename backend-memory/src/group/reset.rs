//! Moving a group while its members run.

use tokio::time::Instant;

use super::{Group, Place, Reading};
use crate::ids::{MemberId, Slot, StreamId};
use crate::refusal::Refusal;

impl Group {
    /// Begins to move the group in a stream: everything is drained first. Answers the number to
    /// wait for.
    ///
    /// A second reset replaces one that is under way; both are done when the second is.
    pub(crate) fn begin_reset(
        &mut self,
        stream: StreamId,
        places: Vec<Place>,
        now: Instant,
    ) -> u64 {
        let reading = self.readings.entry(stream).or_default();
        reading.reset = Some(places);
        reading.resets_asked += 1;
        let asked = reading.resets_asked;
        let owned: Vec<(Slot, MemberId)> = reading
            .progress
            .iter()
            .zip(0..)
            .filter(|(progress, _)| !progress.draining)
            .filter_map(|(progress, id)| progress.owner.map(|owner| ((stream, id), owner)))
            .collect();
        self.revoke(owned, now);
        // Nobody may own anything, and then it can be done at once.
        self.dirty = true;
        asked
    }

    /// Whether a reset is stored; `None` while it is under way.
    pub(crate) fn reset_outcome(
        &self,
        stream: StreamId,
        number: u64,
    ) -> Option<Result<(), Refusal>> {
        let Some(reading) = self.readings.get(&stream) else {
            return Some(Err(Refusal::StreamDeleted));
        };
        (reading.resets_done >= number).then(|| reading.reset_failure.clone().map_or(Ok(()), Err))
    }

    /// The resets whose streams are drained.
    pub(crate) fn drained_resets(&self) -> Vec<(StreamId, Vec<Place>)> {
        let drained = |reading: &Reading| reading.progress.iter().all(|p| p.owner.is_none());
        self.readings
            .iter()
            .filter_map(|(stream, reading)| Some((*stream, reading, reading.reset.clone()?)))
            .filter(|(_, reading, _)| drained(reading))
            .map(|(stream, _, places)| (stream, places))
            .collect()
    }

    /// Ends a reset: moves the group if that could be stored, and lets it go on in any case.
    pub(crate) fn end_reset(&mut self, stream: StreamId, stored: Result<(), Refusal>) {
        let Some(reading) = self.readings.get_mut(&stream) else {
            return;
        };
        reading.resets_done = reading.resets_asked;
        let places = reading.reset.take();
        reading.reset_failure = stored.err();
        if let (Some(places), None) = (places, &reading.reset_failure) {
            self.place(stream, &places);
        }
        self.dirty = true;
        self.reset_done.notify_waiters();
    }
}
