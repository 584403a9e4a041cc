use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream::{Client, Result};
use millstream_memory::{Config, Faults, Memory};
use tokio::time::Instant;

use super::script::Script;
use crate::history::{Event, History};

/// When the broker's clock begins.
const START: Duration = Duration::from_secs(1_700_000_000);

/// What all that takes part shares. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) client: Client,
    pub(super) faults: Faults,
    pub(super) history: History,
    pub(super) began: Instant,
    complaints: Arc<Mutex<Vec<String>>>,
}

impl World {
    pub(super) fn new(script: &Script) -> Result<Self> {
        let mut config = Config::default();
        config.session_timeout = script.session_timeout;
        config.limits.records_per_second = script.records_per_second;
        config.seed = script.seed;
        config.start_time = Some(UNIX_EPOCH + START);
        let memory = Memory::new(config)?;
        Ok(Self {
            client: memory.client(),
            faults: memory.faults(),
            history: History::new(),
            began: Instant::now(),
            complaints: Arc::default(),
        })
    }

    /// What the broker's clock shows.
    pub(super) fn time(&self) -> SystemTime {
        UNIX_EPOCH + START + self.began.elapsed()
    }

    pub(super) fn record(&self, event: Event) {
        self.history.record(event);
    }

    /// Notes something that should not be, and that a history cannot tell.
    pub(super) fn complain(&self, complaint: String) {
        lock(&self.complaints).push(complaint);
    }

    /// Notes an error where none is due.
    pub(super) fn expect<T>(&self, what: &str, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| self.complain(format!("{what}: {error:?}")))
            .ok()
    }

    pub(super) fn complaints(&self) -> Vec<String> {
        lock(&self.complaints).clone()
    }
}

/// Locks what no holder leaves half changed, although handlers panic here.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
