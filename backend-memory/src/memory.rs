use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::{Client, Guarantees, Result, driver};

use crate::broker::Broker;
use crate::checkpoints::MemoryCheckpoints;
use crate::error::BrokerError;
use crate::membership::MemoryGroup;
use crate::producer::MemoryProducer;
use crate::streams::MemoryStreams;
use crate::{Config, Faults};

/// A broker in this process.
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
    /// Creates a broker, empty or from the folder of `persist`.
    ///
    /// # Errors
    /// `Invalid` for a wrong setting, with its key. `Unavailable` if the folder cannot be read or
    /// written, or another broker uses it. `Corrupt` if the journal in it is damaged, with the
    /// file.
    pub fn new(config: Config) -> Result<Self> {
        let broker = Broker::new(&config).map_err(|error| error.during("open memory broker"))?;
        Ok(Self(Arc::new(broker)))
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
        Guarantees {
            durable: self.0.durable,
            exactly_once: true,
            ordered_reshard: true,
            add_partitions: true,
        }
    }

    async fn open_producer(&self, stream: &str) -> Result<Arc<dyn driver::Producer>> {
        let opened = self.0.with(|state, _| {
            let id = state.open_stream(stream)?;
            Ok((id, state.limits.clone()))
        });
        let (id, limits) = opened
            .map_err(|error: BrokerError| error.during("open producer").with_stream(stream))?;
        Ok(Arc::new(MemoryProducer {
            broker: self.0.clone(),
            stream: id,
            name: stream.into(),
            limits: driver::StreamLimits {
                record_bytes: limits.record_bytes,
                key_bytes: limits.key_bytes,
                empty_key: true,
                text_key: false,
                batch_records: 10_000,
                batch_bytes: 16 << 20,
            },
        }))
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
