//! The administration of topics.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use millstream_core::{
    Error, ErrorKind, Partition, PartitionDescription, Position, Result, StreamDescription,
    StreamSpec, driver,
};
use rdkafka::admin::{NewPartitions, NewTopic, TopicReplication};

use super::propagation::{self, Expected};
use crate::cluster::admin;
use crate::cluster::deadline::Deadline;
use crate::cluster::list_offsets::{OffsetSpec, list_offsets};
use crate::cluster::topics::{self, Topic, no_leader};
use crate::connection::Connection;
use crate::offsets;

#[derive(Debug)]
pub(crate) struct Streams {
    connection: Arc<Connection>,
}

impl Streams {
    pub(crate) fn new(connection: &Arc<Connection>) -> Self {
        Self {
            connection: connection.clone(),
        }
    }

    fn timeout(&self) -> Duration {
        self.connection.config.request_timeout
    }

    /// Looks up a topic before anything is changed, so that a refused login is reported at once.
    async fn look_up(&self, operation: &'static str, stream: &str) -> Result<Option<Topic>> {
        let (topic, timeout) = (stream.to_owned(), self.timeout());
        let found = self
            .connection
            .request_client
            .ask(operation, move |client| {
                topics::look_up(client, &topic, timeout)
            });
        found.await.map_err(|e| e.with_stream(stream))
    }

    async fn find(&self, operation: &'static str, stream: &str) -> Result<Topic> {
        let found = self.look_up(operation, stream).await?;
        found.ok_or_else(|| not_found(operation, stream))
    }
}

/// The offsets of a topic.
enum Offsets {
    /// The offsets of all its partitions.
    Known {
        lows: Vec<i64>,
        highs: Vec<i64>,
    },
    /// This partition has no leader that could return them.
    NoLeader(i32),
    NoTopic,
}

