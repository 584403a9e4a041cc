//! State that all parts of the program share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use millstream::{Client, Delivery, ErrorKind, StreamSpec};

use crate::alert_store::AlertStore;
use crate::analytics::Statistics;
use crate::event::Event;
use crate::notes::Notes;
use crate::recreate::Recreation;
use crate::sent_log::SentLog;
use crate::stage::Stage;
use crate::tag::{RunId, Tag};
use crate::tombstones::Tombstones;
use crate::verifier::Verifier;

/// The names of the streams.
pub(crate) const RAW: &str = "car-raw-events";
pub(crate) const PROCESSED: &str = "processed-events";
pub(crate) const ENTITIES: &str = "entity-updates";
pub(crate) const NOTIFICATIONS: &str = "notifications";
pub(crate) const DEAD: &str = "car-raw-events.dead";

/// Partitions of each stream except the dead letters, which have one.
pub(crate) const PARTITIONS: usize = 8;

/// One run of the program: the client, the state of the services (each a stand-in for its team's
/// database), and the history.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) client: Client,
    pub(crate) run: RunId,
    pub(crate) started: Instant,
    /// The records sent to `car-raw-events`, and so the records that follow from them one to one.
    pub(crate) reports: SentLog,
    /// The alerts found.
    pub(crate) alerts: SentLog,
    /// The bad lines.
    pub(crate) bad: SentLog,
    pub(crate) tombstones: Tombstones,
    /// The number of tombstones that were sent.
    pub(crate) tombstones_sent: AtomicU64,
    pub(crate) recreation: Recreation,
    pub(crate) notes: Notes,
    pub(crate) alert_store: Shared<AlertStore>,
    pub(crate) statistics: Shared<Statistics>,
    /// The dashboard: the last position of each vehicle.
    pub(crate) positions: Shared<HashMap<String, Event>>,
    /// Reports that groups have dead-lettered.
    dead_letters: AtomicU64,
    verifiers: Vec<Verifier>,
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
    pub(crate) fn new(client: Client, tombstones: Tombstones) -> Self {
        let started = Instant::now();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            client,
            run: RunId(format!("{:x}", now.as_micros())),
            started,
            reports: SentLog::default(),
            alerts: SentLog::default(),
            bad: SentLog::default(),
            tombstones,
            tombstones_sent: AtomicU64::new(0),
            recreation: Recreation::default(),
            notes: Notes::default(),
            alert_store: Shared::default(),
            statistics: Shared::default(),
            positions: Shared::default(),
            dead_letters: AtomicU64::new(0),
            verifiers: Stage::ALL
                .into_iter()
                .map(|stage| match stage {
                    // They get no reports.
                    Stage::Inbox | Stage::DeadLetters => Tombstones::default(),
                    _ => tombstones,
                })
                .map(|tombstones| Verifier::new(started, tombstones))
                .collect(),
        }
    }

    /// Creates the streams that do not exist yet.
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

    pub(crate) fn verifier(&self, stage: Stage) -> &Verifier {
        &self.verifiers[stage as usize]
    }

    /// Records that `stage` handled `delivery`. Every handler ends with it.
    pub(crate) fn handled(&self, stage: Stage, delivery: &Delivery) {
        self.verifier(stage).handled(&self.run, delivery);
    }

    /// Returns the records that `stage` has to handle.
    pub(crate) fn sent_log(&self, stage: Stage) -> &SentLog {
        match stage {
            Stage::Inbox => &self.alerts,
            Stage::DeadLetters => &self.bad,
            _ => &self.reports,
        }
    }

    /// Returns the number of records that `stage` has not handled yet.
    pub(crate) fn behind(&self, stage: Stage) -> u64 {
        let handled = self.verifier(stage).counts().handled;
        self.sent_log(stage).expected().saturating_sub(handled)
    }

    /// Records that the report of the input's line `line` was dead-lettered: no group downstream gets
    /// it.
    pub(crate) fn dead_letter(&self, tag: Tag<'_>, line: u64, reason: &str) {
        if self.tombstones.has(tag.seq) {
            // No handler fails for a tombstone, so it was none when it arrived.
            self.verifier(Stage::Cleaner).altered();
        }
        if self.reports.withdraw(tag.lane, tag.seq) {
            self.dead_letters.fetch_add(1, Ordering::Relaxed);
            self.notes.bad_line(line, reason);
        }
    }

    /// Returns the number of reports that groups have dead-lettered.
    pub(crate) fn dead_letters(&self) -> u64 {
        self.dead_letters.load(Ordering::Relaxed)
    }
}
