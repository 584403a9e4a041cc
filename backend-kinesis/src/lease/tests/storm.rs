//! Fleets under random faults: members join, leave, crash and are cut off, responses are lost, and the
//! stream is resharded, while the tests check that no promise is broken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream_core::{Epoch, ErrorKind, Position};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::lease::key::LeaseKey;
use crate::lease::options::{LeaseEvent, ResumePoint};
use crate::lease::source::ShardSource;
use crate::lease::testing::memory::{Call, Fault, MemoryStore};
use crate::lease::testing::rig::{Rig, join, until};
use crate::lease::worker::Worker;
use crate::stream::Shard;

/// The combined knowledge of all applications, which no member has.
#[derive(Debug, Default)]
struct Ledger {
    holders: BTreeMap<Arc<str>, Arc<str>>,
    epochs: BTreeMap<Arc<str>, Epoch>,
    /// The last acknowledged checkpoints.
    acknowledged: BTreeMap<Arc<str>, Position>,
    /// Shards that are fully settled; it may not be known whether that is stored.
    settled: BTreeSet<Arc<str>>,
    finished: BTreeSet<Arc<str>>,
    written: u64,
    begun: Option<Instant>,
    /// The events of each member, for the analysis of a failure.
    log: Vec<String>,
}

struct Storm {
    seed: u64,
    rig: Rig,
    ledger: Arc<Mutex<Ledger>>,
    random: fastrand::Rng,
    members: Vec<Member>,
    joined: u32,
}

struct Member {
    id: Arc<str>,
    worker: Arc<Worker>,
    store: MemoryStore,
    tasks: [JoinHandle<()>; 2],
}

type Held = Arc<Mutex<BTreeMap<Arc<str>, (LeaseKey, Epoch)>>>;

impl Storm {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        Self {
            seed,
            rig: Rig::new(random.usize(1..5)),
            ledger: Arc::default(),
            members: Vec::new(),
            joined: 0,
            random,
        }
    }

    async fn shards(&self) -> Vec<Shard> {
        self.rig.source.shards("s").await.unwrap()
    }

    async fn join(&mut self) {
        self.joined += 1;
        let id: Arc<str> = format!("m{}", self.joined).into();
        let store = self.rig.store.beside();
        let worker = join(self.rig.options_over(&id, &store)).await.unwrap();
        trouble(&store, self.random.fork());
        let worker = Arc::new(worker);
        let held = Held::default();
        let told = tokio::spawn(follow(
            self.seed,
            id.clone(),
            worker.clone(),
            held.clone(),
            self.ledger.clone(),
            self.rig.source.clone(),
        ));
        let worked = tokio::spawn(work(
            self.random.fork(),
            worker.clone(),
            held,
            self.ledger.clone(),
            self.rig.source.clone(),
        ));
        self.members.push(Member {
            id,
            worker,
            store,
            tasks: [told, worked],
        });
    }

    async fn end(&mut self, leaves: bool) {
        if self.members.len() < 2 {
            return;
        }
        let at = self.random.usize(..self.members.len());
        let member = self.members.swap_remove(at);
        for task in member.tasks {
            task.abort();
            if let Err(error) = task.await {
                assert!(!error.is_panic(), "seed {}", self.seed);
            }
        }
        self.ledger
            .lock()
            .unwrap()
            .holders
            .retain(|_, holder| *holder != member.id);
        if leaves {
            // A member that is cut off returns when its leases have expired.
            let _ = member.worker.leave().await;
        }
    }

    async fn reshard(&mut self) {
        let mut open: Vec<Shard> = self.shards().await;
        open.retain(|shard| shard.open);
        open.sort_by_key(|shard| shard.range);
        let number = |shard: &Shard| shard.id["shardId-".len()..].parse::<usize>().unwrap();
        let at = self.random.usize(..open.len());
        if self.random.bool() && at + 1 < open.len() {
            self.rig
                .source
                .merge("s", number(&open[at]), number(&open[at + 1]));
        } else if open.len() < 8 {
            self.rig.source.split("s", number(&open[at]));
        }
    }

    async fn step(&mut self) {
        match self.random.u8(..10) {
            0 | 1 if self.members.len() < 5 => self.join().await,
            2 => self.end(true).await,
            3 => self.end(false).await,
            4 | 5 => self.reshard().await,
            6 => {
                let at = self.random.usize(..self.members.len());
                let member = &self.members[at];
                member
                    .store
                    .script(|_| Some(Fault::Fail(ErrorKind::Unavailable)));
                let (store, random) = (member.store.clone(), self.random.fork());
                let away = Duration::from_secs(self.random.u64(1..25));
                tokio::spawn(async move {
                    sleep(away).await;
                    trouble(&store, random);
                });
            }
            _ => {}
        }
        sleep(Duration::from_millis(self.random.u64(10..6_000))).await;
    }

    async fn run(mut self) -> u64 {
        self.join().await;
        for _ in 0..40 {
            self.step().await;
        }
        // Without faults, everything is read.
        let shards = self.shards().await;
        let ledger = self.ledger.clone();
        let is_done = || {
            let ledger = ledger.lock().unwrap();
            shards.iter().all(|shard| match shard.open {
                true => ledger.holders.contains_key(&shard.id),
                // A shard whose end was stored without a response may already be deleted.
                false => {
                    let is_deleted = self.rig.store.row(&shard.id).is_none();
                    ledger.finished.contains(&shard.id)
                        || (is_deleted && ledger.settled.contains(&shard.id))
                }
            })
        };
        until(Duration::from_secs(600), is_done).await;
        for member in &self.members {
            let panicked = member.tasks.iter().any(JoinHandle::is_finished);
            assert!(!panicked, "seed {}", self.seed);
        }
        self.ledger.lock().unwrap().written
    }
}

