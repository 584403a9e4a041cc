//! The memory backend, with another behavior.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use conformance::FaultyBackend;
use millstream_core::driver::{
    self, Backend, CheckpointUpdate, Checkpoints, ConsumerGroup, Event, JoinOptions, Membership,
    Pipelining, Producer, Rejected, StreamLimits, Streams,
};
use millstream_core::{Epoch, Guarantees, Partition, Record, RecordMetadata, Result};
use millstream_memory::Memory;

/// What the driver does otherwise than the memory backend. What spins ends when the flag is set.
#[derive(Debug, Clone)]
pub(crate) enum Behavior {
    Right,
    /// It takes its time for a call, and stores the records of one key after those of another, which is
    /// allowed.
    StoresKeyByKey,
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
    pub(crate) inner: FaultyBackend<Memory>,
    pub(crate) behavior: Behavior,
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
        match self.behavior {
            Behavior::OpenProducerHangs => std::future::pending().await,
            Behavior::StoresKeyByKey => {
                Ok(Arc::new(KeyByKey(self.inner.open_producer(stream).await?)))
            }
            _ => self.inner.open_producer(stream).await,
        }
    }

    fn consumer_group(&self, group: &str) -> Arc<dyn ConsumerGroup> {
        Arc::new(Group {
            inner: self.inner.consumer_group(group),
            behavior: self.behavior.clone(),
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
struct KeyByKey(Arc<dyn Producer>);

#[async_trait]
impl Producer for KeyByKey {
    fn limits(&self) -> StreamLimits {
        self.0.limits()
    }

    fn pipelining(&self) -> Pipelining {
        self.0.pipelining()
    }

    fn validate(&self, record: &Record) -> Result<()> {
        self.0.validate(record)
    }

    async fn send(&self, records: Vec<Record>) -> Vec<Result<RecordMetadata, Rejected>> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut order: Vec<usize> = (0..records.len()).collect();
        order.sort_by_key(|index| records[*index].key.clone());
        let sorted = order.iter().map(|index| records[*index].clone()).collect();
        let results = self.0.send(sorted).await;
        let mut results: Vec<_> = order.into_iter().zip(results).collect();
        results.sort_by_key(|(index, _)| *index);
        results.into_iter().map(|(_, result)| result).collect()
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}

#[derive(Debug)]
struct Group {
    inner: Arc<dyn ConsumerGroup>,
    behavior: Behavior,
}

#[async_trait]
impl driver::ConsumerGroup for Group {
    async fn join(&self, join: JoinOptions) -> Result<Arc<dyn Membership>> {
        Ok(Arc::new(Member {
            inner: self.inner.join(join).await?,
            behavior: self.behavior.clone(),
        }))
    }
}

#[derive(Debug)]
struct Member {
    inner: Arc<dyn Membership>,
    behavior: Behavior,
}

#[async_trait]
impl Membership for Member {
    fn id(&self) -> &str {
        self.inner.id()
    }

    async fn next(&self) -> Result<Vec<Event>> {
        match &self.behavior {
            Behavior::NextHangs => std::future::pending().await,
            Behavior::NextSpins(end) => {
                while !end.load(Relaxed) {
                    tokio::task::yield_now().await;
                }
            }
            Behavior::NextBlocks(end) => {
                while !end.load(Relaxed) {
                    std::hint::spin_loop();
                }
            }
            Behavior::NextLosesRecords => {
                let mut events = self.inner.next().await?;
                for event in &mut events {
                    if let Event::Records { records, .. } = event {
                        records.drain(1..records.len().min(2));
                    }
                }
                return Ok(events);
            }
            Behavior::Right | Behavior::StoresKeyByKey | Behavior::OpenProducerHangs => {}
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
