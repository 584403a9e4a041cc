//! Records on their way to the runtime: taken in batches, held back while a partition is paused.
//!
//! librdkafka's own pause throws away what is fetched already, and fetches it again after the
//! resume. A window that fills and empties would make it fetch everything many times over. So a pause
//! first only holds back: what was taken already waits in the [`mailbox`](super::mailbox), the rest
//! stays with librdkafka, within its bounds. Only a pause that lasts is told to it, and frees that
//! memory.

use std::time::{Duration, Instant};

use millstream_core::driver::{Event, StoredRecord};
use millstream_core::telemetry::event;
use millstream_core::{Epoch, Partition};
use rdkafka::Offset;
use rdkafka::consumer::Consumer;

use super::context::list;
use super::poller::Poller;
use super::slots::{Pause, Stage};
use crate::native::consume::Taken;
use crate::native::leader_epoch;
use crate::offsets;

/// How often marks of transactions are looked for, while no records come.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long a pause only holds back.
const SOFT: Duration = Duration::from_millis(250);

impl Poller {
    /// Hands over what is there, or waits for it as long as nothing else is due.
    pub(super) fn hand_over(&mut self, now: Instant) {
        let room = self.mailbox.room();
        if room == 0 {
            self.bell.wait(self.may_wait(now));
            return;
        }
        let slots = &self.slots;
        let mut taken = self
            .queue
            .take(room, |topic, partition| slots.find(topic, partition));
        // Rung before this line: asked here. Rung after it: the wait returns at once.
        if taken.is_empty() && !self.bell.was_rung() {
            taken = self.queue.take_one(self.may_wait(now), |topic, partition| {
                slots.find(topic, partition)
            });
        }
        if taken.is_empty() {
            self.look_for_marks(now);
        }
        for taken in taken {
            match taken {
                Taken::Records {
                    slot,
                    records,
                    leader_epoch,
                } => {
                    for records in cut(records, self.join.batch_bytes) {
                        self.deliver(slot, records, leader_epoch);
                    }
                }
                Taken::Failed { slot, failure } => self.on_failed(slot, failure),
            }
        }
    }

    fn deliver(&mut self, index: usize, mut records: Vec<StoredRecord>, leader_epoch: Option<i32>) {
        let slot = self.slots.get_mut(index);
        if slot.stage != Stage::Owned {
            return;
        }
        let again = drop_delivered(&mut records, slot.handed);
        if again > 0 {
            tracing::debug!(
                target: "librdkafka", partition = %slot.partition, records = again,
                "records that came again were dropped"
            );
        }
        let Some(last) = records.last() else { return };
        slot.strayed = false;
        slot.position_is_suspect = false;
        if slot
            .failing
            .take()
            .is_some_and(|failing| failing.is_reported())
        {
            event!(
                info,
                "millstream.kafka.partition.continues",
                group = &*self.group,
                stream = slot.partition.stream(),
                partition = slot.partition.id(),
                "partition {} can be read again",
                slot.partition,
            );
        }
        slot.leader_epochs.note(slot.next, leader_epoch);
        slot.handed = offsets::next(last.position).unwrap_or(slot.handed);
        slot.next = slot.handed;
        let (partition, epoch) = (slot.partition.clone(), slot.epoch);
        let end = self.queue.known_end(&slot.name.0, slot.name.1);
        let lag = slot.lag(end, Some(last.timestamp));
        self.put(Event::Records {
            partition,
            epoch,
            records,
            lag,
        });
    }

    /// Finds the partitions in which only marks of transactions, or records of aborted ones, came
    /// after the last record. They are passed in silence, so that a lag would stay for ever.
    fn look_for_marks(&mut self, now: Instant) {
        if now < self.looked + LOOK_EVERY {
            return;
        }
        self.looked = now;
        let Ok(places) = self.consumer.position() else {
            return;
        };
        for (place, leader_epoch) in places.elements().iter().zip(leader_epoch::all(&places)) {
            let Some(index) = self.slots.find(place.topic(), place.partition()) else {
                continue;
            };
            let slot = self.slots.get_mut(index);
            let next = match place.offset() {
                Offset::Offset(next) if next > slot.next => next,
                _ => continue,
            };
            if slot.position_is_suspect || slot.stage != Stage::Owned {
                continue;
            }
            slot.next = next;
            slot.leader_epochs.note(next - 1, leader_epoch);
            let end = self.queue.known_end(&slot.name.0, slot.name.1);
            self.tell_lag(index, end);
        }
        if self.slots.iter().any(|(_, slot)| slot.is_passed()) {
            self.commits.pass();
        }
    }

    pub(super) fn pause(&mut self, partition: &Partition, epoch: Epoch) {
        let Some(index) = self.slots.of(partition, epoch) else {
            return;
        };
        let slot = self.slots.get_mut(index);
        if slot.paused.is_none() {
            let since = Instant::now();
            slot.paused = Some(Pause { since, hard: false });
            self.queue.hold_back(&slot.name.0, slot.name.1);
        }
    }

