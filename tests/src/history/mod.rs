//! The history of a run of producers, members and faults: one ordered list of events.
//!
//! All participants record into one [`History`], and the [`checker`](crate::checker) checks it
//! afterwards. A history can be written and read as JSON lines, so that members in other processes can
//! take part: each process writes its own as it runs ([`History::journal`]), by a clock that all share, and
//! [`History::read_from`] or [`History::add`] merges them by order number.
//!
//! # When to record
//!
//! The checker relies on the order of the list, so each event is recorded on the safe side:
//!
//! * [`Sent`](Event::Sent) before `send` is called; the outcome after the receipt has resolved.
//! * [`Began`](Event::Began) as the first thing in a handler, [`Ended`](Event::Ended) as the last before
//!   it returns, so that it precedes any checkpoint that includes the record.
//! * [`Checkpointed`](Event::Checkpointed) after the checkpoint was read. One task reads the checkpoints
//!   of a group, one after the other.
//! * A [`Fault`](Event::Fault), a [`Reset`](Event::Reset), a [`Crashed`](Event::Crashed), a
//!   [`Remapped`](Event::Remapped) and a [`Deleted`](Event::Deleted) before it takes effect.
//! * A batch handler records `Began` and `Ended` of one delivery after the other.
//!
//! A member's name identifies one membership: a member that returns after a crash has a new name. A
//! stream's name identifies one stream: a recreated one has a new name, from [`Incarnations`].

use std::fmt;
use std::io::{self, BufRead, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millstream_core::{Epoch, Partition, Position};
use serde::{Deserialize, Serialize};

mod generator;
mod incarnations;
mod observer;
mod text;

pub use generator::{RecordGenerator, digest, id_of, id_of_delivery, record};
pub use incarnations::Incarnations;
pub use observer::{BegunHandling, Observer};

/// An event of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A record is about to be sent.
    Sent {
        /// The stream.
        stream: Arc<str>,
        /// Its key; records without one have no order.
        key: Option<Arc<str>>,
        /// Its number among the records of its key in this stream, growing.
        sequence: u64,
        /// Its id, unique in the history.
        id: u64,
        /// The [`digest`] of key, payload and headers.
        digest: u64,
    },
    /// The receipt reports where it is stored.
    Acknowledged {
        /// The record's id.
        id: u64,
        /// The partition.
        #[serde(with = "text::partition")]
        partition: Partition,
        /// The position.
        #[serde(with = "text::position")]
        position: Position,
    },
    /// The send failed permanently: the record must never be seen.
    Failed {
        /// The record's id.
        id: u64,
    },
    /// The send timed out, or failed in a way that does not determine whether the record is stored.
    Unknown {
        /// The record's id.
        id: u64,
    },
    /// A group reads a stream from now on, and must settle its records.
    Subscribed {
        /// The group.
        group: Arc<str>,
        /// The stream.
        stream: Arc<str>,
        /// Whether it must also settle records that were sent before this event.
        everything: bool,
    },
    /// A member joins.
    Joined {
        /// The group.
        group: Arc<str>,
        /// The member.
        member: Arc<str>,
    },
    /// A member has left cleanly.
    Left {
        /// The group.
        group: Arc<str>,
        /// The member.
        member: Arc<str>,
    },
    /// A member is killed.
    Crashed {
        /// The group.
        group: Arc<str>,
        /// The member.
        member: Arc<str>,
    },
    /// A member owns a partition. Optional: the checker also learns of owners from `Began`.
    Assigned(Ownership),
    /// A member has handed a partition over cleanly. Optional.
    Released(Ownership),
    /// A member learned that it has lost a partition.
    Lost(Ownership),
    /// A handler begins.
    Began(Handling),
    /// A handler has ended.
    Ended {
        /// The attempt.
        #[serde(flatten)]
        handling: Handling,
        /// The outcome.
        outcome: Outcome,
    },
    /// A record was found in the dead letter stream.
    DeadLettered {
        /// The group.
        group: Arc<str>,
        /// The record's id.
        id: u64,
    },
    /// The group's failure policy skipped a record.
    Skipped {
        /// The group.
        group: Arc<str>,
        /// The record's id.
        id: u64,
    },
    /// The stored checkpoint of a group in a partition was read.
    Checkpointed {
        /// The group.
        group: Arc<str>,
        /// The partition.
        #[serde(with = "text::partition")]
        partition: Partition,
        /// The last settled position.
        #[serde(with = "text::some_position")]
        position: Option<Position>,
        /// The epoch that wrote it.
        #[serde(with = "text::some_epoch")]
        epoch: Option<Epoch>,
    },
    /// A group is moved in a stream.
    Reset {
        /// The group.
        group: Arc<str>,
        /// The stream.
        stream: Arc<str>,
        /// Whether it may skip records.
        skips: bool,
    },
    /// Partitions are added to a stream: its keys may move, without order across the move.
    Remapped {
        /// The stream.
        stream: Arc<str>,
    },
    /// A stream is deleted, with its records and with the progress of its groups. Its records need
    /// not be settled any more.
    Deleted {
        /// The stream.
        stream: Arc<str>,
        /// The next stream that the broker has under its name.
        next: Arc<str>,
    },
    /// Retention has removed records, whether they were read or not. They need not be settled.
    DataLoss {
        /// The partition.
        #[serde(with = "text::partition")]
        partition: Partition,
        /// The oldest available position.
        #[serde(with = "text::position")]
        earliest: Position,
    },
    /// A fault is injected. Without a group, it affects sending.
    Fault {
        /// The affected group.
        group: Option<Arc<str>>,
        /// The member. `None`: all members of the group.
        member: Option<Arc<str>>,
        /// A description of the fault, for readers.
        what: String,
    },
    /// The faults of a group are over: members that take over from here on do so cleanly.
    Healed {
        /// The group.
        group: Arc<str>,
    },
}

