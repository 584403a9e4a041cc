//! The queue of a member's events between the polling thread and the runtime.
//!
//! It takes one lock per collection and not one per event: the runtime takes all available events. The thread
//! stops taking records from librdkafka when enough wait, and so no more are requested from the broker.
//!
//! Events of a paused partition are held here, except for its lag. So a pause is in force when it
//! returns, and the runtime's limits hold to the record, whatever is in transit.

use std::collections::HashMap;
use std::mem;
use std::ops::{AddAssign, SubAssign};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use millstream_core::driver::{Event, StoredRecord};
use millstream_core::{Epoch, Error, Lag, Partition, Result};

#[derive(Debug)]
pub(super) struct EventQueue {
    content: Mutex<Content>,
    /// The amount that may wait before the queue is full.
    room: Amount,
}

/// An amount of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Amount {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

#[derive(Debug, Default)]
struct Content {
    events: Vec<QueuedEvent>,
    /// The amount of records in `events`.
    amount: Amount,
    /// The last lag of each partition without a later event. A runtime that collects nothing for a while misses the
    /// earlier ones, and no more lags wait than there are partitions.
    lags: HashMap<Partition, (Epoch, Lag)>,
    /// The held events, by paused partition.
    held: HashMap<Partition, Held>,
    /// The error that ends the membership, once all events are collected.
    failure: Option<Error>,
    collector: Option<Waker>,
}

#[derive(Debug)]
struct Held {
    epoch: Epoch,
    events: Vec<QueuedEvent>,
}

/// An event with the amount of its records, which is counted once.
#[derive(Debug)]
struct QueuedEvent {
    event: Event,
    amount: Amount,
}

/// The result of a collection.
pub(super) struct Collected {
    pub(super) events: Vec<Event>,
    /// Whether the thread waited for room.
    pub(super) was_full: bool,
}

impl EventQueue {
    pub(super) fn new(room: Amount) -> Self {
        Self {
            content: Mutex::default(),
            room,
        }
    }

    pub(super) fn push(&self, event: Event) {
        let mut content = self.lock();
        match &event {
            Event::Revoking { partitions, .. } | Event::Lost { partitions } => {
                for (partition, _) in partitions {
                    content.held.remove(partition);
                }
            }
            _ => {}
        }
        match content.hold(QueuedEvent::new(event)) {
            Some(QueuedEvent {
                event:
                    Event::Lag {
                        partition,
                        epoch,
                        lag,
                    },
                ..
            }) => {
                content.lags.insert(partition, (epoch, lag));
            }
            Some(queued) => {
                if let Event::Records { partition, .. } = &queued.event {
                    content.lags.remove(partition);
                }
                content.amount += queued.amount;
                content.events.push(queued);
            }
            None => return,
        }
        Self::wake(content);
    }

    /// Holds back all further events of a partition.
    pub(super) fn pause(&self, partition: &Partition, epoch: Epoch) {
        let mut content = self.lock();
        // Events that are already held stay: they were not collected.
        if content
            .held
            .get(partition)
            .is_none_or(|held| held.epoch != epoch)
        {
            let events = Vec::new();
            let held = Held { epoch, events };
            content.held.insert(partition.clone(), held);
        }
        for queued in mem::take(&mut content.events) {
            let amount = queued.amount;
            match content.hold(queued) {
                Some(queued) => content.events.push(queued),
                None => content.amount -= amount,
            }
        }
        let Content { held, lags, .. } = &mut *content;
        if let (Some(held), Some((of, lag))) = (held.get_mut(partition), lags.get_mut(partition)) {
            if held.epoch == *of {
                *lag = held.pass(*lag);
            }
        }
    }

    /// Releases the events that were held.
    pub(super) fn resume(&self, partition: &Partition, epoch: Epoch) {
        let mut content = self.lock();
        let held = content.held.get(partition);
        if held.is_some_and(|held| held.epoch == epoch) {
            let held = content.held.remove(partition).expect("it was just found");
            for queued in &held.events {
                content.amount += queued.amount;
                // That lag included the records that are released now.
                content.lags.remove(partition);
            }
            content.events.extend(held.events);
            Self::wake(content);
        }
    }

    /// Ends the membership. The first error is kept.
    pub(super) fn fail(&self, error: Error) {
        let mut content = self.lock();
        content.failure.get_or_insert(error);
        Self::wake(content);
    }

    /// Returns how many more records are wanted. Returns 0 while the waiting bytes fill one collection.
    pub(super) fn room(&self) -> usize {
        let amount = self.lock().amount;
        match amount.bytes < self.room.bytes {
            true => self.room.records.saturating_sub(amount.records),
            false => 0,
        }
    }

