//! The registration of consumers, in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::FutureExt;
use millstream_core::{ErrorKind, Result};
use tokio::time::Instant;

use super::super::RetrievalMode;
use super::super::stream_consumer::{Attempts, Registrar, StreamConsumer};
use super::fake::error;

/// Registers every consumer, at once.
#[derive(Debug, Default)]
pub(super) struct Registry {
    /// The errors of the next attempts.
    pub(super) faults: Mutex<VecDeque<ErrorKind>>,
    attempts: Mutex<Vec<(Instant, Attempts)>>,
}

impl Registry {
    pub(super) fn failing(faults: impl IntoIterator<Item = ErrorKind>) -> Arc<Self> {
        Arc::new(Self {
            faults: Mutex::new(faults.into_iter().collect()),
            ..Self::default()
        })
    }

    /// Returns when and how a registration was attempted.
    pub(super) fn attempts(&self) -> Vec<(Instant, Attempts)> {
        self.attempts.lock().expect("no test panics here").clone()
    }

    /// Returns a consumer of its own, as each member has one.
    pub(super) fn consumer(self: &Arc<Self>, fallback: bool) -> Result<Arc<StreamConsumer>> {
        let registered = StreamConsumer::register("s", "group", fallback, self.clone());
        let registered = registered.now_or_never().expect("it does not wait");
        registered.map(Arc::new)
    }
}

#[async_trait]
impl Registrar for Arc<Registry> {
    async fn register(&self, attempts: Attempts) -> Result<Arc<str>> {
        let mut made = self.attempts.lock().expect("no test panics here");
        made.push((Instant::now(), attempts));
        let fault = self.faults.lock().expect("no test panics here").pop_front();
        fault.map_or(Ok("arn".into()), |kind| Err(error(kind)))
    }
}

/// Returns enhanced fan-out that is not refused.
pub(super) fn fan_out() -> RetrievalMode {
    let registered = Arc::new(Registry::default()).consumer(false);
    RetrievalMode::FanOut(registered.expect("nothing is refused"))
}
