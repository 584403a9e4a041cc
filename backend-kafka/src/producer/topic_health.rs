//! Why the records of a topic are not stored, as far as its metadata show.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::{Error, ErrorKind};
use rdkafka::metadata::MetadataPartition;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::connection::Connection;

/// How long a look may take. Records that have timed out wait for it.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How long the result of a look is used for others.
const FRESH: Duration = Duration::from_secs(10);

/// librdkafka repeats requests that a leader refuses for want of replicas, and reports nothing of it.
pub(super) struct TopicHealth {
    connection: Arc<Connection>,
    stream: Arc<str>,
    /// How many replicas must be in sync, if this client may know.
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

    /// Returns what keeps records from being stored. `None` if nothing is seen, or nobody answers.
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