/// A member's ownership of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ownership {
    /// The group.
    pub group: Arc<str>,
    /// The member.
    pub member: Arc<str>,
    /// The partition.
    #[serde(with = "text::partition")]
    pub partition: Partition,
    /// The epoch.
    #[serde(with = "text::epoch")]
    pub epoch: Epoch,
}

/// One attempt of a handler at a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handling {
    /// The ownership under which it is handled.
    #[serde(flatten)]
    pub by: Ownership,
    /// The position in the partition.
    #[serde(with = "text::position")]
    pub position: Position,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The id of the record.
    pub id: u64,
    /// The [`digest`] of the received record.
    pub digest: u64,
    /// Whether the partition was already lost at this moment, according to the delivery.
    pub lost: bool,
}

/// The result of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It settled the record.
    Acked,
    /// It failed; the record will be retried, by this member or another.
    Failed,
    /// It failed at the last attempt that the policy allows: the record will be dead-lettered or skipped.
    GaveUp,
    /// The handler was dropped before it ended.
    Dropped,
}

impl Outcome {
    /// Returns whether the record is settled by it.
    pub const fn settles(self) -> bool {
        matches!(self, Self::Acked | Self::GaveUp)
    }
}

/// An event with its order number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The order number, which grows during the run. Processes with separate histories share one clock
    /// for it.
    pub order: u64,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// A shared list of events. Cheap to clone; clones share the list.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<List>>);

#[derive(Debug, Default)]
struct List {
    entries: Vec<Entry>,
    clock: Option<fn() -> u64>,
    journal: Option<Journal>,
}

struct Journal(Box<dyn Write + Send>);

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Journal")
    }
}

impl List {
    /// Inserts an entry after all that are not later.
    fn insert(&mut self, entry: Entry) {
        let later = self.entries.iter().rev();
        let later = later.take_while(|other| other.order > entry.order).count();
        self.entries.insert(self.entries.len() - later, entry);
    }
}

impl History {
    /// Creates an empty history.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty history whose order numbers are the time by `clock`, which all participating processes
    /// must share and which must never go back.
    pub fn by(clock: fn() -> u64) -> Self {
        let history = Self::default();
        history.lock().clock = Some(clock);
        history
    }

    /// Like [`by`](Self::by), and writes each event as a JSON line before [`record`](Self::record)
    /// returns, so that a killed process has reported everything that happened in it.
    pub fn journal(clock: fn() -> u64, to: impl Write + Send + 'static) -> Self {
        let history = Self::by(clock);
        history.lock().journal = Some(Journal(Box::new(to)));
        history
    }