    pub(super) fn poll_collect(&self, cx: &mut Context<'_>) -> Poll<Result<Collected>> {
        let mut content = self.lock();
        if !content.events.is_empty() || !content.lags.is_empty() {
            let was_full = !content.amount.is_below(self.room);
            let taken = content.take(self.room).into_iter();
            let mut events: Vec<Event> = taken.map(|queued| queued.event).collect();
            if content.events.is_empty() {
                let lags = mem::take(&mut content.lags).into_iter();
                events.extend(lags.map(|(partition, (epoch, lag))| Event::Lag {
                    partition,
                    epoch,
                    lag,
                }));
            }
            let was_full = was_full && content.amount.is_below(self.room);
            return Poll::Ready(Ok(Collected { events, was_full }));
        }
        if let Some(error) = &content.failure {
            return Poll::Ready(Err(error.clone()));
        }
        match &mut content.collector {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn wake(mut content: MutexGuard<'_, Content>) {
        let collector = content.collector.take();
        drop(content);
        if let Some(collector) = collector {
            collector.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        // No code panics while it holds the lock.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    /// Takes events with about `room` records, and at most `room` bytes unless a single event has more. A resumed
    /// partition may have left many: the runtime must be able to pause it again after each collection.
    fn take(&mut self, room: Amount) -> Vec<QueuedEvent> {
        if self.amount.records <= room.records && self.amount.bytes <= room.bytes {
            self.amount = Amount::default();
            return mem::take(&mut self.events);
        }
        let mut taken = Amount::default();
        let full = self.events.iter().position(|queued| {
            let next = queued.amount;
            let is_full = next.records > 0
                && taken.records > 0
                && (taken.records >= room.records || taken.bytes + next.bytes > room.bytes);
            if !is_full {
                taken += next;
            }
            is_full
        });
        self.amount -= taken;
        match full {
            Some(first) => {
                let rest = self.events.split_off(first);
                mem::replace(&mut self.events, rest)
            }
            None => mem::take(&mut self.events),
        }
    }

    /// Holds an event of a paused partition, and returns any other event.
    fn hold(&mut self, queued: QueuedEvent) -> Option<QueuedEvent> {
        let (Event::Records {
            partition, epoch, ..
        }
        | Event::Lag {
            partition, epoch, ..
        }
        | Event::DataLoss {
            partition, epoch, ..
        }) = &queued.event
        else {
            return Some(queued);
        };
        match self.held.get_mut(partition) {
            Some(held) if held.epoch == *epoch => held.take(queued),
            _ => Some(queued),
        }
    }
}

impl Held {
    /// Holds an event that moves the runtime forward. Lags are passed on immediately: they matter most for a partition
    /// that does not move.
    fn take(&mut self, mut queued: QueuedEvent) -> Option<QueuedEvent> {
        if let Event::Lag { lag, .. } = &mut queued.event {
            *lag = self.pass(*lag);
            return Some(queued);
        }
        self.events.push(queued);
        None
    }

    /// Takes the lag after all records. Returns the lag after the last records that the runtime has.
    fn pass(&mut self, mut left: Lag) -> Lag {
        for queued in self.events.iter_mut().rev() {
            if let Event::Records { records, lag, .. } = &mut queued.event {
                *lag = left;
                left.records = left.records.map(|left| left + records.len() as u64);
                let oldest = records.first().map(|record| record.timestamp);
                left.time = oldest.and_then(|time| SystemTime::now().duration_since(time).ok());
            }
        }
        left
    }
}

impl QueuedEvent {
    fn new(event: Event) -> Self {
        let amount = match &event {
            Event::Records { records, .. } => Amount {
                records: records.len(),
                bytes: records.iter().map(StoredRecord::size).sum(),
            },
            _ => Amount::default(),
        };
        Self { event, amount }
    }
}

impl Amount {
    fn is_below(self, room: Self) -> bool {
        self.records < room.records && self.bytes < room.bytes
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        self.records -= other.records;
        self.bytes -= other.bytes;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use bytes::Bytes;
    use millstream_core::{Headers, Position};

    use super::*;

    const EPOCH: Epoch = Epoch(1);

    fn partition() -> Partition {
        Partition::new("s", "0")
    }

    fn batch(offsets: std::ops::Range<u64>, age: Duration, left: u64) -> Event {
        let timestamp = SystemTime::now() - age;
        let record = |offset| StoredRecord {
            position: Position::from(offset),
            timestamp,
            key: None,
            payload: Some(Bytes::new()),
            headers: Headers::default(),
        };
        Event::Records {
            partition: partition(),
            epoch: EPOCH,
            records: offsets.map(record).collect(),
            lag: lag(left),
        }
    }

    fn lag(left: u64) -> Lag {
        Lag {
            records: Some(left),
            time: None,
        }
    }

    fn told(left: u64) -> Event {
        Event::Lag {
            partition: partition(),
            epoch: EPOCH,
            lag: lag(left),
        }
    }

    /// Returns the lags that the runtime receives, in order.
    async fn collect(queue: &EventQueue) -> Vec<Lag> {
        let collected = poll_fn(|cx| queue.poll_collect(cx)).await;
        let events = collected.unwrap_or_else(|error| panic!("{error}")).events;
        let lags = events.into_iter().filter_map(|event| match event {
            Event::Lag { lag, .. } | Event::Records { lag, .. } => Some(lag),
            _ => None,
        });
        lags.collect()
    }

    fn room(records: usize) -> Amount {
        let bytes = usize::MAX;
        Amount { records, bytes }
    }

    /// Returns the number of records in the next collection.
    async fn collect_records(queue: &EventQueue) -> usize {
        let collected = poll_fn(|cx| queue.poll_collect(cx)).await;
        let events = collected.unwrap_or_else(|error| panic!("{error}")).events;
        events
            .into_iter()
            .map(|event| QueuedEvent::new(event).amount.records)
            .sum()
    }

    #[tokio::test]
    async fn a_resumed_partition_is_collected_within_the_bound_and_can_be_paused_again() {
        let queue = EventQueue::new(room(5));
        queue.pause(&partition(), EPOCH);
        for first in [0, 5, 10, 15] {
            queue.push(batch(first..first + 5, Duration::ZERO, 0));
        }
        queue.resume(&partition(), EPOCH);
        assert_eq!(queue.room(), 0);
        assert_eq!(collect_records(&queue).await, 5);
        queue.pause(&partition(), EPOCH);
        queue.pause(&partition(), EPOCH);
        assert_eq!(queue.room(), 5, "the rest is held again");
        queue.resume(&partition(), EPOCH);
        for _ in 0..3 {
            assert_eq!(collect_records(&queue).await, 5);
        }
        assert_eq!(queue.room(), 5);
    }

    #[tokio::test]
    async fn a_collection_has_no_more_bytes_than_it_may() {
        let queue = EventQueue::new(Amount {
            records: 1_000,
            bytes: 70,
        });
        // Records of ten bytes.
        for (first, count) in [(0, 3), (3, 4), (7, 1), (8, 9), (17, 1)] {
            let mut event = batch(first..first + count, Duration::ZERO, 0);
            if let Event::Records { records, .. } = &mut event {
                for record in records {
                    record.payload = Some(Bytes::from_static(b"ten bytes."));
                }
            }
            queue.push(event);
        }
        assert_eq!(queue.room(), 0);
        for expected in [7, 1, 9, 1] {
            assert_eq!(collect_records(&queue).await, expected);
        }
        assert_eq!(queue.room(), 1_000);
    }

    #[tokio::test]
    async fn a_paused_partition_tells_its_lag_without_its_records() {
        let queue = EventQueue::new(room(1_000));
        queue.pause(&partition(), EPOCH);
        let (hour, minute) = (Duration::from_secs(3_600), Duration::from_secs(60));
        queue.push(batch(10..15, hour, 2));
        queue.push(batch(15..17, minute, 0));
        queue.push(told(100));
        let [shown] = collect(&queue).await[..] else {
            panic!("the records are held")
        };
        // The runtime has none of the held records.
        assert_eq!(shown.records, Some(107));
        assert!(shown.time >= Some(hour), "{shown:?}");

        queue.resume(&partition(), EPOCH);
        let shown = collect(&queue).await;
        let records: Vec<_> = shown.iter().map(|lag| lag.records).collect();
        assert_eq!(records, [Some(102), Some(100)]);
        assert!(shown[0].time >= Some(minute) && shown[0].time < Some(hour));
    }

    #[tokio::test]
    async fn only_the_last_lag_waits() {
        let queue = EventQueue::new(room(1_000));
        for left in 0..100 {
            queue.push(told(left));
        }
        assert_eq!(collect(&queue).await, [lag(99)]);
        queue.push(told(100));
        queue.push(batch(0..1, Duration::ZERO, 99));
        assert_eq!(collect(&queue).await, [lag(99)], "the records are newer");
        queue.push(batch(1..2, Duration::ZERO, 98));
        queue.push(told(97));
        queue.pause(&partition(), EPOCH);
        let [shown] = collect(&queue).await[..] else {
            panic!("the record is held")
        };
        assert_eq!(shown.records, Some(98), "with the one that is held");
        queue.push(told(96));
        queue.resume(&partition(), EPOCH);
        let shown = collect(&queue).await;
        assert_eq!(shown.len(), 1, "{shown:?}");
    }

    #[tokio::test]
    async fn a_lag_of_another_epoch_passes() {
        let queue = EventQueue::new(room(1_000));
        queue.pause(&partition(), Epoch(2));
        queue.push(told(100));
        assert_eq!(collect(&queue).await, [lag(100)]);
    }
}
