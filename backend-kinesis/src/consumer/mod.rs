//! Members of a group, and its stored progress.

use std::sync::Arc;

use async_trait::async_trait;
use millstream::driver::{self, Join};
use millstream::{Checkpoint, Result, Start};

use crate::connection::Connection;

#[derive(Debug)]
pub(crate) struct Group {
    connection: Arc<Connection>,
    name: Arc<str>,
}

impl Group {
    pub(crate) fn new(connection: &Arc<Connection>, name: &str) -> Self {
        Self {
            connection: connection.clone(),
            name: name.into(),
        }
    }
}

#[async_trait]
impl driver::ConsumerGroup for Group {
    async fn join(&self, _join: Join) -> Result<Arc<dyn driver::Membership>> {
        todo!()
    }
}

#[derive(Debug)]
pub(crate) struct Checkpoints {
    connection: Arc<Connection>,
    group: Arc<str>,
}

impl Checkpoints {
    pub(crate) fn new(connection: &Arc<Connection>, group: &str) -> Self {
        Self {
            connection: connection.clone(),
            group: group.into(),
        }
    }
}

#[async_trait]
impl driver::Checkpoints for Checkpoints {
    async fn read(&self) -> Result<Vec<Checkpoint>> {
        todo!()
    }

    async fn reset(&self, _stream: &str, _to: Start) -> Result<()> {
        todo!()
    }
}