#[async_trait]
impl driver::Streams for Streams {
    async fn create(&self, spec: &StreamSpec) -> Result<()> {
        const CREATE: &str = "create stream";
        let name = &*spec.name;
        let partitions = count(CREATE, name, spec.partitions)?;
        let deadline = Deadline::after(self.timeout());
        if self.look_up(CREATE, name).await?.is_some() {
            return Err(already_exists(name));
        }
        let (topic, settings) = (spec.name.clone(), self.connection.config.topics.clone());
        let created = admin::change(&self.connection, CREATE, deadline.left(), {
            async move |client, options| {
                // -1: the cluster's default.
                let replicas = settings.replication_factor.map_or(-1, i32::from);
                let replicas = TopicReplication::Fixed(replicas);
                let mut new = NewTopic::new(&topic, partitions, replicas);
                for (key, value) in &settings.config {
                    new = new.set(key, value);
                }
                client.create_topics([&new], options).await
            }
        });
        created.await.map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => already_exists(name).with_source(e),
            _ => e.with_stream(name),
        })?;
        let wanted = Expected::Partitions(partitions);
        propagation::wait(&self.connection, CREATE, name, wanted, &deadline).await
    }

    async fn list(&self) -> Result<Vec<String>> {
        let timeout = self.timeout();
        let names = move |client: &_| topics::names(client, timeout);
        self.connection
            .request_client
            .ask("list streams", names)
            .await
    }

    /// With transactions and compaction, not every position holds a record: `earliest` and `latest`
    /// are only bounds.
    async fn describe(&self, stream: &str) -> Result<StreamDescription> {
        const DESCRIBE: &str = "describe stream";
        let (name, timeout) = (stream.to_owned(), self.timeout());
        let asked = self.connection.request_client.ask(DESCRIBE, move |client| {
            let Some(topic) = topics::look_up_led(client, &name, timeout)? else {
                return Ok(Offsets::NoTopic);
            };
            if let Some(partition) = topic.leaderless() {
                return Ok(Offsets::NoLeader(partition));
            }
            let partitions: Vec<i32> = (0..topic.partitions).collect();
            // In this order, so that a partition that is truncated in between never ends before it begins.
            let lows = list_offsets(client, &name, &partitions, OffsetSpec::Earliest, timeout)?;
            let highs = list_offsets(client, &name, &partitions, OffsetSpec::Latest, timeout)?;
            Ok(Offsets::Known { lows, highs })
        });
        let (lows, highs) = match asked.await {
            Ok(Offsets::Known { lows, highs }) => (lows, highs),
            Ok(Offsets::NoLeader(partition)) => {
                return Err(no_leader(DESCRIBE, stream, partition));
            }
            Ok(Offsets::NoTopic) => return Err(not_found(DESCRIBE, stream)),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(not_found(DESCRIBE, stream).with_source(e));
            }
            Err(e) => return Err(e.with_stream(stream)),
        };
        let name: Arc<str> = stream.into();
        let places = lows.into_iter().zip(highs);
        let partitions = places.zip(0..).map(|((low, high), id): (_, i32)| {
            let earliest = u64::try_from(low).ok().map(Position::from);
            let filled = low < high;
            PartitionDescription {
                partition: Partition::new(name.clone(), id.to_string()),
                open: true,
                parents: Vec::new(),
                earliest: earliest.filter(|_| filled),
                latest: offsets::settled(high).filter(|_| filled),
            }
        });
        Ok(StreamDescription {
            name: stream.to_owned(),
            partitions: partitions.collect(),
        })
    }

    async fn delete(&self, stream: &str) -> Result<()> {
        const DELETE: &str = "delete stream";
        let deadline = Deadline::after(self.timeout());
        self.find(DELETE, stream).await?;
        let topic = stream.to_owned();
        let deleted = admin::change(&self.connection, DELETE, deadline.left(), {
            async move |client, options| client.delete_topics(&[&topic], options).await
        });
        deleted.await.map_err(|e| match e.kind() {
            ErrorKind::NotFound => not_found(DELETE, stream).with_source(e),
            _ => e.with_stream(stream),
        })?;
        propagation::wait(
            &self.connection,
            DELETE,
            stream,
            Expected::NoTopic,
            &deadline,
        )
        .await
    }

    async fn split(&self, partition: &Partition) -> Result<()> {
        Err(no_reshard("split").with_partition(partition))
    }

    async fn merge(&self, one: &Partition, _other: &Partition) -> Result<()> {
        Err(no_reshard("merge").with_partition(one))
    }

    async fn add_partitions(&self, stream: &str, partitions: usize) -> Result<()> {
        const ADD: &str = "add partitions";
        let wanted = count(ADD, stream, partitions)?;
        let deadline = Deadline::after(self.timeout());
        let topic = self.find(ADD, stream).await?;
        if wanted <= topic.partitions {
            let message = format!(
                "there are {} partitions already: ask for more, Kafka takes none away",
                topic.partitions
            );
            return Err(Error::new(ErrorKind::Invalid, ADD, message).with_stream(stream));
        }
        let name = stream.to_owned();
        let added = admin::change(&self.connection, ADD, deadline.left(), {
            async move |client, options| {
                let new = NewPartitions::new(&name, wanted as usize);
                client.create_partitions([&new], options).await
            }
        });
        added.await.map_err(|e| match e.kind() {
            ErrorKind::NotFound => not_found(ADD, stream).with_source(e),
            _ => e.with_stream(stream),
        })?;
        let wanted = Expected::Partitions(wanted);
        propagation::wait(&self.connection, ADD, stream, wanted, &deadline).await
    }
}

fn count(operation: &'static str, stream: &str, partitions: usize) -> Result<i32> {
    i32::try_from(partitions).map_err(|_| {
        let message = format!("{partitions} partitions are more than Kafka takes");
        Error::new(ErrorKind::Invalid, operation, message).with_stream(stream)
    })
}

fn not_found(operation: &'static str, stream: &str) -> Error {
    Error::new(ErrorKind::NotFound, operation, "no such topic").with_stream(stream)
}

fn already_exists(stream: &str) -> Error {
    let message = "there is a topic of that name";
    Error::new(ErrorKind::AlreadyExists, "create stream", message).with_stream(stream)
}

fn no_reshard(operation: &'static str) -> Error {
    let message = "kafka neither splits nor merges partitions: grow the stream with add_partitions";
    Error::new(ErrorKind::Unsupported, operation, message)
}
