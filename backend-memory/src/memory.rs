use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::{Client, Guarantees, Result, driver};

use crate::broker::Shared;
use crate::checkpoints::Checkpoints;
use crate::membership::ConsumerGroup;
use crate::producer::Producer;
use crate::streams::Streams;
use crate::{Config, Faults};

/// A broker in this process, with everything that a real one does.
///
/// Cheap to clone; clones, clients and faults are of one broker, which lives as long as one of
/// them.
#[derive(Clone)]
pub struct Memory(Arc<Shared>);

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Memory {
    /// Makes a broker, empty or from the folder of `persist`.
    ///
    /// # Errors
    /// `Invalid` for a wrong setting, naming its key; `Unavailable` if the folder cannot be used or
    /// another broker has it; `Corrupt` if what it holds is damaged, naming the file.
    pub fn new(config: Config) -> Result<Self> {
        let shared =
            Shared::new(&config).map_err(|refusal| refusal.during("open memory broker"))?;
        Ok(Self(Arc::new(shared)))
    }

    /// Connects a client.
    pub fn client(&self) -> Client {
        Client::new(self.clone())
    }

    /// Makes things go wrong in this broker.
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
        let (id, limits) = opened.map_err(|refusal: crate::refusal::Refusal| {
            refusal.during("open producer").with_stream(stream)
        })?;
        Ok(Arc::new(Producer {
            shared: self.0.clone(),
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
        Arc::new(ConsumerGroup {
            shared: self.0.clone(),
            name: group.into(),
        })
    }

    fn checkpoints(&self, group: &str) -> Arc<dyn driver::Checkpoints> {
        Arc::new(Checkpoints {
            shared: self.0.clone(),
            group: group.into(),
        })
    }

    fn streams(&self) -> Arc<dyn driver::Streams> {
        Arc::new(Streams {
            shared: self.0.clone(),
        })
    }
}
