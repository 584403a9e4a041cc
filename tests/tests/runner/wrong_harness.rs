use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use conformance::{Fault, FaultyBackend, Harness, Hooks, OwnFault, Timing};
use millstream_core::{Client, driver};
use millstream_memory::{Config, Memory};

use crate::wrong_backend::{Behavior, WrongBackend};

/// A broker without faults that cases could inject, whose driver may be wrong.
#[derive(Debug)]
pub(crate) struct WrongHarness {
    driver: FaultyBackend<Memory>,
    behavior: Behavior,
    names: AtomicUsize,
    own_faults: Vec<OwnFault>,
}

impl WrongHarness {
    pub(crate) fn new(behavior: Behavior) -> Self {
        let memory = Memory::new(Config::default()).expect("the settings are right");
        Self {
            driver: FaultyBackend::new(memory),
            behavior,
            names: AtomicUsize::new(0),
            own_faults: Vec::new(),
        }
    }

    /// Creates a harness that loses responses to sends by itself, so that records are stored twice.
    pub(crate) fn losing_responses() -> Self {
        let harness = Self::new(Behavior::Right);
        let first = Fault::TimeOutSends {
            stream: "stream-0".to_owned(),
            times: 3,
        };
        harness
            .driver
            .inject(first)
            .expect("it is one of its hooks");
        harness
    }

    /// Declares the faults that it injects by itself.
    pub(crate) fn declares(mut self, own_fault: OwnFault) -> Self {
        self.own_faults.push(own_fault);
        self
    }
}

#[async_trait]
impl Harness for WrongHarness {
    async fn client(&self) -> Client {
        Client::new(WrongBackend {
            driver: self.driver.clone(),
            layer: self.behavior.clone(),
        })
    }

    fn unique(&self, prefix: &str) -> String {
        format!("{prefix}-{}", self.names.fetch_add(1, Relaxed))
    }

    fn timing(&self) -> Timing {
        Timing {
            session: Config::default().session_timeout,
            handover: Duration::from_millis(500),
            timeout: Duration::from_secs(20),
            poll_interval: Duration::from_millis(10),
            timestamps: Duration::from_millis(1),
        }
    }

    fn limits(&self) -> driver::StreamLimits {
        let limits = Config::default().limits;
        driver::StreamLimits {
            record_bytes: limits.record_bytes.unwrap_or(1 << 20),
            key_bytes: limits.key_bytes.unwrap_or(256),
            key_chars: None,
            empty_key: true,
            text_key: false,
            batch_records: usize::MAX,
            batch_bytes: usize::MAX,
        }
    }

    fn hooks(&self) -> Hooks {
        Hooks::default()
    }

    fn hits(&self, _: &str) -> u64 {
        0
    }

    fn own_faults(&self) -> Vec<OwnFault> {
        self.own_faults.clone()
    }

    async fn inject(&self, fault: Fault) {
        unreachable!("{fault:?} is no hook");
    }
}
