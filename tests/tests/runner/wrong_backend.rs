//! The memory backend, with a defect.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use async_trait::async_trait;
use millstream_core::driver::{
    self, Backend, CheckpointUpdate, Checkpoints, ConsumerGroup, Event, JoinOptions, Membership,
    Producer, Streams,
};
use millstream_core::{Epoch, Guarantees, Partition, Record, Result};
use millstream_memory::Memory;

/// What is wrong with the driver. What spins ends when the flag is set.
#[derive(Debug, Clone)]
pub(crate) enum Defect {
    None,
    OpenProducerHangs,
    NextHangs,
    /// It is always ready to run again, so a paused clock stands still.
    NextSpins(Arc<AtomicBool>),
    /// It keeps its thread, so no timer fires.
    NextBlocks(Arc<AtomicBool>),
    /// It leaves out the second record of each batch.
    NextLosesRecords,
}

#[derive(Debug)]
pub(crate) struct WrongBackend {
    pub(crate) inner: Memory,
    pub(crate) defect: Defect,
}

#[async_trait]
impl Backend for WrongBackend {
    fn name(&self) -> &'static str {
        "wrong"
    }

    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }

    async fn open_producer(&self, stream: &str) -> Result<Arc<dyn Producer>> {
        match self.defect {
            Defect::OpenProducerHangs => std::future::pending().await,
            _ => self.inner.open_producer(stream).await,
        }
    }

    fn consumer_group(&self, group: &str) -> Arc<dyn ConsumerGroup> {
        Arc::new(Group {
            inner: self.inner.consumer_group(group),
            defect: self.defect.clone(),
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
    defect: Defect,
}

#[async_trait]
impl driver::ConsumerGroup for Group {
    async fn join(&self, join: JoinOptions) -> Result<Arc<dyn Membership>> {
        Ok(Arc::new(Member {
            inner: self.inner.join(join).await?,
            defect: self.defect.clone(),
        }))
    }
}

#[derive(Debug)]
struct Member {
    inner: Arc<dyn Membership>,
    defect: Defect,
}

#[async_trait]
impl Membership for Member {
    fn id(&self) -> &str {
        self.inner.id()
    }

    async fn next(&self) -> Result<Vec<Event>> {
        match &self.defect {
            Defect::NextHangs => std::future::pending().await,
            Defect::NextSpins(end) => {
                while !end.load(Relaxed) {
                    tokio::task::yield_now().await;
                }
            }
            Defect::NextBlocks(end) => {
                while !end.load(Relaxed) {
                    std::hint::spin_loop();
                }
            }
            Defect::NextLosesRecords => {
                let mut events = self.inner.next().await?;
                for event in &mut events {
                    if let Event::Records { records, .. } = event {
                        records.drain(1..records.len().min(2));
                    }
                }
                return Ok(events);
            }
            Defect::None | Defect::OpenProducerHangs => {}
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
