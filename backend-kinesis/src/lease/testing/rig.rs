//! Members under a paused clock, and applications that follow their events.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream_core::{Epoch, Result, Start};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::memory::MemoryStore;
use super::source::MemorySource;
use crate::config::LeaseKeys;
use crate::lease::key::LeaseKey;
use crate::lease::options::{LeaseEvent, WorkerOptions};
use crate::lease::worker::Worker;

/// The failover time in tests.
pub(crate) const F: Duration = Duration::from_secs(9);

/// A table, and the stream `s`.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) store: MemoryStore,
    pub(crate) source: MemorySource,
}

impl Rig {
    pub(crate) fn new(shards: usize) -> Self {
        let source = MemorySource::default();
        source.create("s", shards);
        Self {
            store: MemoryStore::new(),
            source,
        }
    }

    pub(crate) fn options(&self, id: &str) -> WorkerOptions {
        self.options_over(id, &self.store)
    }

    pub(crate) fn options_over(&self, id: &str, store: &MemoryStore) -> WorkerOptions {
        WorkerOptions {
            id: id.into(),
            group: "g".into(),
            store: Arc::new(store.clone()),
            source: Arc::new(self.source.clone()),
            streams: vec![self.source.described("s")],
            keys: LeaseKeys::Single,
            start: Start::Earliest,
            failover: F,
            scan_interval: None,
            audit_interval: Duration::from_secs(120),
            max_leases: None,
            cleanup: true,
            drain: Duration::from_secs(5),
        }
    }

    /// Joins an application that follows its events.
    pub(crate) async fn app(&self, id: &str) -> App {
        app(self.options(id)).await
    }

    /// Joins an application that releases nothing.
    pub(crate) async fn stubborn(&self, id: &str) -> App {
        App::new(join(self.options(id)).await.unwrap(), false)
    }

    /// Returns the owners of the leases, in the order of their keys.
    pub(crate) fn owners(&self) -> Vec<String> {
        let rows = self.store.rows().into_iter();
        let owner = |owner: Option<Arc<str>>| owner.map_or(String::new(), |id| id.to_string());
        rows.map(|row| owner(row.owner)).collect()
    }
}

/// Joins an application that follows its events.
pub(crate) async fn app(options: WorkerOptions) -> App {
    App::new(join(options).await.unwrap(), true)
}

/// Joins on the test's own runtime.
pub(crate) async fn join(options: WorkerOptions) -> Result<Worker> {
    let (worker, member, joined) = Worker::parts(options);
    tokio::spawn(member);
    joined.await.unwrap()?;
    Ok(worker)
}

/// An application: it holds the leases it gets, and releases those it is asked for.
pub(crate) struct App {
    pub(crate) worker: Arc<Worker>,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    held: BTreeMap<Arc<str>, (LeaseKey, Epoch)>,
    log: Vec<String>,
}

impl App {
    fn new(worker: Worker, gives: bool) -> Self {
        let worker = Arc::new(worker);
        let state: Arc<Mutex<State>> = Arc::default();
        let (events, noted) = (worker.clone(), state.clone());
        let task = tokio::spawn(async move {
            loop {
                let event = events.next().await;
                let note = |what: &str, lease: &LeaseKey| {
                    let number: u32 = lease.shard["shardId-".len()..].parse().unwrap();
                    noted.lock().unwrap().log.push(format!("{what} {number}"));
                };
                match event {
                    LeaseEvent::Taken { lease, epoch, .. } => {
                        note("taken", &lease);
                        let shard = lease.shard.clone();
                        let before = noted.lock().unwrap().held.insert(shard, (lease, epoch));
                        assert!(before.is_none(), "taken twice: {before:?}");
                    }
                    LeaseEvent::HandoffRequested { lease, epoch, .. } => {
                        note("asked", &lease);
                        if gives {
                            noted.lock().unwrap().held.remove(&lease.shard).unwrap();
                            events.release(&lease, epoch).await.unwrap();
                        }
                    }
                    LeaseEvent::Lost { lease, epoch } => {
                        note("lost", &lease);
                        let held = noted.lock().unwrap().held.remove(&lease.shard);
                        assert_eq!(held.unwrap().1, epoch);
                    }
                    LeaseEvent::Unordered(info) => {
                        let what = format!("unordered {}", info.name);
                        noted.lock().unwrap().log.push(what);
                    }
                    LeaseEvent::Failed(error) => {
                        let what = format!("failed {}", error.kind());
                        noted.lock().unwrap().log.push(what);
                        return;
                    }
                }
            }
        });
        Self {
            worker,
            state,
            task,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.state.lock().unwrap().held.len()
    }

    /// Returns the held leases, by shard number.
    pub(crate) fn shards(&self) -> Vec<usize> {
        let held = &self.state.lock().unwrap().held;
        let number = |shard: &Arc<str>| shard["shardId-".len()..].parse().unwrap();
        held.keys().map(number).collect()
    }

    pub(crate) fn lease(&self, shard: usize) -> Option<(LeaseKey, Epoch)> {
        let id = super::source::id(shard);
        self.state.lock().unwrap().held.get(&id).cloned()
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.state.lock().unwrap().log.clone()
    }

    pub(crate) async fn checkpoint(&self, shard: usize, position: u64) -> Result<()> {
        let (lease, epoch) = self.lease(shard).unwrap();
        self.worker.checkpoint(&lease, epoch, position.into()).await
    }

    pub(crate) async fn complete(&self, shard: usize) -> Result<()> {
        let (lease, epoch) = self.lease(shard).unwrap();
        self.worker.complete(&lease, epoch, &[]).await?;
        self.state.lock().unwrap().held.remove(&lease.shard);
        Ok(())
    }

    pub(crate) async fn leave(self) {
        self.task.abort();
        self.worker.leave().await.unwrap();
    }

    /// Aborts it, as `kill -9` would.
    pub(crate) async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
        drop(self.worker);
    }
}

/// Waits for a condition, and returns how long that took.
#[track_caller]
pub(crate) fn until(
    most: Duration,
    mut condition: impl FnMut() -> bool,
) -> impl Future<Output = Duration> {
    let caller = std::panic::Location::caller();
    async move {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < most, "not within {most:?}: {caller}");
            sleep(Duration::from_millis(5)).await;
        }
        begun.elapsed()
    }
}
