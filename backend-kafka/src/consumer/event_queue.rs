//! The events of a member, on their way from the polling thread to the runtime.
//!
//! One lock per collection and not one per event: the runtime takes all that is there. The thread
//! stops leaving records when enough wait, and so the broker is asked for no more.
//!
//! What comes of a paused partition is held here, but for its lag. So a pause is in force when it
//! returns, and the bounds of the runtime hold to the record, whatever is on the way.

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
    /// So much may wait before it is full.
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
    events: Vec<Event>,
    /// What `events` hold.
    amount: Amount,
    /// The last lag of each partition of which nothing came since: a runtime that collects nothing for
    /// a while misses the earlier ones, and no more of them wait than there are partitions.
    lags: HashMap<Partition, (Epoch, Lag)>,
    /// By paused partition, what came of it.
    held: HashMap<Partition, Held>,
    /// What ends the membership, once all events are collected.
    failure: Option<Error>,
    collector: Option<Waker>,
}

#[derive(Debug)]
struct Held {
    epoch: Epoch,
    events: Vec<Event>,
}

/// What a collection leaves to be done.
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
        match content.hold(event) {
            Some(Event::Lag {
                partition,
                epoch,
                lag,
            }) => {
                content.lags.insert(partition, (epoch, lag));
            }
            Some(event) => {
                if let Event::Records { partition, .. } = &event {
                    content.lags.remove(partition);
                }
                content.amount += amount(&event);
                content.events.push(event);
            }
            None => return,
        }
        Self::wake(content);
    }

    /// Lets nothing more of a partition be collected.
    pub(super) fn pause(&self, partition: &Partition, epoch: Epoch) {
        let mut content = self.lock();
        // What is held already stays: it was not collected.
        if content
            .held
            .get(partition)
            .is_none_or(|held| held.epoch != epoch)
        {
            let events = Vec::new();
            let held = Held { epoch, events };
            content.held.insert(partition.clone(), held);
        }
        for event in mem::take(&mut content.events) {
            let amount = amount(&event);
            match content.hold(event) {
                Some(event) => content.events.push(event),
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

    /// Lets what was held be collected.
    pub(super) fn resume(&self, partition: &Partition, epoch: Epoch) {
        let mut content = self.lock();
        let held = content.held.get(partition);
        if held.is_some_and(|held| held.epoch == epoch) {
            let held = content.held.remove(partition).expect("it was just found");
            for event in &held.events {
                content.amount += amount(event);
                // It counted what comes now.
                content.lags.remove(partition);
            }
            content.events.extend(held.events);
            Self::wake(content);
        }
    }

    /// Ends the membership. The first reason stays.
    pub(super) fn fail(&self, error: Error) {
        let mut content = self.lock();
        content.failure.get_or_insert(error);
        Self::wake(content);
    }

    /// How many more records are wanted; none while so many bytes wait as a collection may have.
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
            let mut events = content.take(self.room);
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
        // Nothing panics while it is held.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    /// Takes events until they have about as many records as `room`, and no more bytes, unless one event
    /// has. A resumed partition may have left many: the runtime must be able to pause it again after each
    /// collection.
    fn take(&mut self, room: Amount) -> Vec<Event> {
        if self.amount.records <= room.records && self.amount.bytes <= room.bytes {
            self.amount = Amount::default();
            return mem::take(&mut self.events);
        }
        let mut taken = Amount::default();
        let full = self.events.iter().position(|event| {
            let next = amount(event);
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

    /// Keeps what is of a paused partition, and hands back what is not.
    fn hold(&mut self, event: Event) -> Option<Event> {
        let (Event::Records {
            partition, epoch, ..
        }
        | Event::Lag {
            partition, epoch, ..
        }
        | Event::DataLoss {
            partition, epoch, ..
        }) = &event
        else {
            return Some(event);
        };
        match self.held.get_mut(partition) {
            Some(held) if held.epoch == *epoch => held.take(event),
            _ => Some(event),
        }
    }
}

impl Held {
    /// Keeps what moves the runtime on. How far it is behind is told at once: a partition that stands
    /// still is where that matters.
    fn take(&mut self, mut event: Event) -> Option<Event> {
        if let Event::Lag { lag, .. } = &mut event {
            *lag = self.pass(*lag);
            return Some(event);
        }
        self.events.push(event);
        None
    }

    /// What is left behind the last records that the runtime has, of what is left behind all.
    fn pass(&mut self, mut left: Lag) -> Lag {
        for event in self.events.iter_mut().rev() {
            if let Event::Records { records, lag, .. } = event {
                *lag = left;
                left.records = left.records.map(|left| left + records.len() as u64);
                let oldest = records.first().map(|record| record.timestamp);
                left.time = oldest.and_then(|time| SystemTime::now().duration_since(time).ok());
            }
        }
        left
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

fn amount(event: &Event) -> Amount {
    match event {
        Event::Records { records, .. } => Amount {
            records: records.len(),
            bytes: records.iter().map(StoredRecord::size).sum(),
        },
        _ => Amount::default(),
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

    /// What the runtime is told of lags, in turn.
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

    /// The number of records in the next collection.
    async fn collect_records(queue: &EventQueue) -> usize {
        let collected = poll_fn(|cx| queue.poll_collect(cx)).await;
        let events = collected.unwrap_or_else(|error| panic!("{error}")).events;
        events.iter().map(|event| amount(event).records).sum()
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
        // Of the records that are held, the runtime has none.
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
