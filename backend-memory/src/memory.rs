use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::{Client, Guarantee, Guarantees, Result, driver};

use crate::broker::Broker;
use crate::checkpoints::MemoryCheckpoints;
use crate::error::BrokerError;
use crate::membership::MemoryGroup;
use crate::producer::MemoryProducer;
use crate::streams::MemoryStreams;
use crate::{Config, Faults, named};

/// A memory broker in this process.
///
/// Cheap to clone. Clones, clients and fault injectors share one broker, which lives as long as one
/// of them.
#[derive(Clone)]
pub struct Memory(Arc<Broker>);

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Memory {
    /// Creates a broker, empty or from the folder of `persist`. With a [`name`](Config::name) it
    /// returns the broker of that name, if there is one in this process.
    ///
    /// A shared broker measures time by the runtime of each caller. Do not share it between runtimes
    /// whose clocks are paused.
    ///
    /// # Errors
    /// `Invalid` for a wrong setting, with its key, and for settings that differ from those of the
    /// broker with the same name. `Unavailable` if the folder cannot be read or written, or another
    /// broker uses it. `Corrupt`, with the file, if the journal in it is damaged.
    pub fn new(config: Config) -> Result<Self> {
        let opened = match &config.name {
            Some(name) => named::open(name, &config),
            None => Broker::new(&config).map(Arc::new),
        };
        opened
            .map(Self)
            .map_err(|error| error.during("open memory broker"))
    }

    /// Returns a client of this broker.
    pub fn client(&self) -> Client {
        Client::new(self.clone())
    }

    /// Returns the fault injector of this broker.
    pub fn faults(&self) -> Faults {
        Faults(self.0.clone())
    }
}

#[async_trait]
impl driver::Backend for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn guarantees(&self) -> Guarantees {
        let state = self.0.lock();
        state.rules.guarantees(state.journal.is_some())
    }

    fn check_stream_name(&self, name: &str) -> Result<(), String> {
        driver::check_stream_name(name)
    }

    /// Every stream keeps what is promised.
    async fn open_producer(
        &self,
        stream: &str,
        _required: &[Guarantee],
    ) -> Result<Arc<dyn driver::Producer>> {
        let opened = self.0.with(|state, _| {
            let id = state.open_stream(stream)?;
            Ok((id, state.rules))
        });
        let (id, rules) = opened
            .map_err(|error: BrokerError| error.during("open producer").with_stream(stream))?;
        Ok(Arc::new(MemoryProducer {
            broker: self.0.clone(),
            stream: id,
            name: stream.into(),
            rules,
        }))
    }

    fn check_group_name(&self, name: &str) -> Result<(), String> {
        driver::check_group_name(name)
    }

    fn consumer_group(&self, group: &str) -> Arc<dyn driver::ConsumerGroup> {
        Arc::new(MemoryGroup {
            broker: self.0.clone(),
            name: group.into(),
        })
    }

    fn checkpoints(&self, group: &str) -> Arc<dyn driver::Checkpoints> {
        Arc::new(MemoryCheckpoints {
            broker: self.0.clone(),
            group: group.into(),
        })
    }

    fn streams(&self) -> Arc<dyn driver::Streams> {
        Arc::new(MemoryStreams {
            broker: self.0.clone(),
        })
    }
}
