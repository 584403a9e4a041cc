//! The driver: one connection that opens everything else.

use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::{Guarantees, Result, driver};

use crate::config::Config;
use crate::connection::Connection;
use crate::streams::Streams;
use crate::{consumer, producer};

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
        connection.check_credentials().await?;
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

    fn check_stream_name(&self, name: &str) -> Result<(), String> {
        driver::check_stream_name(name)
    }

    async fn open_producer(&self, stream: &str) -> Result<Arc<dyn driver::Producer>> {
        producer::open(&self.connection, stream).await
    }

    fn check_group_name(&self, name: &str) -> Result<(), String> {
        driver::check_group_name(name)
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
