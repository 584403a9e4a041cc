use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream_core::{Client, Error, ErrorKind, Result};
use millstream_memory::{Config, Faults, Memory};
use tempfile::TempDir;
use tokio::time::Instant;

use super::refusing_backend::refusing;
use super::script::Script;
use crate::history::{Event, History, Incarnations};

/// The initial time of the broker's clock.
const START: Duration = Duration::from_secs(1_700_000_000);

/// How long a broker may still be in use after all members were asked to leave.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// The state that all parts of a run share. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) client: Client,
    /// A second connection to the same broker.
    pub(super) other_client: Client,
    pub(super) faults: Faults,
    pub(super) history: History,
    pub(super) incarnations: Incarnations,
    pub(super) began: Instant,
    problems: Problems,
    /// The broker's folder, if it is restarted. Removed with the last clone.
    folder: Option<Arc<TempDir>>,
}

/// The reported problems. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Problems(Arc<Mutex<Vec<String>>>);

impl Problems {
    pub(super) fn add(&self, problem: String) {
        lock(&self.0).push(problem);
    }

    /// Returns all problems, each once.
    pub(super) fn sorted(&self) -> Vec<String> {
        let mut problems = lock(&self.0).clone();
        problems.sort();
        problems.dedup();
        problems
    }
}

impl World {
    pub(super) fn new(script: &Script, history: &History, problems: &Problems) -> Result<Self> {
        let folder = match script.restart {
            Some(_) => {
                let made = tempfile::tempdir().map_err(|error| {
                    Error::new(ErrorKind::Unavailable, "make a folder", error.to_string())
                });
                Some(Arc::new(made?))
            }
            None => None,
        };
        let memory = Memory::new(config(script, folder.as_deref(), START))?;
        Ok(Self {
            client: Client::new(refusing(memory.clone())),
            other_client: memory.client(),
            faults: memory.faults(),
            history: history.clone(),
            incarnations: Incarnations::default(),
            began: Instant::now(),
            problems: problems.clone(),
            folder,
        })
    }

    /// Closes the broker, and reopens it from its folder. All other handles must be dropped, or be about to be
    /// dropped: a dropped producer closes in the background.
    pub(super) async fn reopen(self, script: &Script) -> Result<Self> {
        let Self {
            client,
            other_client,
            faults,
            history,
            incarnations,
            began,
            problems,
            folder,
        } = self;
        drop((client, other_client, faults));
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        let memory = loop {
            let config = config(script, folder.as_deref(), START + began.elapsed());
            match Memory::new(config) {
                Err(error)
                    if error.kind() == ErrorKind::Unavailable && Instant::now() < deadline =>
                {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                opened => break opened?,
            }
        };
        Ok(Self {
            client: Client::new(refusing(memory.clone())),
            other_client: memory.client(),
            faults: memory.faults(),
            history,
            incarnations,
            began,
            problems,
            folder,
        })
    }

    /// Returns the time of the broker's clock.
    pub(super) fn time(&self) -> SystemTime {
        UNIX_EPOCH + START + self.began.elapsed()
    }

    pub(super) fn record(&self, event: Event) {
        self.history.record(event);
    }

    /// Reports a problem that the history does not show.
    pub(super) fn report_problem(&self, problem: String) {
        self.problems.add(problem);
    }

    /// Reports an unexpected error.
    pub(super) fn expect<T>(&self, what: &str, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| self.report_problem(format!("{what}: {error:?}")))
            .ok()
    }
}

fn config(script: &Script, folder: Option<&TempDir>, time: Duration) -> Config {
    let mut config = Config::default();
    config.session_timeout = script.session_timeout;
    config.like = script.like;
    config.limits.record_bytes = script.record_bytes;
    config.limits.records_per_second = script.records_per_second;
    config.retention.bytes = script.retention;
    config.seed = script.seed;
    config.start_time = Some(UNIX_EPOCH + time);
    config.persist = folder.map(|folder| folder.path().to_owned());
    config
}

/// Locks a mutex although handlers panic: no holder leaves its value half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
