use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use millstream_core::Result;
use millstream_core::driver::{self, JoinOptions};
use millstream_core::telemetry::event;

use super::membership::{Membership, Parts, StreamSource};
use super::shard_source::KinesisShardSource;
use super::table;
use crate::config::Retrieval;
use crate::connection::Connection;
use crate::lease::{Worker, WorkerOptions};
use crate::retrieval::{self, Distribution, RetrievalMode};
use crate::stream::{self, HashKey, StreamInfo};

/// A renewal may take a quarter of the session timeout: with less than this, not enough for DNS, TLS and DynamoDB.
const SHORT_SESSION: Duration = Duration::from_secs(5);

/// A group by its name.
#[derive(Debug)]
pub(crate) struct Group {
    connection: Arc<Connection>,
    name: Arc<str>,
}

impl Group {
    pub(crate) fn new(connection: &Arc<Connection>, name: &str) -> Self {
        Self {
            connection: connection.clone(),
            name: name.into(),
        }
    }
}

impl Group {
    /// Returns how each stream is read. A group with enhanced fan-out is registered with each of them.
    async fn sources(
        &self,
        connection: &Arc<Connection>,
        infos: &[StreamInfo],
    ) -> Result<HashMap<Arc<str>, StreamSource>> {
        let consumer = &connection.config.consumer;
        let mut sources = HashMap::new();
        for info in infos {
            let stream = &info.name;
            let mode = match consumer.retrieval {
                Retrieval::Polling => RetrievalMode::Polling,
                Retrieval::FanOut => {
                    let name = consumer.fan_out_name.clone();
                    let name = name.unwrap_or_else(|| fan_out_name(&self.name));
                    retrieval::register(connection, stream, &info.arn, &name).await?
                }
            };
            let id = info.id();
            info.warn_of_distribution();
            let distribution = Distribution::new(info.distributes);
            let source = StreamSource {
                id,
                mode,
                distribution,
            };
            sources.insert(stream.clone(), source);
        }
        Ok(sources)
    }

    fn warn_of_short_session(&self, session: Duration) {
        if session < SHORT_SESSION {
            event!(
                warn, "millstream.kinesis.session.short",
                group = %self.name, session_timeout_ms = session.as_millis() as u64,
                "the session timeout is short: a slow request to the lease table may cost leases"
            );
        }
    }
}

/// Returns the name of a group as a consumer of a stream: its own name, or, if that is too long, a unique name with
/// the same prefix.
fn fan_out_name(group: &str) -> String {
    const LONGEST: usize = 128;
    match group.len() <= LONGEST {
        true => group.to_owned(),
        false => format!("{}-{:032x}", &group[..LONGEST - 33], HashKey::of(group).0),
    }
}

/// Returns a name that no other incarnation of any member ever has: two that share one would assume that
/// they hold the same leases.
fn id(member: &str) -> String {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name: String = member.chars().filter(|c| is_fit(*c)).collect();
    format!("{name}-{:032x}", fastrand::u128(..))
}

#[async_trait]
impl driver::ConsumerGroup for Group {
    async fn join(&self, join: JoinOptions) -> Result<Arc<dyn driver::Membership>> {
        let member = join.member.as_deref().unwrap_or("member");
        // A thread with its own connections and credentials renews the leases: whatever readers and
        // handlers do, the member shows that it is alive.
        let reader_connection = Arc::new(self.connection.named(member));
        let lease_connection = Arc::new(self.connection.independent(member).await);
        let config = &self.connection.config;
        self.warn_of_short_session(config.consumer.session_timeout);
        let id = id(member);
        let mut infos = Vec::new();
        for stream in &join.streams {
            let info = stream::describe(&reader_connection, "join", stream).await;
            let info = info.and_then(|info| {
                info.check_required(&join.required, "join")?;
                Ok(info)
            });
            infos.push(info.map_err(|error| error.with_group(self.name.clone()))?);
        }
        let sources = self.sources(&reader_connection, &infos).await?;
        let options = WorkerOptions {
            id: id.as_str().into(),
            group: self.name.clone(),
            store: table::of(&lease_connection, &self.name, "join")?,
            source: Arc::new(KinesisShardSource(lease_connection.clone())),
            streams: infos,
            start: join.start,
            keys: config.leases.keys,
            failover: config.consumer.session_timeout,
            scan_interval: config.leases.scan_interval,
            audit_interval: config.leases.audit_interval,
            max_leases: config.leases.max_per_member,
            cleanup: config.leases.cleanup,
            drain: join.drain,
        };
        let worker = Worker::join(options).await;
        let worker = worker.map_err(|error| error.with_group(self.name.clone()))?;
        let parts = Parts {
            id,
            group: self.name.clone(),
            worker,
            connection: reader_connection,
            sources,
            options: join,
        };
        Ok(Arc::new(Membership::from(parts)))
    }
}

#[cfg(test)]
mod tests {
    use millstream_core::{Client, ErrorKind, Start};

    use super::*;
    use crate::Kinesis;
    use crate::fake_service::FakeService;
    use crate::log_lines::LogLines;

    /// Returns the warnings of a member that tries to join with this session timeout.
    async fn warnings(session: Duration) -> Vec<String> {
        let lines = LogLines::record();
        let mut config = FakeService::start().await.config();
        config.consumer.session_timeout = session;
        let client = Client::new(Kinesis::connect(config).await.unwrap());
        // There is no stream of this name.
        let group = client.group("readers").stream("other");
        let joined = group.start(Start::Earliest).join().await;
        assert_eq!(joined.unwrap_err().kind(), ErrorKind::NotFound);
        lines.of("millstream.kinesis.session.short")
    }

    #[tokio::test]
    async fn a_short_session_gets_a_warning_at_the_join() {
        let told = warnings(SHORT_SESSION - Duration::from_millis(1)).await;
        assert_eq!(told.len(), 1, "{told:?}");
        for part in ["WARN", "group=readers", "session_timeout_ms=4999"] {
            assert!(told[0].contains(part), "{part}: {told:?}");
        }
        let told = warnings(SHORT_SESSION).await;
        assert!(told.is_empty(), "{told:?}");
    }
}
