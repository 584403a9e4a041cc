//! Opens a producer: asks the cluster for the topic, and how large its records may be.

use std::sync::Arc;

use millstream_core::{Result, driver};
use rdkafka::admin::{AdminOptions, ResourceSpecifier};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::size_limits::SizeLimits;
use super::{OPEN, Producer};
use crate::connection::Connection;
use crate::error;

pub(crate) async fn open(
    connection: &Arc<Connection>,
    stream: &str,
) -> Result<Arc<dyn driver::Producer>> {
    let stream: Arc<str> = stream.into();
    let partitions = find(connection, &stream).await?;
    let limits = SizeLimits::new(largest_batch(connection, &stream).await);
    let topic = TopicSettings::new(connection, &stream);
    let config = &connection.config.producer;
    let (settings, context) = (
        connection.watched(),
        connection.lasting_context("send").stream(&stream),
    );
    let largest_batch = Box::new(move || topic.largest_batch());
    let producer = Producer::new(
        stream,
        settings,
        context,
        config,
        limits,
        partitions,
        largest_batch,
    )?;
    Ok(Arc::new(producer))
}

/// Asks whether the topic exists, and whether this client may see it. Returns how many partitions it has.
async fn find(connection: &Connection, stream: &Arc<str>) -> Result<usize> {
    let (name, timeout) = (stream.clone(), connection.config.request_timeout);
    let answer = connection
        .request_client
        .ask(OPEN, move |client| {
            let metadata = client.client().fetch_metadata(Some(&name), timeout)?;
            let topic = metadata.topics().first();
            Ok(topic.map_or((0, None), |topic| (topic.partitions().len(), topic.error())))
        })
        .await;
    let (partitions, refusal) = answer.map_err(|error| error.with_stream(stream.clone()))?;
    match refusal.map(RDKafkaErrorCode::from) {
        // A topic whose partitions have no leader at the moment is there.
        None
        | Some(RDKafkaErrorCode::LeaderNotAvailable | RDKafkaErrorCode::ReplicaNotAvailable) => {
            Ok(partitions)
        }
        Some(code) => Err(error::from_code(OPEN, code).with_stream(stream.clone())),
    }
}

/// Asks for the topic's `max.message.bytes`. `None` if this client may not know.
pub(crate) async fn largest_batch(
    connection: &Arc<Connection>,
    stream: &Arc<str>,
) -> Option<usize> {
    let settings = TopicSettings::new(connection, stream);
    // An admin client blocks when it is made and when it is dropped.
    let asked = spawn_blocking(move || settings.largest_batch());
    asked.await.ok().flatten()
}

/// Asks for settings of a topic.
struct TopicSettings {
    connection: Arc<Connection>,
    stream: Arc<str>,
    runtime: Handle,
}

impl TopicSettings {
    fn new(connection: &Arc<Connection>, stream: &Arc<str>) -> Self {
        Self {
            connection: connection.clone(),
            stream: stream.clone(),
            runtime: Handle::current(),
        }
    }

    /// Returns the topic's `max.message.bytes`, if this client may know. Blocks.
    fn largest_batch(&self) -> Option<usize> {
        let admin = self.connection.admin(OPEN)().ok()?;
        let timeout = self.connection.config.request_timeout;
        let options = AdminOptions::new().request_timeout(Some(timeout));
        let topic = [ResourceSpecifier::Topic(&self.stream)];
        let described = self
            .runtime
            .block_on(admin.describe_configs(&topic, &options));
        let config = described.ok()?.pop()?.ok()?;
        config
            .get("max.message.bytes")?
            .value
            .as_ref()?
            .parse()
            .ok()
    }
}