    pub(super) fn resume(&mut self, partition: &Partition, epoch: Epoch) {
        let Some(index) = self.slots.of(partition, epoch) else {
            return;
        };
        let slot = self.slots.get_mut(index);
        let Some(pause) = slot.paused.take() else {
            return;
        };
        let name = slot.name.clone();
        self.queue.forward(&name.0, name.1);
        if pause.hard {
            // librdkafka drops what it had to say of a paused partition, as that its log was cut back.
            if !self.seek(self.place_of(index)) {
                self.read_again(index);
            }
            if let Err(error) = self.consumer.resume(&list([&name])) {
                tracing::debug!(target: "librdkafka", %error, "a resume was not taken");
            }
            self.kicker.wake(vec![name]);
        }
    }

    /// Tells librdkafka of the pauses that last.
    pub(super) fn harden_pauses(&mut self, now: Instant) {
        let mut names = Vec::new();
        for (_, slot) in self.slots.iter_mut() {
            if let Some(pause) = &mut slot.paused {
                if !pause.hard && now >= pause.since + SOFT {
                    pause.hard = true;
                    names.push(slot.name.clone());
                }
            }
        }
        if !names.is_empty() {
            if let Err(error) = self.consumer.pause(&list(&names)) {
                tracing::debug!(target: "librdkafka", %error, "a pause was not taken");
            }
        }
    }

    pub(super) fn next_hardening(&self) -> Option<Instant> {
        let soft = self.slots.iter().filter_map(|(_, slot)| slot.paused);
        let soft = soft.filter(|pause| !pause.hard);
        soft.map(|pause| pause.since + SOFT).min()
    }
}

/// Cuts what came at once into parts of no more bytes than one collection may have, or of one record.
fn cut(records: Vec<StoredRecord>, most: usize) -> Vec<Vec<StoredRecord>> {
    if records.iter().map(StoredRecord::size).sum::<usize>() <= most {
        return vec![records];
    }
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for record in records {
        let size = record.size();
        let part = parts.last_mut().expect("one was there from the beginning");
        match part.is_empty() || bytes + size <= most {
            true => {
                part.push(record);
                bytes += size;
            }
            false => {
                parts.push(vec![record]);
                bytes = size;
            }
        }
    }
    parts
}

/// Drops the records before `next`, which were handed over already, and returns how many.
///
/// A pause by librdkafka in the middle of a batch call can make it fetch that batch again. Handed over
/// twice, its records would be handled twice, and their keys would go back in time.
fn drop_delivered(records: &mut Vec<StoredRecord>, next: i64) -> usize {
    let is_delivered =
        |record: &StoredRecord| offsets::next(record.position).is_some_and(|end| end <= next);
    let delivered = records.partition_point(is_delivered);
    records.drain(..delivered);
    delivered
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use bytes::Bytes;
    use millstream_core::{Headers, Position};

    use super::*;

    fn record(offset: u64, payload: usize) -> StoredRecord {
        StoredRecord {
            position: Position::from(offset),
            timestamp: UNIX_EPOCH,
            key: None,
            payload: Some(Bytes::from(vec![0; payload])),
            headers: Headers::new(),
        }
    }

    fn sizes(parts: &[Vec<StoredRecord>]) -> Vec<Vec<usize>> {
        let sizes = |part: &Vec<StoredRecord>| part.iter().map(StoredRecord::size).collect();
        parts.iter().map(sizes).collect()
    }

    #[test]
    fn what_comes_at_once_is_cut_by_bytes() {
        let records = |sizes: &[usize]| sizes.iter().map(|size| record(0, *size)).collect();
        let parts = |of: &[usize], most| sizes(&cut(records(of), most));
        assert_eq!(parts(&[1, 2, 3], 6), [vec![1, 2, 3]]);
        assert_eq!(parts(&[1, 2, 4], 6), [vec![1, 2], vec![4]]);
        assert_eq!(parts(&[1, 500, 1], 6), [[1], [500], [1]]);
    }

    #[test]
    fn records_that_come_again_are_dropped() {
        for (next, dropped) in [(0, 0), (5, 0), (6, 1), (7, 2), (9, 2), (10, 3), (20, 3)] {
            // Offsets have gaps, where markers or compacted records were.
            let mut records = [5, 6, 9].map(|offset| record(offset, 1)).to_vec();
            assert_eq!(drop_delivered(&mut records, next), dropped, "{next}");
            let left = records.iter().map(|record| offsets::next(record.position));
            assert!(left.clone().all(|end| end > Some(next)), "{next}");
            assert_eq!(left.count(), 3 - dropped, "{next}");
        }
    }
}
