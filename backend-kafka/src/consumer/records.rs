//! Records on their way to the runtime: taken in batches, held back while a partition is paused.
//!
//! librdkafka's own pause throws away what is fetched already, and fetches it again after the
//! resume. A window that fills and empties would make it fetch everything many times over. So a pause
//! first only holds back: what was taken already waits in the [`mailbox`](super::mailbox), the rest
//! stays with librdkafka, within its bounds. Only a pause that lasts is told to it, and frees that
//! memory.

use std::time::{Duration, Instant};

use millstream_core::driver::{Event, StoredRecord};
use millstream_core::{Epoch, Error, ErrorKind, Partition, Position};
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::aide::Question;
use super::context::{Name, list};
use super::poller::Poller;
use super::slots::{Pause, Stage};
use crate::error;
use crate::group::offsets;
use crate::native::consume::Taken;

/// How often marks of transactions are looked for, while no records come.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long a pause only holds back.
const SOFT: Duration = Duration::from_millis(250);

/// Cuts what came at once into parts of no more bytes than one collection may have, or of one record.
fn cut(records: Vec<StoredRecord>, most: usize) -> Vec<Vec<StoredRecord>> {
    let mut parts = vec![Vec::with_capacity(records.len())];
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
                Taken::Records { slot, records } => {
                    for records in cut(records, self.join.batch_bytes) {
                        self.deliver(slot, records);
                    }
                }
                Taken::Failed { slot, code } => self.on_failed(slot, code),
            }
        }
    }

    fn deliver(&mut self, index: usize, records: Vec<StoredRecord>) {
        let slot = self.slots.get_mut(index);
        if slot.stage != Stage::Owned {
            return;
        }
        let Some(last) = records.last() else { return };
        slot.strayed = false;
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
        for place in places.elements() {
            let Offset::Offset(next) = place.offset() else {
                continue;
            };
            let Some(index) = self.slots.find(place.topic(), place.partition()) else {
                continue;
            };
            let slot = self.slots.get_mut(index);
            if next <= slot.next || slot.stage != Stage::Owned {
                continue;
            }
            slot.next = next;
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

    fn on_failed(&mut self, index: usize, code: RDKafkaErrorCode) {
        let slot = self.slots.get(index);
        match error::kind(code) {
            ErrorKind::DataLoss => self.aide.ask(Question::Bounds(slot.name.clone())),
            ErrorKind::NotFound => self.aide.ask(Question::Topic(slot.name.0.clone())),
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Throttled => {
                // librdkafka tries again on its own.
                tracing::debug!(target: "librdkafka", partition = %slot.partition, ?code, "fetch");
            }
            _ => {
                let error = error::from_code("read", code);
                self.fail(error.with_partition(&slot.partition));
            }
        }
    }

    /// Goes on where the records begin now, if the wanted one is gone by retention.
    pub(super) fn on_bounds(&mut self, name: &Name, low: i64, high: i64) {
        let Some(index) = self.slots.find(&name.0, name.1) else {
            return;
        };
        // To librdkafka it would look as if that was answered.
        if self.pending.is_some() {
            self.astray.push(name.clone());
            return;
        }
        let slot = self.slots.get_mut(index);
        let next = slot.next;
        if next > high {
            let message = format!(
                "the group's progress {next} is beyond the end {high}: the topic was created anew \
                 or its end was lost; reset the group"
            );
            let error = Error::new(ErrorKind::Corrupt, "read", message);
            let error = error.with_partition(&slot.partition);
            self.fail(error);
            return;
        }
        if next < low {
            slot.handed = low;
            slot.next = low;
            let event = Event::DataLoss {
                partition: slot.partition.clone(),
                epoch: slot.epoch,
                after: offsets::settled(next),
                earliest: Position::from(u64::try_from(low).unwrap_or(0)),
            };
            self.put(event);
        }
        self.slots.get_mut(index).strayed = true;
        self.reassign(name, next.max(low));
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

    /// Reads a partition from another place, whose fetching has ended with an error: no seek reaches
    /// it any more.
    fn reassign(&self, name: &Name, next: i64) {
        let mut from = TopicPartitionList::new();
        let added = from.add_partition_offset(&name.0, name.1, Offset::Offset(next));
        let assigned = added
            .and_then(|()| self.consumer.incremental_unassign(&list([name])))
            .and_then(|()| self.consumer.incremental_assign(&from));
        if let Err(error) = assigned {
            tracing::debug!(target: "librdkafka", %error, "a new place was not taken");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use bytes::Bytes;
    use millstream_core::Headers;

    use super::*;

    fn sizes(parts: &[Vec<StoredRecord>]) -> Vec<Vec<usize>> {
        let sizes = |part: &Vec<StoredRecord>| part.iter().map(StoredRecord::size).collect();
        parts.iter().map(sizes).collect()
    }

    #[test]
    fn what_comes_at_once_is_cut_by_bytes() {
        let record = |size: &usize| StoredRecord {
            position: Position::from(0),
            timestamp: UNIX_EPOCH,
            key: None,
            payload: Some(Bytes::from(vec![0; *size])),
            headers: Headers::new(),
        };
        let records = |sizes: &[usize]| sizes.iter().map(record).collect();
        let parts = |of: &[usize], most| sizes(&cut(records(of), most));
        assert_eq!(parts(&[1, 2, 3], 6), [vec![1, 2, 3]]);
        assert_eq!(parts(&[1, 2, 4], 6), [vec![1, 2], vec![4]]);
        assert_eq!(parts(&[1, 500, 1], 6), [[1], [500], [1]]);
    }
}
