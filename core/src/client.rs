use std::sync::Arc;

use crate::{ConsumerGroup, Guarantees, ProducerBuilder, Streams, driver};

/// A connection to one backend, which opens producers and groups and administers streams.
///
/// Cheap to clone; all clones share the connection. Created by a backend's `Config::connect`.
#[derive(Debug, Clone)]
pub struct Client(Arc<dyn driver::Backend>);

impl Client {
    /// Creates a client of a backend's driver.
    pub fn new(backend: impl driver::Backend) -> Self {
        Self(Arc::new(backend))
    }

    /// Returns the backend's name: `"memory"`, `"kafka"`, `"kinesis"`.
    pub fn backend(&self) -> &'static str {
        self.0.name()
    }

    /// Returns the driver under this client, for wrappers of drivers and for tests of drivers. The methods of the
    /// client keep the driver's contract; direct calls to the driver must keep it too.
    pub fn driver(&self) -> &Arc<dyn driver::Backend> {
        &self.0
    }

    /// Returns what the backend guarantees beyond the promises that all backends keep.
    pub fn guarantees(&self) -> Guarantees {
        self.0.guarantees()
    }

    /// Returns a builder of a producer to `stream`; [`open`](ProducerBuilder::open) opens it.
    pub fn producer(&self, stream: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder::new(self.0.clone(), stream.into())
    }

    /// Returns a handle to the group `name`, without a request to the broker. A group has its own
    /// progress in every stream that it reads.
    pub fn group(&self, name: impl Into<String>) -> ConsumerGroup {
        ConsumerGroup::new(self.0.clone(), name.into())
    }

    /// Returns the administration of streams.
    pub fn streams(&self) -> Streams {
        Streams(self.0.streams())
    }
}
