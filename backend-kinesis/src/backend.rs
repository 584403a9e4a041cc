//! The driver: one connection that opens everything else.

use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::{ErrorKind, Guarantees, Result, driver};

use crate::config::Config;
use crate::connection::Connection;
use crate::streams::Streams;
use crate::{consumer, error, producer};

/// A connection to Amazon Kinesis. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Kinesis {
    connection: Arc<Connection>,
}

impl Kinesis {
    /// Connects like [`Config::connect`], and returns the driver itself.
    ///
    /// # Errors
    /// As [`Config::connect`].
    ///
    /// # Cancel safety
    /// As [`Config::connect`].
    pub async fn connect(config: Config) -> Result<Self> {
        let connection = Connection::open(config).await?;
        let call = || async {
            let answer = connection.kinesis.list_streams().limit(1).send().await;
            answer.map_err(|e| error::of("connect", e))
        };
        match connection.ask("connect", call).await {
            // The credentials are valid even if they may not list streams, and may have all needed permissions.
            Err(error) if error.kind() == ErrorKind::Denied => {}
            answer => _ = answer?,
        }
        Ok(Self {
            connection: Arc::new(connection),
        })
    }
}

#[async_trait]
impl driver::Backend for Kinesis {
    fn name(&self) -> &'static str {
        "kinesis"
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees {
            durable: true,
            exactly_once: false,
            ordered_reshard: true,
            add_partitions: false,
        }
    }

    async fn open_producer(&self, stream: &str) -> Result<Arc<dyn driver::Producer>> {
        producer::open(&self.connection, stream).await
    }

    fn consumer_group(&self, group: &str) -> Arc<dyn driver::ConsumerGroup> {
        Arc::new(consumer::Group::new(&self.connection, group))
    }

    fn checkpoints(&self, group: &str) -> Arc<dyn driver::Checkpoints> {
        Arc::new(consumer::Checkpoints::new(&self.connection, group))
    }

    fn streams(&self) -> Arc<dyn driver::Streams> {
        Arc::new(Streams::new(&self.connection))
    }
}
