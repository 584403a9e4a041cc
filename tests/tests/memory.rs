//! Runs each case of the suite on the memory backend.

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use conformance::{
    BrokerScope, Fault, FaultyBackend, Harness, Hooks, Setup, Suite, Timing, eventually,
};
use millstream_core::{Client, driver};
use millstream_memory::{Config, Memory, Target};

/// The broker of one test.
#[derive(Debug)]
struct Broker {
    config: Config,
    /// `None` while it is down.
    driver: Mutex<Option<FaultyBackend<Memory>>>,
    memory: Mutex<Option<Memory>>,
    names: AtomicUsize,
    /// The folder that outlives the broker, if its records are persisted.
    folder: Option<tempfile::TempDir>,
}

/// Records live this long, which is longer than any case, except for those that wait for their removal.
const RETENTION: Duration = Duration::from_secs(600);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this")
}

impl Broker {
    /// Only a broker that is restarted persists its records, because that takes longer.
    async fn open(scope: BrokerScope) -> Self {
        let folder = match scope {
            BrokerScope::Shared => None,
            BrokerScope::OneCase => Some(tempfile::tempdir().expect("a folder")),
        };
        let mut config = Config::default();
        config.start_time = Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        config.retention.age = Some(RETENTION);
        config.persist = folder.as_ref().map(|folder| folder.path().to_owned());
        let memory = Memory::new(config.clone()).expect("the settings are right");
        Self {
            config,
            driver: Mutex::new(Some(FaultyBackend::new(memory.clone()))),
            memory: Mutex::new(Some(memory)),
            names: AtomicUsize::new(0),
            folder,
        }
    }

    fn memory(&self) -> Memory {
        lock(&self.memory).clone().expect("the broker is up")
    }

    fn driver(&self) -> FaultyBackend<Memory> {
        lock(&self.driver).clone().expect("the broker is up")
    }

    async fn restart(&self) {
        drop(lock(&self.driver).take());
        drop(lock(&self.memory).take());
        // The folder is unlocked when the last task that holds a client has ended.
        let memory = loop {
            match Memory::new(self.config.clone()) {
                Ok(memory) => break memory,
                Err(error) if error.is_retryable() => {
                    tokio::time::sleep(self.timing().poll_interval).await
                }
                Err(error) => panic!("{error:?}"),
            }
        };
        *lock(&self.driver) = Some(FaultyBackend::new(memory.clone()));
        *lock(&self.memory) = Some(memory);
    }
}

#[async_trait]
impl Harness for Broker {
    async fn client(&self) -> Client {
        Client::new(self.driver())
    }

    fn unique(&self, prefix: &str) -> String {
        format!("{prefix}-{}", self.names.fetch_add(1, Relaxed))
    }

    fn timing(&self) -> Timing {
        Timing {
            session: self.config.session_timeout,
            handover: Duration::from_millis(500),
            timeout: Duration::from_secs(120),
            poll_interval: Duration::from_millis(10),
            timestamps: Duration::from_millis(1),
        }
    }

    fn limits(&self) -> driver::StreamLimits {
        driver::StreamLimits {
            record_bytes: self.config.limits.record_bytes.unwrap_or(1 << 20),
            key_bytes: self.config.limits.key_bytes.unwrap_or(256),
            key_chars: None,
            empty_key: true,
            text_key: false,
            batch_records: usize::MAX,
            batch_bytes: usize::MAX,
        }
    }

    fn hooks(&self) -> Hooks {
        Hooks {
            freeze: true,
            steal: true,
            trim: true,
            restart: self.folder.is_some(),
            paused_clock: true,
            ..FaultyBackend::<Memory>::HOOKS
        }
    }

    fn hits(&self, stream_or_group: &str) -> u64 {
        self.driver().hits(stream_or_group)
    }

    async fn inject(&self, fault: Fault) {
        let faults = self.memory().faults();
        match fault {
            Fault::Freeze {
                member, duration, ..
            } => faults
                .pause(&Target::named(member), duration)
                .expect("there is such a member"),
            Fault::Steal { group, partition } => {
                let stolen = async || faults.steal(&group, &partition).ok();
                eventually(self.timing(), "somebody owns the partition", stolen).await
            }
            // The records that are stored now are then older than that.
            Fault::Trim { .. } => tokio::time::sleep(RETENTION + Duration::from_secs(1)).await,
            Fault::Restart => {
                drop(faults);
                self.restart().await;
            }
            fault => self.driver().inject(fault).expect("it is one of its hooks"),
        }
    }
}

fn main() -> ExitCode {
    let setup = Setup::new(Broker::open)
        .paused_time()
        .ignore(
            "needs a backend without ordered_reshard",
            ["c11_split_and_merge_are_unsupported"],
        )
        .ignore(
            "needs a backend without add_partitions",
            ["c11_adding_partitions_is_unsupported"],
        )
        .ignore(
            "needs lose_publish_responses: it has no connection to lose one on",
            ["pipeline_step_whose_response_is_lost_is_stored_once"],
        )
        .ignore(
            "needs network: it has no connections",
            [
                "c01_send_whose_response_is_lost_keeps_its_order",
                "c02_order_on_a_slow_network",
                "c03_cut_connections_lose_nothing",
                "c05_member_joins_and_leaves_though_responses_are_lost",
                "c06_checkpoint_whose_response_is_lost_is_repaired",
            ],
        )
        .ignore(
            "needs no paused_clock: no time passes there while a thread is blocked",
            ["c08_handler_that_blocks_its_thread_keeps_its_membership"],
        );
    Suite::new([setup]).run()
}
