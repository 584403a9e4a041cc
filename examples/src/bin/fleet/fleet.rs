//! What all parts of the program share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use millstream::{Client, Delivery, ErrorKind, StreamSpec};

use crate::analytics::Statistics;
use crate::book::Book;
use crate::event::Event;
use crate::judge::Judge;
use crate::ledger::Ledger;
use crate::notes::Notes;
use crate::stage::Stage;
use crate::tag::{RunId, Tag};

/// The names of the streams.
pub(crate) const RAW: &str = "car-raw-events";
pub(crate) const PROCESSED: &str = "processed-events";
pub(crate) const ENTITIES: &str = "entity-updates";
pub(crate) const NOTIFICATIONS: &str = "notifications";
pub(crate) const DEAD: &str = "car-raw-events.dead";

/// Partitions of each stream but the dead letters, which have one.
const PARTITIONS: usize = 8;

/// One run of the program: the client, what the services remember (each a stand-in for its team's
/// database), and the history.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) client: Client,
    pub(crate) run: RunId,
    pub(crate) begun: Instant,
    /// What was sent to `car-raw-events`, and so what follows from it one to one.
    pub(crate) reports: Ledger,
    /// The alerts found.
    pub(crate) alerts: Ledger,
    /// The bad lines.
    pub(crate) bad: Ledger,
    pub(crate) notes: Notes,
    pub(crate) book: Shared<Book>,
    pub(crate) statistics: Shared<Statistics>,
    /// The dashboard: where each vehicle was last.
    pub(crate) positions: Shared<HashMap<String, Event>>,
    /// Reports that a group has put into the dead letter stream.
    dead_letters: AtomicU64,
    judges: Vec<Judge>,
}

/// A value behind a lock that is never held across an await.
#[derive(Debug, Default)]
pub(crate) struct Shared<T>(Mutex<T>);

impl<T> Shared<T> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fleet {
    pub(crate) fn new(client: Client) -> Self {
        let begun = Instant::now();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            client,
            run: RunId(format!("{:x}", now.as_micros())),
            begun,
            reports: Ledger::default(),
            alerts: Ledger::default(),
            bad: Ledger::default(),
            notes: Notes::default(),
            book: Shared::default(),
            statistics: Shared::default(),
            positions: Shared::default(),
            dead_letters: AtomicU64::new(0),
            judges: Stage::ALL.iter().map(|_| Judge::new(begun)).collect(),
        }
    }

    /// Makes the streams that are not there yet.
    pub(crate) async fn create_streams(&self) -> millstream::Result<()> {
        for name in [RAW, PROCESSED, ENTITIES, NOTIFICATIONS, DEAD] {
            let partitions = if name == DEAD { 1 } else { PARTITIONS };
            let spec = StreamSpec::new(name).partitions(partitions);
            match self.client.streams().create(spec).await {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                created => created?,
            }
        }
        Ok(())
    }

    pub(crate) fn judge(&self, stage: Stage) -> &Judge {
        &self.judges[stage as usize]
    }

    /// Notes that `stage` handled `delivery`. Every handler ends with it.
    pub(crate) fn handled(&self, stage: Stage, delivery: &Delivery) {
        self.judge(stage).handled(&self.run, delivery);
    }

    /// What `stage` has to handle.
    pub(crate) fn ledger(&self, stage: Stage) -> &Ledger {
        match stage {
            Stage::Inbox => &self.alerts,
            Stage::DeadLetters => &self.bad,
            _ => &self.reports,
        }
    }

    /// How many records `stage` has not handled yet.
    pub(crate) fn behind(&self, stage: Stage) -> u64 {
        let handled = self.judge(stage).counts().handled;
        self.ledger(stage).expected().saturating_sub(handled)
    }

    /// Notes that a report of the input's line `line` is in the dead letter stream: nobody behind
    /// will see it.
    pub(crate) fn dead_letter(&self, tag: Tag<'_>, line: u64, reason: &str) {
        if self.reports.withdraw(tag.lane, tag.seq) {
            self.dead_letters.fetch_add(1, Ordering::Relaxed);
            self.notes.bad_line(line, reason);
        }
    }

    /// How many reports a group has put into the dead letter stream.
    pub(crate) fn dead_letters(&self) -> u64 {
        self.dead_letters.load(Ordering::Relaxed)
    }
}
