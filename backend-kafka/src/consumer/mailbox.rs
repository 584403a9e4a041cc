//! Where the polling thread leaves events, and the runtime collects them.
//!
//! One lock per collection and not one per event: the runtime takes all that is there. The thread
//! stops leaving records when enough wait, and so the broker is asked for no more.
//!
//! What comes of a paused partition is held here. So a pause is in force when it returns, and the
//! bounds of the runtime hold to the record, whatever is on the way.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use millstream::driver::Event;
use millstream::{Epoch, Error, Partition, Result};

#[derive(Debug)]
pub(super) struct Mailbox {
    content: Mutex<Content>,
    /// So many records may wait before the box is full.
    room: usize,
}

#[derive(Debug, Default)]
struct Content {
    events: Vec<Event>,
    records: usize,
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

impl Mailbox {
    pub(super) fn new(room: usize) -> Self {
        Self {
            content: Mutex::default(),
            room,
        }
    }

    pub(super) fn put(&self, event: Event) {
        let mut content = self.lock();
        match &event {
            Event::Revoking { partitions, .. } | Event::Lost { partitions } => {
                for (partition, _) in partitions {
                    content.held.remove(partition);
                }
            }
            _ => {}
        }
        if let Some(event) = content.hold(event) {
            content.records += records(&event);
            content.events.push(event);
            Self::ring(content);
        }
    }

    /// Lets nothing more of a partition be collected.
    pub(super) fn pause(&self, partition: &Partition, epoch: Epoch) {
        let mut content = self.lock();
        let events = Vec::new();
        let held = Held { epoch, events };
        content.held.insert(partition.clone(), held);
        for event in mem::take(&mut content.events) {
            let count = records(&event);
            match content.hold(event) {
                Some(event) => content.events.push(event),
                None => content.records -= count,
            }
        }
    }

    /// Lets what was held be collected.
    pub(super) fn resume(&self, partition: &Partition, epoch: Epoch) {
        let mut content = self.lock();
        let held = content.held.get(partition);
        if held.is_some_and(|held| held.epoch == epoch) {
            let held = content.held.remove(partition).expect("it was just found");
            content.records += held.events.iter().map(records).sum::<usize>();
            content.events.extend(held.events);
            Self::ring(content);
        }
    }

    /// Ends the membership. The first reason stays.
    pub(super) fn fail(&self, error: Error) {
        let mut content = self.lock();
        content.failure.get_or_insert(error);
        Self::ring(content);
    }

    /// How many more records are wanted.
    pub(super) fn room(&self) -> usize {
        self.room.saturating_sub(self.lock().records)
    }

    pub(super) fn poll_collect(&self, cx: &mut Context<'_>) -> Poll<Result<Collected>> {
        let mut content = self.lock();
        if !content.events.is_empty() {
            let events = mem::take(&mut content.events);
            let was_full = mem::take(&mut content.records) >= self.room;
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

    fn ring(mut content: MutexGuard<'_, Content>) {
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
    /// Keeps what is of a paused partition, and hands back what is not.
    fn hold(&mut self, event: Event) -> Option<Event> {
        let (Event::Records {
            partition, epoch, ..
        }
        | Event::Lag {
            partition, epoch, ..
        }
        | Event::Trimmed {
            partition, epoch, ..
        }) = &event
        else {
            return Some(event);
        };
        match self.held.get_mut(partition) {
            Some(held) if held.epoch == *epoch => {
                held.events.push(event);
                None
            }
            _ => Some(event),
        }
    }
}

fn records(event: &Event) -> usize {
    match event {
        Event::Records { records, .. } => records.len(),
        _ => 0,
    }
}
