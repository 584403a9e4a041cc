//! A broker that refuses some results of exactly-once pipelines when they are published.

use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::driver::{self, CheckpointUpdate, Event, JoinOptions, Membership};
use millstream_core::{Epoch, Error, ErrorKind, Guarantees, Partition, Record, Result};
use millstream_memory::Memory;

/// The header of records that are refused when they are published. Its value is the kind of the error.
pub(super) const REFUSED: &str = "refused";

/// Wraps the memory backend.
#[derive(Debug)]
pub(super) struct RefusingBackend(pub(super) Memory);

#[async_trait]
impl driver::Backend for RefusingBackend {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn guarantees(&self) -> Guarantees {
        self.0.guarantees()
    }

    async fn open_producer(&self, stream: &str) -> Result<Arc<dyn driver::Producer>> {
        self.0.open_producer(stream).await
    }

    fn consumer_group(&self, group: &str) -> Arc<dyn driver::ConsumerGroup> {
        Arc::new(Group(self.0.consumer_group(group)))
    }

    fn checkpoints(&self, group: &str) -> Arc<dyn driver::Checkpoints> {
        self.0.checkpoints(group)
    }

    fn streams(&self) -> Arc<dyn driver::Streams> {
        self.0.streams()
    }
}

#[derive(Debug)]
struct Group(Arc<dyn driver::ConsumerGroup>);

#[async_trait]
impl driver::ConsumerGroup for Group {
    async fn join(&self, join: JoinOptions) -> Result<Arc<dyn Membership>> {
        Ok(Arc::new(Member(self.0.join(join).await?)))
    }
}

#[derive(Debug)]
struct Member(Arc<dyn Membership>);

#[async_trait]
impl Membership for Member {
    fn id(&self) -> &str {
        self.0.id()
    }

    async fn next(&self) -> Result<Vec<Event>> {
        self.0.next().await
    }

    async fn checkpoint(&self, updates: &[CheckpointUpdate]) -> Vec<Result<()>> {
        self.0.checkpoint(updates).await
    }

    async fn publish(
        &self,
        stream: &str,
        records: &[Record],
        updates: &[CheckpointUpdate],
    ) -> Result<()> {
        let refused = records.iter().find_map(|r| r.headers.get_str(REFUSED));
        if let Some(kind) = refused {
            let kind = match kind {
                "invalid" => ErrorKind::Invalid,
                _ => ErrorKind::TooLarge,
            };
            return Err(Error::new(kind, "publish", "refused").with_stream(stream));
        }
        self.0.publish(stream, records, updates).await
    }

    async fn release(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        self.0.release(partition, epoch).await
    }

    async fn complete(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        self.0.complete(partition, epoch).await
    }

    fn pause(&self, partition: &Partition, epoch: Epoch) {
        self.0.pause(partition, epoch);
    }

    fn resume(&self, partition: &Partition, epoch: Epoch) {
        self.0.resume(partition, epoch);
    }

    async fn leave(&self) -> Result<()> {
        self.0.leave().await
    }
}
