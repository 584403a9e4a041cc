//! Waiting until brokers show a change.
//!
//! A change is agreed on by the controllers, and each broker learns of it in its own time: a client
//! that asks another broker a moment later may still be told the old state. So every broker is
//! asked, each by a client that knows no other one; and leaders are asked for an offset, since they
//! take up a new partition a moment after they show it.

use std::time::Duration;

use futures_util::future::try_join_all;
use millstream_core::telemetry::{Causes, event};
use millstream_core::{Error, ErrorKind, Result};

use crate::cluster::ends::{End, ends};
use crate::cluster::patience::Patience;
use crate::cluster::topics::{self, Topic};
use crate::connection::{Asker, Connection};

/// How long a broker may be silent until it is left aside.
const SILENCE: Duration = Duration::from_secs(5);

/// What brokers shall show of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Nothing,
    /// At least so many partitions, each with a leader that serves it.
    Partitions(i32),
}

impl Shown {
    fn by(self, topic: Option<Topic>) -> bool {
        match (self, topic) {
            (Self::Nothing, topic) => topic.is_none(),
            (Self::Partitions(_), None) => false,
            (Self::Partitions(count), Some(topic)) => topic.led && topic.partitions >= count,
        }
    }
}

/// Waits until every broker of the cluster shows it. A broker that answers nobody cannot mislead
/// anybody either, and is left aside.
pub(super) async fn everywhere(
    connection: &Connection,
    operation: &'static str,
    topic: &str,
    wanted: Shown,
    patience: &Patience,
) -> Result<()> {
    let asker = &connection.asker;
    let look = |time| shows(asker, operation, topic, wanted, time);
    in_time(patience.until(look).await, operation, topic)?;
    let time = patience.left();
    let brokers = asker.ask(operation, move |client| topics::brokers(client, time));
    let brokers = brokers.await.map_err(|e| e.with_stream(topic))?;
    // One broker alone has just been asked.
    if brokers.len() > 1 {
        let mut each = Vec::with_capacity(brokers.len());
        for broker in &brokers {
            each.push(at(connection, broker, operation, topic, wanted, patience));
        }
        try_join_all(each).await?;
    }
    match wanted {
        Shown::Nothing => Ok(()),
        Shown::Partitions(count) => {
            let look = |time| serves(asker, operation, topic, count, time);
            in_time(patience.until(look).await, operation, topic)
        }
    }
}

/// Waits until one broker shows it.
async fn at(
    connection: &Connection,
    broker: &str,
    operation: &'static str,
    topic: &str,
    wanted: Shown,
    patience: &Patience,
) -> Result<()> {
    let mut settings = connection.common();
    settings.set("bootstrap.servers", broker);
    let asker = connection.new_asker(settings, operation);
    let asker = &asker;
    let look = |time: Duration| async move {
        let shown = shows(asker, operation, topic, wanted, time.min(SILENCE)).await;
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
    in_time(patience.until(look).await, operation, topic)
}

async fn shows(
    asker: &Asker,
    operation: &'static str,
    topic: &str,
    wanted: Shown,
    time: Duration,
) -> Result<Option<()>> {
    let name = topic.to_owned();
    let shown = asker.ask(operation, move |client| {
        topics::look_up(client, &name, time)
    });
    let shown = shown.await.map_err(|e| e.with_stream(topic))?;
    Ok(wanted.by(shown).then_some(()))
}

/// Whether the leaders of all partitions have taken them up.
async fn serves(
    asker: &Asker,
    operation: &'static str,
    topic: &str,
    count: i32,
    time: Duration,
) -> Result<Option<()>> {
    let name = topic.to_owned();
    let asked = asker.ask(operation, move |client| {
        // Makes the client forget an older state, told by a broker that was behind: what it knows of
        // a topic it does not ask for again for minutes.
        topics::look_up(client, &name, time)?;
        let partitions: Vec<i32> = (0..count).collect();
        ends(client, &name, &partitions, End::High, time)
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
