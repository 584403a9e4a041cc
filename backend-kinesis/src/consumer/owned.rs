//! What a member owns, and what waits to be told of it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use millstream_core::driver::Event;
use millstream_core::{Epoch, Lag, Partition, Result};

use crate::retrieval::{ReadEvent, Reader};
use crate::stream::Shard;

/// What a reader says, after the assignment that it reads for.
pub(super) type Said = ((Partition, Epoch), ReadEvent);

/// The assignments of a member.
#[derive(Debug, Default)]
pub(super) struct Owned {
    slots: HashMap<Partition, Slot>,
    /// What the runtime is told next, in order.
    ready: VecDeque<Event>,
}

/// One assignment.
#[derive(Debug)]
struct Slot {
    epoch: Epoch,
    /// None when no more of it shall come.
    reader: Option<Reader>,
    /// While it is paused: what its reader had handed on already.
    kept: Option<VecDeque<Event>>,
    /// The shards that go on from it, once it has ended.
    children: Vec<Shard>,
}

impl Owned {
    pub(super) fn assign(&mut self, partition: Partition, epoch: Epoch, reader: Reader) {
        let slot = Slot {
            epoch,
            reader: Some(reader),
            kept: None,
            children: Vec::new(),
        };
        self.slots.insert(partition, slot);
    }

    fn slot(&mut self, partition: &Partition, epoch: Epoch) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(partition);
        slot.filter(|slot| slot.epoch == epoch)
    }

    /// Reads no more of a partition; what waits of it is dropped, and the next owner reads it. False
    /// if it is not owned.
    pub(super) fn stop(&mut self, partition: &Partition, epoch: Epoch) -> bool {
        let Some(slot) = self.slot(partition, epoch) else {
            return false;
        };
        slot.reader = None;
        slot.kept = None;
        self.ready.retain(|event| about(event) != Some(partition));
        true
    }

    /// Gives up an assignment. False if it is not owned.
    pub(super) fn remove(&mut self, partition: &Partition, epoch: Epoch) -> bool {
        self.stop(partition, epoch) && self.slots.remove(partition).is_some()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The shards that go on from one that has ended; none if it is not owned.
    pub(super) fn children(&mut self, partition: &Partition, epoch: Epoch) -> Option<Vec<Shard>> {
        let slot = self.slot(partition, epoch);
        slot.map(|slot| slot.children.clone())
    }

    pub(super) fn pause(&mut self, partition: &Partition, epoch: Epoch) {
        let Some(slot) = self.slot(partition, epoch) else {
            return;
        };
        if let (Some(reader), None) = (&slot.reader, &slot.kept) {
            reader.pause();
            let mut kept = VecDeque::new();
            let mut ready = VecDeque::new();
            for event in self.ready.drain(..) {
                match about(&event) == Some(partition) {
                    true => kept.push_back(event),
                    false => ready.push_back(event),
                }
            }
            self.ready = ready;
            if let Some(slot) = self.slots.get_mut(partition) {
                slot.kept = Some(kept);
            }
        }
    }

    pub(super) fn resume(&mut self, partition: &Partition, epoch: Epoch) {
        let Some(slot) = self.slot(partition, epoch) else {
            return;
        };
        if let (Some(reader), Some(kept)) = (&slot.reader, slot.kept.take()) {
            reader.resume();
            self.ready.extend(kept);
        }
    }

    /// Takes in what is not a reader's to say.
    pub(super) fn tell(&mut self, event: Event) {
        self.ready.push_back(event);
    }

    /// Takes in what a reader says, unless it is of what is no longer read.
    pub(super) fn hear(&mut self, said: Said) -> Result<()> {
        let ((partition, epoch), said) = said;
        let Some(slot) = self.slot(&partition, epoch) else {
            return Ok(());
        };
        if slot.reader.is_none() {
            return Ok(());
        }
        let event = match said {
            ReadEvent::Records { records, behind } => Event::Records {
                partition,
                epoch,
                records,
                lag: lag(behind),
            },
            ReadEvent::Behind(behind) => Event::Lag {
                partition,
                epoch,
                lag: lag(Some(behind)),
            },
            ReadEvent::DataLoss { after, earliest } => Event::DataLoss {
                partition,
                epoch,
                after,
                earliest,
            },
            ReadEvent::Ended { children } => {
                slot.children = children;
                Event::Ended { partition, epoch }
            }
            // A matter of the lease, not of the runtime.
            ReadEvent::AtTip { .. } => return Ok(()),
            ReadEvent::Failed(error) => return Err(error.with_partition(&partition)),
        };
        match &mut slot.kept {
            Some(kept) => kept.push_back(event),
            None => self.ready.push_back(event),
        }
        Ok(())
    }

    /// Whether `records` are ready to be told, or more.
    pub(super) fn has(&self, records: usize) -> bool {
        self.ready.iter().map(size).sum::<usize>() >= records
    }

    /// Takes out what the runtime is told next: about `records` records at most.
    pub(super) fn take(&mut self, records: usize) -> Vec<Event> {
        let mut events = Vec::new();
        let mut taken = 0;
        while taken < records {
            let Some(event) = self.ready.pop_front() else {
                break;
            };
            taken += size(&event);
            events.push(event);
        }
        events
    }
}

fn size(event: &Event) -> usize {
    match event {
        Event::Records { records, .. } => records.len(),
        _ => 0,
    }
}

/// The partition that a reader's event is about. Those of leases are about several, or must be told
/// in any case.
fn about(event: &Event) -> Option<&Partition> {
    match event {
        Event::Records { partition, .. }
        | Event::Lag { partition, .. }
        | Event::DataLoss { partition, .. }
        | Event::Ended { partition, .. } => Some(partition),
        Event::Assigned { .. } | Event::Revoking { .. } | Event::Lost { .. } => None,
    }
}

/// Kinesis tells the age of what is left, and so whether anything is.
fn lag(behind: Option<Duration>) -> Lag {
    Lag {
        records: behind.filter(Duration::is_zero).map(|_| 0),
        time: behind,
    }
}
