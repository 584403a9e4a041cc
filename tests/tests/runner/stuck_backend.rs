//! The memory backend, with calls that do not return.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use async_trait::async_trait;
use millstream_core::driver::{
    self, Backend, CheckpointUpdate, Checkpoints, ConsumerGroup, Event, JoinOptions, Membership,
    Producer, Streams,
};
use millstream_core::{Epoch, Guarantees, Partition, Record, Result};
use millstream_memory::Memory;

/// Which call does not return. What spins ends when the flag is set.
#[derive(Debug, Clone)]
pub(crate) enum Stuck {
    Nowhere,
    OpenProducer,
    Next,
    /// It is always ready to run again, so a paused clock stands still.
    NextYields(Arc<AtomicBool>),
    /// It keeps its thread, so no timer fires.
    NextBlocks(Arc<AtomicBool>),
}

#[derive(Debug)]
pub(crate) struct StuckBackend {
    pub(crate) inner: Memory,
    pub(crate) stuck: Stuck,
}

#[async_trait]
impl Backend for StuckBackend {
    fn name(&self) -> &'static str {
        "stuck"
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }

    async fn open_producer(&self, stream: &str) -> Result<Arc<dyn Producer>> {
        match self.stuck {
            Stuck::OpenProducer => std::future::pending().await,
            _ => self.inner.open_producer(stream).await,
        }
    }

    fn consumer_group(&self, group: &str) -> Arc<dyn ConsumerGroup> {
        Arc::new(Group {
            inner: self.inner.consumer_group(group),
            stuck: self.stuck.clone(),
        })
    }

    fn checkpoints(&self, group: &str) -> Arc<dyn Checkpoints> {
        self.inner.checkpoints(group)
    }

    fn streams(&self) -> Arc<dyn Streams> {
        self.inner.streams()
    }
}

#[derive(Debug)]
struct Group {
    inner: Arc<dyn ConsumerGroup>,
    stuck: Stuck,
}

#[async_trait]
impl driver::ConsumerGroup for Group {
    async fn join(&self, join: JoinOptions) -> Result<Arc<dyn Membership>> {
        Ok(Arc::new(Member {
            inner: self.inner.join(join).await?,
            stuck: self.stuck.clone(),
        }))
    }
}

#[derive(Debug)]
struct Member {
    inner: Arc<dyn Membership>,
    stuck: Stuck,
}

#[async_trait]
impl Membership for Member {
    fn id(&self) -> &str {
        self.inner.id()
    }

    async fn next(&self) -> Result<Vec<Event>> {
        match &self.stuck {
            Stuck::Next => std::future::pending().await,
            Stuck::NextYields(end) => {
                while !end.load(Relaxed) {
                    tokio::task::yield_now().await;
                }
            }
            Stuck::NextBlocks(end) => {
                while !end.load(Relaxed) {
                    std::hint::spin_loop();
                }
            }
            Stuck::Nowhere | Stuck::OpenProducer => {}
        }
        self.inner.next().await
    }

    async fn checkpoint(&self, updates: &[CheckpointUpdate]) -> Vec<Result<()>> {
        self.inner.checkpoint(updates).await
    }

    async fn publish(
        &self,
        stream: &str,
        records: &[Record],
        updates: &[CheckpointUpdate],
    ) -> Result<()> {
        self.inner.publish(stream, records, updates).await
    }

    async fn release(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        self.inner.release(partition, epoch).await
    }

    async fn complete(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        self.inner.complete(partition, epoch).await
    }

    fn pause(&self, partition: &Partition, epoch: Epoch) {
        self.inner.pause(partition, epoch);
    }

    fn resume(&self, partition: &Partition, epoch: Epoch) {
        self.inner.resume(partition, epoch);
    }

    async fn leave(&self) -> Result<()> {
        self.inner.leave().await
    }
}