    /// Records an event.
    ///
    /// # Panics
    /// If the journal cannot be written.
    pub fn record(&self, event: Event) {
        let mut list = self.lock();
        let next = || list.entries.last().map_or(0, |last| last.order + 1);
        let order = list.clock.map_or_else(next, |clock| clock());
        let entry = Entry { order, event };
        if let Some(Journal(to)) = &mut list.journal {
            // One write: a reader never sees half a line.
            let mut line = serde_json::to_vec(&entry).expect("an event can be written");
            line.push(b'\n');
            let written = to.write_all(&line).and_then(|()| to.flush());
            written.expect("the journal is written");
        }
        list.insert(entry);
    }

    /// Inserts an event of another process by its order number.
    pub fn add(&self, entry: Entry) {
        self.lock().insert(entry);
    }

    /// Returns the number of events.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Returns whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a copy of the list.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().entries.clone()
    }

    /// Passes every event to `look`, in order. Nothing is recorded meanwhile.
    pub fn each(&self, mut look: impl FnMut(&Event)) {
        let list = self.lock();
        list.entries.iter().for_each(|entry| look(&entry.event));
    }

    /// Counts the events that `wanted` selects.
    pub fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        let list = self.lock();
        list.entries.iter().filter(|e| wanted(&e.event)).count()
    }

    /// Writes the history as JSON lines.
    ///
    /// # Errors
    /// The errors of `to`.
    pub fn write_to(&self, mut to: impl Write) -> io::Result<()> {
        for entry in &self.lock().entries {
            serde_json::to_writer(&mut to, entry)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }

    /// Adds the events of JSON lines, and sorts all by their order numbers.
    ///
    /// # Errors
    /// The errors of `from`, and `InvalidData` for a line that is no event.
    pub fn read_from(&self, from: impl BufRead) -> io::Result<()> {
        let read: Vec<Entry> = from
            .lines()
            .map(|line| Ok(serde_json::from_str(&line?)?))
            .collect::<io::Result<_>>()?;
        let mut list = self.lock();
        list.entries.extend(read);
        list.entries.sort_by_key(|entry| entry.order);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        // A handler that panicked while it recorded has at most omitted its own event.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_json_lines() {
        let history = History::new();
        let by = Ownership {
            group: "g".into(),
            member: "m".into(),
            partition: Partition::new("s", "shardId-000000000007"),
            epoch: Epoch(u64::MAX),
        };
        let handling = Handling {
            by: by.clone(),
            position: "49590338271490256608559692538361571095921575989136588898.3"
                .parse()
                .expect("a position"),
            attempt: 2,
            id: u64::MAX,
            digest: u64::MAX,
            lost: true,
        };
        history.record(Event::Assigned(by));
        history.record(Event::Ended {
            handling,
            outcome: Outcome::GaveUp,
        });
        history.record(Event::Checkpointed {
            group: "g".into(),
            partition: Partition::new("s", "0"),
            position: None,
            epoch: Some(Epoch(3)),
        });
        let mut lines = Vec::new();
        history.write_to(&mut lines).expect("writes");
        let read = History::new();
        read.read_from(&lines[..]).expect("reads");
        assert_eq!(read.entries(), history.entries());
    }

    #[test]
    fn a_journal_is_written_as_it_goes_and_merges_by_time() {
        use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

        #[derive(Clone, Default)]
        struct Shared(Arc<Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
                self.0.lock().expect("no panic").write(lines)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        static NOW: AtomicU64 = AtomicU64::new(7);
        let clock = || NOW.fetch_add(1, Relaxed);
        let (written, here) = (Shared::default(), History::by(clock));
        let there = History::journal(clock, written.clone());
        there.record(Event::Failed { id: 1 });
        here.record(Event::Failed { id: 2 });
        there.record(Event::Failed { id: 3 });

        let lines = written.0.lock().expect("no panic").clone();
        for line in lines.lines().map(|line| line.expect("text")) {
            here.add(serde_json::from_str(&line).expect("an event"));
        }
        let ids = here.entries().into_iter().map(|entry| match entry.event {
            Event::Failed { id } => (entry.order, id),
            other => panic!("{other:?}"),
        });
        assert_eq!(ids.collect::<Vec<_>>(), [(7, 1), (8, 2), (9, 3)]);
    }

    #[test]
    fn a_line_that_is_no_event_is_refused() {
        let error = History::new().read_from(&b"{\"order\":1}\n"[..]);
        assert_eq!(
            error.expect_err("no event").kind(),
            io::ErrorKind::InvalidData
        );
    }
}
