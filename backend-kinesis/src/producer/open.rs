//! Opens a producer: reads the stream's description, its maximum record size, and its shards.

use std::sync::Arc;

use millstream_core::{Error, ErrorKind, Guarantee, Result, driver};
use tokio::time::Instant;

use super::Producer;
use super::settings::ProducerSettings;
use super::shard_map::ShardMap;
use super::transport::Aws;
use crate::config::Aggregation;
use crate::connection::Connection;
use crate::stream;

const OPERATION: &str = "open producer";

pub(crate) async fn open(
    connection: &Arc<Connection>,
    stream: &str,
    required: &[Guarantee],
) -> Result<Arc<dyn driver::Producer>> {
    let info = stream::describe(connection, OPERATION, stream).await?;
    info.check_required(required, OPERATION)?;
    if info.distributes && connection.config.producer.aggregation == Aggregation::Kpl {
        let message = "the stream distributes records itself (AUTO), and an aggregate must come to the \
                       shard of its keys: set `producer.aggregation` to \"off\"";
        return Err(Error::new(ErrorKind::Invalid, OPERATION, message).with_stream(stream));
    }
    info.warn_of_distribution();
    let shards = stream::shards(connection, OPERATION, stream).await?;
    let map = ShardMap::new(info.name.clone(), &shards).ok_or_else(|| {
        let message = "no shard of the stream is open: it is being made, or deleted";
        Error::new(ErrorKind::Unavailable, OPERATION, message).with_stream(stream)
    })?;
    let settings = ProducerSettings {
        config: connection.config.producer.clone(),
        record_bytes: info.record_bytes,
        epoch: Instant::now(),
    };
    let transport = Aws::new(connection.for_producer(), info.name.clone());
    let producer = Producer::start(info.name, settings, transport, map);
    Ok(Arc::new(producer))
}
