//! The administration of streams.

use std::sync::Arc;

use async_trait::async_trait;
use millstream::{Partition, Result, StreamDescription, StreamSpec, driver};

use crate::connection::Connection;

#[derive(Debug)]
pub(crate) struct Streams {
    connection: Arc<Connection>,
}

impl Streams {
    pub(crate) fn new(connection: &Arc<Connection>) -> Self {
        Self {
            connection: connection.clone(),
        }
    }
}

#[async_trait]
impl driver::Streams for Streams {
    async fn create(&self, _spec: &StreamSpec) -> Result<()> {
        todo!()
    }

    async fn list(&self) -> Result<Vec<String>> {
        todo!()
    }

    async fn describe(&self, _stream: &str) -> Result<StreamDescription> {
        todo!()
    }

    async fn delete(&self, _stream: &str) -> Result<()> {
        todo!()
    }

    async fn split(&self, _partition: &Partition) -> Result<()> {
        todo!()
    }

    async fn merge(&self, _one: &Partition, _other: &Partition) -> Result<()> {
        todo!()
    }

    async fn add_partitions(&self, _stream: &str, _partitions: usize) -> Result<()> {
        todo!()
    }
}
