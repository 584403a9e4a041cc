//! Opens a producer: requests the topic, and the size limit of its records, from the cluster.

use std::sync::Arc;

use millstream_core::{Result, driver};
use rdkafka::admin::{AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use tokio::runtime::Handle;

use super::size_limits::SizeLimits;
use super::topic_health::TopicHealth;
use super::{OPEN, Producer};
use crate::connection::Connection;
use crate::{background, error};

pub(crate) async fn open(
    connection: &Arc<Connection>,
    stream: &str,
) -> Result<Arc<dyn driver::Producer>> {
    let stream: Arc<str> = stream.into();
    let partitions = find(connection, &stream).await?;
    let settings = read_topic_settings(connection, &stream).await;
    let limits = SizeLimits::new(settings.max_message_bytes);
    let health = TopicHealth::new(connection, &stream, settings.min_insync_replicas);
    let topic = TopicSettingsReader::new(connection, &stream);
    let connection = connection.clone();
    let (settings, context) = (
        connection.watched(),
        connection.lasting_context("send").stream(&stream),
    );
    let largest_batch = Box::new(move || topic.read().max_message_bytes);
    // With TLS, a client takes tens of milliseconds to load certificates.
    let opened = background::run(OPEN, move || {
        let config = &connection.config.producer;
        Producer::new(
            stream,
            settings,
            context,
            config,
            limits,
            partitions,
            largest_batch,
        )
    });
    Ok(Arc::new(opened.await??.with_health(health)))
}

/// Looks up whether the topic exists, and whether this client may see it. Returns the number of its partitions.
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
        // A topic whose partitions have no leader at the moment still exists.
        None
        | Some(RDKafkaErrorCode::LeaderNotAvailable | RDKafkaErrorCode::ReplicaNotAvailable) => {
            Ok(partitions)
        }
        Some(code) => Err(error::from_code(OPEN, code).with_stream(stream.clone())),
    }
}

/// Requests the topic's `max.message.bytes`. `None` if this client may not read it.
pub(crate) async fn largest_batch(
    connection: &Arc<Connection>,
    stream: &Arc<str>,
) -> Option<usize> {
    read_topic_settings(connection, stream)
        .await
        .max_message_bytes
}

async fn read_topic_settings(connection: &Arc<Connection>, stream: &Arc<str>) -> TopicSettings {
    let reader = TopicSettingsReader::new(connection, stream);
    // An admin client blocks when it is created and when it is dropped.
    let read = background::run(OPEN, move || reader.read());
    read.await.unwrap_or_default()
}

/// Settings of a topic, as far as this client may read them.
#[derive(Debug, Clone, Copy, Default)]
struct TopicSettings {
    max_message_bytes: Option<usize>,
    min_insync_replicas: Option<usize>,
}

/// Reads settings of a topic.
struct TopicSettingsReader {
    connection: Arc<Connection>,
    stream: Arc<str>,
    runtime: Handle,
}

impl TopicSettingsReader {
    fn new(connection: &Arc<Connection>, stream: &Arc<str>) -> Self {
        Self {
            connection: connection.clone(),
            stream: stream.clone(),
            runtime: Handle::current(),
        }
    }

    /// Reads the settings. Blocks.
    fn read(&self) -> TopicSettings {
        let config = self.describe();
        let number = |name| config.as_ref()?.get(name)?.value.as_ref()?.parse().ok();
        TopicSettings {
            max_message_bytes: number("max.message.bytes"),
            min_insync_replicas: number("min.insync.replicas"),
        }
    }

    fn describe(&self) -> Option<ConfigResource> {
        let admin = self.connection.admin(OPEN)().ok()?;
        let timeout = self.connection.config.request_timeout;
        let options = AdminOptions::new().request_timeout(Some(timeout));
        let topic = [ResourceSpecifier::Topic(&self.stream)];
        let described = self
            .runtime
            .block_on(admin.describe_configs(&topic, &options));
        described.ok()?.pop()?.ok()
    }
}
