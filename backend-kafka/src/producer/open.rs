//! Opening: asks the cluster for the topic, and how large its records may be.

use std::sync::Arc;

use millstream_core::{Result, driver};
use rdkafka::admin::{AdminOptions, ResourceSpecifier};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::Producer;
use super::room::Room;
use crate::connection::Connection;
use crate::error;

const OPERATION: &str = "open producer";

pub(crate) async fn open(
    connection: &Arc<Connection>,
    stream: &str,
) -> Result<Arc<dyn driver::Producer>> {
    let stream: Arc<str> = stream.into();
    let partitions = find(connection, &stream).await?;
    let room = Room::new(largest_batch(connection, &stream).await);
    let config = &connection.config.producer;
    let (settings, context) = (
        connection.watched(),
        connection.lasting_context("send").stream(&stream),
    );
    let producer = Producer::new(stream, settings, context, config, room, partitions)?;
    Ok(Arc::new(producer))
}

/// Asks whether there is such a topic, and whether it is shown to this client. Answers how many
/// partitions it has.
async fn find(connection: &Connection, stream: &Arc<str>) -> Result<usize> {
    let (name, timeout) = (stream.clone(), connection.config.request_timeout);
    let answer = connection
        .asker
        .ask(OPERATION, move |client| {
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
        Some(code) => Err(error::from_code(OPERATION, code).with_stream(stream.clone())),
    }
}

/// The topic's `max.message.bytes`, if this client may know.
pub(crate) async fn largest_batch(connection: &Connection, stream: &Arc<str>) -> Option<usize> {
    let (admin, name) = (connection.admin(OPERATION), stream.clone());
    let timeout = connection.config.request_timeout;
    // An admin client blocks when it is made and when it is dropped.
    let asked = spawn_blocking(move || -> Option<usize> {
        let admin = admin().ok()?;
        let options = AdminOptions::new().request_timeout(Some(timeout));
        let topic = [ResourceSpecifier::Topic(&name)];
        let described = Handle::current().block_on(admin.describe_configs(&topic, &options));
        let config = described.ok()?.pop()?.ok()?;
        config
            .get("max.message.bytes")?
            .value
            .as_ref()?
            .parse()
            .ok()
    });
    asked.await.ok()?
}
