//! Wrappers of drivers: a layer changes some calls, and all other calls are forwarded.
//!
//! The traits of drivers have no default methods, so that a driver cannot forget one. A wrapper would have to
//! repeat all of them to change one. Here each is forwarded once. When a trait of the core gets a new method,
//! this file does not compile until it forwards the method.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::driver::{
    Backend, CheckpointUpdate, Checkpoints, ConsumerGroup, Event, JoinOptions, Membership,
    Pipelining, Producer, Rejected, StreamLimits, Streams,
};
use millstream_core::{Epoch, Guarantee, Guarantees, Partition, Record, RecordMetadata, Result};

/// The changed calls of a wrapped driver.
#[async_trait]
pub trait Layer: Debug + Send + Sync + 'static {
    /// Opens a producer. Default: that of the driver.
    async fn open_producer(
        &self,
        driver: &dyn Backend,
        stream: &str,
        required: &[Guarantee],
    ) -> Result<Arc<dyn Producer>> {
        driver.open_producer(stream, required).await
    }

    /// Joins a group with the name `name`. Default: like the driver.
    async fn join(
        &self,
        group: &dyn ConsumerGroup,
        _name: &str,
        options: JoinOptions,
    ) -> Result<Arc<dyn Membership>> {
        group.join(options).await
    }

    /// Returns the stored progress of a group. Default: that of the driver.
    fn checkpoints(&self, driver: &dyn Backend, group: &str) -> Arc<dyn Checkpoints> {
        driver.checkpoints(group)
    }
}

/// A driver under a [`Layer`].
#[derive(Debug, Clone)]
pub struct Layered<B, L> {
    /// The driver.
    pub driver: B,
    /// The layer.
    pub layer: L,
}

#[async_trait]
impl<B: Backend, L: Layer + Clone> Backend for Layered<B, L> {
    fn name(&self) -> &'static str {
        self.driver.name()
    }

    fn guarantees(&self) -> Guarantees {
        self.driver.guarantees()
    }

    fn check_stream_name(&self, name: &str) -> std::result::Result<(), String> {
        self.driver.check_stream_name(name)
    }

    async fn open_producer(
        &self,
        stream: &str,
        required: &[Guarantee],
    ) -> Result<Arc<dyn Producer>> {
        let layer = &self.layer;
        layer.open_producer(&self.driver, stream, required).await
    }

    fn check_group_name(&self, name: &str) -> std::result::Result<(), String> {
        self.driver.check_group_name(name)
    }

    fn consumer_group(&self, group: &str) -> Arc<dyn ConsumerGroup> {
        Arc::new(LayeredGroup {
            group: self.driver.consumer_group(group),
            name: group.to_owned(),
            layer: self.layer.clone(),
        })
    }

    fn checkpoints(&self, group: &str) -> Arc<dyn Checkpoints> {
        self.layer.checkpoints(&self.driver, group)
    }

    fn streams(&self) -> Arc<dyn Streams> {
        self.driver.streams()
    }
}

#[derive(Debug)]
struct LayeredGroup<L> {
    group: Arc<dyn ConsumerGroup>,
    name: String,
    layer: L,
}

#[async_trait]
impl<L: Layer> ConsumerGroup for LayeredGroup<L> {
    async fn join(&self, options: JoinOptions) -> Result<Arc<dyn Membership>> {
        self.layer.join(&*self.group, &self.name, options).await
    }
}

/// The changed calls of a wrapped member: each call is forwarded to the inner member, unless it is
/// implemented. [`LayeredMembership`] makes it a [`Membership`].
#[async_trait]
pub trait MembershipLayer: Debug + Send + Sync + 'static {
    /// Returns the inner member.
    fn inner(&self) -> &dyn Membership;

    /// See [`Membership::next`].
    async fn next(&self) -> Result<Vec<Event>> {
        self.inner().next().await
    }

    /// See [`Membership::checkpoint`].
    async fn checkpoint(&self, updates: &[CheckpointUpdate]) -> Vec<Result<()>> {
        self.inner().checkpoint(updates).await
    }

    /// See [`Membership::publish`].
    async fn publish(
        &self,
        stream: &str,
        records: &[Record],
        updates: &[CheckpointUpdate],
    ) -> Result<()> {
        self.inner().publish(stream, records, updates).await
    }

    /// See [`Membership::release`].
    async fn release(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        self.inner().release(partition, epoch).await
    }

    /// See [`Membership::complete`].
    async fn complete(&self, partition: &Partition, epoch: Epoch) -> Result<()> {
        self.inner().complete(partition, epoch).await
    }

    /// See [`Membership::pause`].
    fn pause(&self, partition: &Partition, epoch: Epoch) {
        self.inner().pause(partition, epoch);
    }

    /// See [`Membership::resume`].
    fn resume(&self, partition: &Partition, epoch: Epoch) {
        self.inner().resume(partition, epoch);
    }
}

/// A member under a [`MembershipLayer`].
#[derive(Debug)]
pub struct LayeredMembership<L>(pub L);

#[async_trait]
impl<L: MembershipLayer> Membership for LayeredMembership<L> {
    fn id(&self) -> &str {
        self.0.inner().id()
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
        self.0.inner().leave().await
    }
}

/// The changed calls of a wrapped producer: how records are sent, and what may hold them up. [`LayeredProducer`] makes
/// it a [`Producer`].
#[async_trait]
pub trait ProducerLayer: Debug + Send + Sync + 'static {
    /// Returns the inner producer.
    fn inner(&self) -> &dyn Producer;

    /// See [`Producer::route`].
    fn route(&self, record: &Record) -> Option<u64> {
        self.inner().route(record)
    }

    /// See [`Producer::send`].
    async fn send(&self, records: Vec<Record>) -> Vec<Result<RecordMetadata, Rejected>>;
}

/// A producer under a [`ProducerLayer`].
#[derive(Debug)]
pub struct LayeredProducer<L>(pub L);

#[async_trait]
impl<L: ProducerLayer> Producer for LayeredProducer<L> {
    fn limits(&self) -> StreamLimits {
        self.0.inner().limits()
    }

    fn pipelining(&self) -> Pipelining {
        self.0.inner().pipelining()
    }

    fn validate(&self, record: &Record) -> Result<()> {
        self.0.inner().validate(record)
    }

    fn route(&self, record: &Record) -> Option<u64> {
        self.0.route(record)
    }

    async fn send(&self, records: Vec<Record>) -> Vec<Result<RecordMetadata, Rejected>> {
        self.0.send(records).await
    }

    async fn close(&self) -> Result<()> {
        self.0.inner().close().await
    }
}
