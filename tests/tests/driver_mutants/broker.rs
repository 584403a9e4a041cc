//! A harness whose driver has a bug, or none.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use conformance::{Fault, FaultyBackend, Harness, Hooks, Layered, Timing};
use millstream_core::{Client, driver};
use millstream_memory::{Config, Memory, Target};
use tokio::time::sleep;

use crate::backend::MutantBackend;
use crate::bug::Bug;

/// The clock that a case needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// It advances when all tasks wait.
    Paused,
    /// It also advances while a thread is blocked.
    Running,
}

impl Clock {
    pub(crate) fn of(case: &str) -> Self {
        match case {
            "c08_handler_that_blocks_its_thread_keeps_its_membership" => Self::Running,
            _ => Self::Paused,
        }
    }

    fn session(self) -> Duration {
        match self {
            Self::Paused => Duration::from_secs(10),
            Self::Running => Duration::from_secs(1),
        }
    }
}

/// Records live longer than any case, except for those that wait for their removal.
const RETENTION: Duration = Duration::from_secs(600);

type MutantDriver = Layered<Memory, MutantBackend>;

/// A broker of one case.
#[derive(Debug)]
pub(crate) struct MutantBroker {
    memory: Memory,
    mutant: MutantBackend,
    driver: FaultyBackend<MutantDriver>,
    clock: Clock,
    names: AtomicUsize,
}

impl MutantBroker {
    pub(crate) fn open(bug: Option<Bug>, clock: Clock) -> Self {
        let mut config = Config::default();
        config.session_timeout = clock.session();
        config.retention.age = Some(RETENTION);
        let memory = Memory::new(config).expect("the settings are right");
        let mutant = MutantBackend::new(memory.clone(), bug, clock.session());
        Self {
            driver: FaultyBackend::new(Layered {
                driver: memory.clone(),
                layer: mutant.clone(),
            }),
            memory,
            mutant,
            clock,
            names: AtomicUsize::new(0),
        }
    }
}

#[async_trait]
impl Harness for MutantBroker {
    async fn client(&self) -> Client {
        Client::new(self.driver.clone())
    }

    fn unique(&self, prefix: &str) -> String {
        format!("{prefix}-{}", self.names.fetch_add(1, Relaxed))
    }

    fn timing(&self) -> Timing {
        Timing {
            session: self.clock.session(),
            handover: self.clock.session() / 20,
            timeout: self.clock.session() * 12,
            poll_interval: Duration::from_millis(10),
            timestamps: Duration::from_millis(1),
        }
    }

    fn limits(&self) -> driver::StreamLimits {
        driver::StreamLimits {
            record_bytes: 1 << 20,
            key_bytes: 256,
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
            lose_publish_responses: true,
            paused_clock: self.clock == Clock::Paused,
            ..FaultyBackend::<MutantDriver>::HOOKS
        }
    }

    fn hits(&self, stream_or_group: &str) -> u64 {
        self.driver.hits(stream_or_group) + self.mutant.lost_responses(stream_or_group)
    }

    async fn inject(&self, fault: Fault) {
        let faults = self.memory.faults();
        match fault {
            Fault::Freeze {
                member, duration, ..
            } => {
                self.mutant.freeze(&member, duration);
                let paused = faults.pause(&Target::named(member), duration);
                paused.expect("there is such a member");
            }
            Fault::Steal { group, partition } => {
                faults.steal(&group, &partition).expect("somebody owns it");
            }
            Fault::LosePublishResponses { group, times } => {
                self.mutant.lose_responses(&group, times);
            }
            // The records that are stored now are then older than that.
            Fault::Trim { .. } => sleep(RETENTION + Duration::from_secs(1)).await,
            fault => self.driver.inject(fault).expect("it is one of its hooks"),
        }
    }
}
