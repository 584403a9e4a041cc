use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use conformance::{Fault, Harness, Hooks, Timing};
use millstream_core::{Client, driver};
use millstream_memory::{Config, Memory};

use crate::wrong_backend::{Defect, WrongBackend};

/// A broker without faults, whose driver has a defect.
#[derive(Debug)]
pub(crate) struct WrongHarness {
    memory: Memory,
    defect: Defect,
    names: AtomicUsize,
}

impl WrongHarness {
    pub(crate) fn new(defect: Defect) -> Self {
        Self {
            memory: Memory::new(Config::default()).expect("the settings are right"),
            defect,
            names: AtomicUsize::new(0),
        }
    }
}

#[async_trait]
impl Harness for WrongHarness {
    async fn client(&self) -> Client {
        Client::new(WrongBackend {
            inner: self.memory.clone(),
            defect: self.defect.clone(),
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

    async fn inject(&self, fault: Fault) {
        unreachable!("{fault:?} is no hook");
    }
}
