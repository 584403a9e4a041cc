//! Waits until all brokers show a change.
//!
//! The controllers agree on a change, and each broker learns of it at its own time: a client that asks another broker
//! a moment later may still get the old state. So every broker is asked, each by a client that knows no other broker.
//! In addition, the leaders are asked for an offset, since they serve a new partition a moment after they show
//! it.

use std::time::Duration;

use millstream_core::telemetry::{Causes, event};
use millstream_core::{Error, ErrorKind, Result};

use crate::cluster::deadline::Deadline;
use crate::cluster::list_offsets::{OffsetSpec, list_offsets};
use crate::cluster::topics::{self, Topic};
use crate::connection::{Connection, RequestClient};

/// How long a broker may be silent until it is ignored.
const SILENCE: Duration = Duration::from_secs(5);

/// The state of a topic that brokers must show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    NoTopic,
    /// At least this many partitions, each with a leader that serves it.
    Partitions(i32),
}

impl Expected {
    fn by(self, topic: Option<Topic>) -> bool {
        match (self, topic) {
            (Self::NoTopic, topic) => topic.is_none(),
            (Self::Partitions(_), None) => false,
            (Self::Partitions(count), Some(topic)) => topic.is_led() && topic.partitions >= count,
        }
    }
}

/// Waits until every broker of the cluster shows the state. A broker that does not respond cannot mislead any client,
/// and is ignored.
pub(super) async fn wait(
    connection: &Connection,
    operation: &'static str,
    topic: &str,
    wanted: Expected,
    deadline: &Deadline,
) -> Result<()> {
    let request_client = &connection.request_client;
    let look = |time| shows(request_client, operation, topic, wanted, time);
    in_time(deadline.until(look).await, operation, topic)?;
    let time = deadline.left();
    let brokers = request_client.ask(operation, move |client| topics::brokers(client, time));
    let brokers = brokers.await.map_err(|e| e.with_stream(topic))?;
    // A single broker has just been asked.
    if brokers.len() > 1 {
        // One after another: a client has a thread and maybe a connection for each broker of the cluster.
        for broker in &brokers {
            at(connection, broker, operation, topic, wanted, deadline).await?;
        }
    }
    match wanted {
        Expected::NoTopic => Ok(()),
        Expected::Partitions(count) => {
            let look = |time| serves(request_client, operation, topic, count, time);
            in_time(deadline.until(look).await, operation, topic)
        }
    }
}

/// Waits until one broker shows the state.
async fn at(
    connection: &Connection,
    broker: &str,
    operation: &'static str,
    topic: &str,
    wanted: Expected,
    deadline: &Deadline,
) -> Result<()> {
    let mut settings = connection.common();
    settings.set("bootstrap.servers", broker);
    let request_client = connection.new_request_client(settings, operation);
    let request_client = &request_client;
    let look = |time: Duration| async move {
        let shown = shows(request_client, operation, topic, wanted, time.min(SILENCE)).await;
        shown.or_else(|error| {
            if !error.is_retryable() {
                return Err(error);
            }
            event!(
                warn, "millstream.kafka.broker.unanswered", broker, topic, error = %Causes(&error),
                "a broker could not be asked"
            );
            Ok(Some(()))
        })
    };
    in_time(deadline.until(look).await, operation, topic)
}

async fn shows(
    request_client: &RequestClient,
    operation: &'static str,
    topic: &str,
    wanted: Expected,
    time: Duration,
) -> Result<Option<()>> {
    let name = topic.to_owned();
    let shown = request_client.ask(operation, move |client| {
        topics::look_up(client, &name, time)
    });
    let shown = shown.await.map_err(|e| e.with_stream(topic))?;
    Ok(wanted.by(shown).then_some(()))
}

/// Returns whether the leaders serve all partitions.
async fn serves(
    request_client: &RequestClient,
    operation: &'static str,
    topic: &str,
    count: i32,
    time: Duration,
) -> Result<Option<()>> {
    let name = topic.to_owned();
    let asked = request_client.ask(operation, move |client| {
        // Makes the client replace an outdated state from a broker that was behind: for minutes it does not request
        // a known topic again.
        topics::look_up(client, &name, time)?;
        let partitions: Vec<i32> = (0..count).collect();
        list_offsets(client, &name, &partitions, OffsetSpec::Latest, time)
    });
    match asked.await {
        Ok(_) => Ok(Some(())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.with_stream(topic)),
    }
}

fn in_time(seen: Result<Option<()>>, operation: &'static str, topic: &str) -> Result<()> {
    if seen?.is_some() {
        return Ok(());
    }
    let message = "the cluster has agreed, but not every broker shows it yet: wait for it, or raise \
                   request_timeout";
    Err(Error::new(ErrorKind::Timeout, operation, message).with_stream(topic))
}