/// Injects the usual faults of one member.
fn trouble(store: &MemoryStore, mut random: fastrand::Rng) {
    store.script(move |call| {
        let delay = Duration::from_millis(random.u64(1..60));
        // A response is never immediate in reality.
        let slow = Some(Fault::Slow(delay));
        match (random.u8(..20), call) {
            (0, _) => Some(Fault::Fail(ErrorKind::Throttled)),
            (1, _) => Some(Fault::Fail(ErrorKind::Timeout)),
            (2, Call::Update(..) | Call::Create(_)) => Some(Fault::Lose(ErrorKind::Unavailable)),
            _ => slow,
        }
    });
}

/// Follows the events of one member, and checks their promises.
async fn follow(
    seed: u64,
    id: Arc<str>,
    worker: Arc<Worker>,
    held: Held,
    ledger: Arc<Mutex<Ledger>>,
    source: impl ShardSource,
) {
    let begun = *ledger
        .lock()
        .unwrap()
        .begun
        .get_or_insert_with(Instant::now);
    loop {
        let event = worker.next().await;
        let note = format!("{:?} {id} {event:?}", begun.elapsed());
        ledger.lock().unwrap().log.push(note);
        match event {
            LeaseEvent::Taken {
                lease, epoch, from, ..
            } => {
                let shards = source.shards("s").await.unwrap();
                let shard = shards.iter().find(|shard| shard.id == lease.shard).unwrap();
                let mut ledger = ledger.lock().unwrap();
                let holder = ledger.holders.insert(lease.shard.clone(), id.clone());
                assert_eq!(holder, None, "seed {seed}: {lease:?}, {:#?}", ledger.log);
                let before = ledger.epochs.insert(lease.shard.clone(), epoch);
                assert!(
                    before < Some(epoch),
                    "seed {seed}: {lease:?} {before:?} {epoch}"
                );
                let unread = shard
                    .parents
                    .iter()
                    .find(|id| !ledger.settled.contains(*id));
                assert_eq!(unread, None, "seed {seed}: {lease:?}, {:#?}", ledger.log);
                assert!(
                    !ledger.finished.contains(&lease.shard),
                    "seed {seed}: {lease:?} again"
                );
                let from = match from {
                    ResumePoint::After(position) => Some(position),
                    _ => None,
                };
                let acknowledged = ledger.acknowledged.get(&lease.shard).copied();
                assert!(
                    from >= acknowledged,
                    "seed {seed}: {lease:?} forgot {acknowledged:?}"
                );
                held.lock()
                    .unwrap()
                    .insert(lease.shard.clone(), (lease, epoch));
            }
            LeaseEvent::HandoffRequested { lease, epoch, .. } => {
                held.lock().unwrap().remove(&lease.shard);
                ledger.lock().unwrap().holders.remove(&lease.shard);
                let worker = worker.clone();
                tokio::spawn(async move {
                    // It may end or expire at the same time.
                    let _ = worker.release(&lease, epoch).await;
                });
            }
            LeaseEvent::Lost { lease, .. } => {
                held.lock().unwrap().remove(&lease.shard);
                ledger.lock().unwrap().holders.remove(&lease.shard);
            }
            LeaseEvent::Unordered(info) => panic!("seed {seed}: {id} {info:?}"),
            LeaseEvent::Failed(error) => panic!("seed {seed}: {id} {error}"),
        }
    }
}

/// Stores checkpoints, and completes shards that have ended.
async fn work(
    mut random: fastrand::Rng,
    worker: Arc<Worker>,
    held: Held,
    ledger: Arc<Mutex<Ledger>>,
    source: impl ShardSource,
) {
    loop {
        sleep(Duration::from_millis(random.u64(20..900))).await;
        let leases: Vec<_> = held.lock().unwrap().values().cloned().collect();
        let Some((lease, epoch)) = random.choice(leases) else {
            continue;
        };
        let shards = source.shards("s").await.unwrap();
        let is_open = shards
            .iter()
            .any(|shard| shard.id == lease.shard && shard.open);
        if is_open || random.u8(..3) > 0 {
            let written = {
                let mut ledger = ledger.lock().unwrap();
                ledger.written += 1;
                ledger.written
            };
            let position = Position::from(1_000 + written);
            // Lost leases are fenced, and what another member wrote since may be further.
            if worker.checkpoint(&lease, epoch, position).await.is_ok() {
                ledger
                    .lock()
                    .unwrap()
                    .acknowledged
                    .insert(lease.shard, position);
            }
        } else {
            ledger.lock().unwrap().settled.insert(lease.shard.clone());
            if worker.complete(&lease, epoch, &[]).await.is_ok() {
                let mut ledger = ledger.lock().unwrap();
                ledger.finished.insert(lease.shard.clone());
                ledger.holders.remove(&lease.shard);
                held.lock().unwrap().remove(&lease.shard);
            }
        }
    }
}

#[test]
fn no_promise_is_broken_in_any_storm() {
    let mut written = 0;
    for seed in 0..60 {
        // All of a member's choices come from here, so that a seed determines a storm.
        fastrand::seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        written += runtime.unwrap().block_on(Storm::new(seed).run());
    }
    assert!(written > 5_000, "{written}");
}
