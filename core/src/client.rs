use std::sync::Arc;

use crate::{ConsumerGroup, Guarantees, ProducerBuilder, Streams, driver};

/// A connection to one backend: opens producers and groups, and administers streams.
///
/// Cheap to clone; all clones share the connection. A backend's `Config::connect` makes it.
#[derive(Debug, Clone)]
pub struct Client(Arc<dyn driver::Backend>);

impl Client {
    /// Wraps a backend's driver.
    pub fn new(backend: impl driver::Backend) -> Self {
        Self(Arc::new(backend))
    }

    /// The backend's name: `"memory"`, `"kafka"`, `"kinesis"`.
    pub fn backend(&self) -> &'static str {
        self.0.name()
    }

    /// What the backend promises beyond C1-C14.
    pub fn guarantees(&self) -> Guarantees {
        self.0.guarantees()
    }

    /// Prepares a producer to `stream`; [`open`](ProducerBuilder::open) opens it.
    pub fn producer(&self, stream: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder::new(self.0.clone(), stream.into())
    }

    /// Names a group of consumers, which has its own progress in every stream that it reads.
    pub fn group(&self, name: impl Into<String>) -> ConsumerGroup {
        ConsumerGroup::new(self.0.clone(), name.into())
    }

    /// The administration of streams.
    pub fn streams(&self) -> Streams {
        Streams(self.0.streams())
    }
}
