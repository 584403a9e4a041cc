//! The memory backend, with another behavior.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use conformance::{
    FaultyBackend, Layer, Layered, LayeredMembership, LayeredProducer, MembershipLayer,
    ProducerLayer,
};
use millstream_core::driver::{
    Backend, ConsumerGroup, Event, JoinOptions, Membership, Producer, Rejected,
};
use millstream_core::{Guarantee, Record, RecordMetadata, Result};
use millstream_memory::Memory;

/// The difference between the driver and the memory backend. A spinning one ends when the flag is set.
#[derive(Debug, Clone)]
pub(crate) enum Behavior {
    Right,
    /// It delays a call, and stores the records of one key after those of another, which is
    /// allowed.
    StoresKeyByKey,
    OpenProducerHangs,
    /// It awaits often before it takes events, which is allowed.
    NextAwaitsOften,
    NextHangs,
    /// It is always ready to run again, so a paused clock stands still.
    NextSpins(Arc<AtomicBool>),
    /// It blocks its thread, so no timer fires.
    NextBlocks(Arc<AtomicBool>),
    /// It omits the second record of each batch.
    NextLosesRecords,
}

pub(crate) type WrongBackend = Layered<FaultyBackend<Memory>, Behavior>;

#[async_trait]
impl Layer for Behavior {
    async fn open_producer(
        &self,
        driver: &dyn Backend,
        stream: &str,
        required: &[Guarantee],
    ) -> Result<Arc<dyn Producer>> {
        match self {
            Self::OpenProducerHangs => std::future::pending().await,
            Self::StoresKeyByKey => {
                let producer = driver.open_producer(stream, required).await?;
                Ok(Arc::new(LayeredProducer(KeyByKey(producer))))
            }
            _ => driver.open_producer(stream, required).await,
        }
    }

    async fn join(
        &self,
        group: &dyn ConsumerGroup,
        _: &str,
        options: JoinOptions,
    ) -> Result<Arc<dyn Membership>> {
        Ok(Arc::new(LayeredMembership(Member {
            inner: group.join(options).await?,
            behavior: self.clone(),
        })))
    }
}

#[derive(Debug)]
struct KeyByKey(Arc<dyn Producer>);

#[async_trait]
impl ProducerLayer for KeyByKey {
    fn inner(&self) -> &dyn Producer {
        &*self.0
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
}

#[derive(Debug)]
struct Member {
    inner: Arc<dyn Membership>,
    behavior: Behavior,
}

#[async_trait]
impl MembershipLayer for Member {
    fn inner(&self) -> &dyn Membership {
        &*self.inner
    }

    async fn next(&self) -> Result<Vec<Event>> {
        match &self.behavior {
            Behavior::NextAwaitsOften => {
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
            }
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
}
