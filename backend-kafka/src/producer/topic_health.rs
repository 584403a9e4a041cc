//! Finds out from a topic's metadata why its records are not stored.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::{Error, ErrorKind};
use rdkafka::metadata::MetadataPartition;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::connection::Connection;

/// The timeout of a check. Records that have timed out wait for it.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How long the result of a check is reused.
const FRESH: Duration = Duration::from_secs(10);

/// Checks that each partition of a topic has a leader and enough in-sync replicas. librdkafka retries requests that a
/// leader refuses because of too few in-sync replicas, and reports nothing about it.
pub(super) struct TopicHealth {
    connection: Arc<Connection>,
    stream: Arc<str>,
    /// The required number of in-sync replicas, if this client may read it.
    min_insync_replicas: Option<usize>,
    last: Mutex<Option<(Instant, Option<Error>)>>,
}

impl TopicHealth {
    pub(super) fn new(
        connection: &Arc<Connection>,
        stream: &Arc<str>,
        min_insync_replicas: Option<usize>,
    ) -> Self {
        Self {
            connection: connection.clone(),
            stream: stream.clone(),
            min_insync_replicas,
            last: Mutex::default(),
        }
    }

    /// Returns the reason why records are not stored. `None` if none is found, or no broker responds.
    pub(super) async fn look(&self) -> Option<Error> {
        let mut last = self.last.lock().await;
        match &*last {
            Some((at, seen)) if at.elapsed() < FRESH => seen.clone(),
            _ => {
                let seen = self.ask().await;
                *last = Some((Instant::now(), seen.clone()));
                seen
            }
        }
    }

    async fn ask(&self) -> Option<Error> {
        let (name, min) = (self.stream.clone(), self.min_insync_replicas.unwrap_or(1));
        let asked = self.connection.request_client.ask("send", move |client| {
            let metadata = rdkafka::consumer::Consumer::client(client);
            let metadata = metadata.fetch_metadata(Some(&name), TIMEOUT)?;
            let topic = metadata.topics().first();
            let partitions = topic.map_or(&[][..], |topic| topic.partitions());
            Ok(partitions.iter().find_map(|it| trouble(it, min)))
        });
        let reason = asked.await.ok().flatten()?;
        Some(Error::new(ErrorKind::Unavailable, "send", reason))
    }
}

fn trouble(partition: &MetadataPartition, min_insync_replicas: usize) -> Option<String> {
    let (id, in_sync) = (partition.id(), partition.isr().len());
    if partition.leader() < 0 {
        return Some(format!("partition {id} has no leader"));
    }
    (in_sync < min_insync_replicas).then(|| {
        format!(
            "partition {id} has {in_sync} replicas in sync, and its topic needs {min_insync_replicas} \
             (min.insync.replicas)"
        )
    })
}
