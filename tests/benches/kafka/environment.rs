//! The broker and its topics.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use conformance::kafka::{Broker, Options};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use tokio::runtime::Runtime;

use crate::job::Target;
use crate::round_trip::Far;
use crate::{Result, raw};

pub(crate) const PARTITIONS: i32 = 4;
/// The records of a topic that is only consumed.
pub(crate) const STORED: usize = 3_000_000;
pub(crate) const KEYS: usize = 1_000;
/// How long the broker may take to know a new topic.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What is in a full topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Contents {
    pub(crate) records: usize,
    /// The size of each payload.
    pub(crate) bytes: usize,
}

impl Contents {
    /// Of a topic that is only consumed.
    pub(crate) fn consumed(bytes: usize) -> Self {
        Self {
            records: STORED,
            bytes,
        }
    }

    fn topic(self) -> String {
        format!("full-{}-{}", self.records, self.bytes)
    }
}

pub(crate) fn keys() -> impl Iterator<Item = String> {
    (0..KEYS).map(|number| format!("car-{number:05}"))
}

/// Every process runs on this.
pub(crate) fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}

/// The round trips that are added.
pub(crate) const ROUND_TRIPS_MS: [u32; 2] = [5, 10];

pub(crate) struct Environment {
    broker: Broker,
    /// By what is added to a round trip.
    far: BTreeMap<u32, Far>,
    admin: AdminClient<DefaultClientContext>,
    made: u32,
}

impl Environment {
    pub(crate) async fn set() -> Result<Self> {
        let far = ROUND_TRIPS_MS.map(|round_trip_ms| (round_trip_ms, Far::new(round_trip_ms)));
        let far = BTreeMap::from(far);
        let options = far
            .values()
            .fold(Options::new(), |options, far| far.listen(options));
        let broker = options
            // As a broker in service: tests run theirs as small and as quick to start as they can.
            .env("KAFKA_HEAP_OPTS", "-Xms1g -Xmx1g")
            .env(
                "KAFKA_JVM_PERFORMANCE_OPTS",
                "-server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35",
            )
            // What tests shorten, at its defaults.
            .property("group.min.session.timeout.ms", "6000")
            .property("group.consumer.session.timeout.ms", "45000")
            .property("group.consumer.min.session.timeout.ms", "45000")
            .property("group.consumer.heartbeat.interval.ms", "5000")
            .property("group.consumer.min.heartbeat.interval.ms", "5000")
            .start()
            .await;
        far.values().for_each(|far| far.forward_to(&broker));
        let admin = ClientConfig::new()
            .set("bootstrap.servers", broker.bootstrap())
            .create()?;
        Ok(Self {
            broker,
            far,
            admin,
            made: 0,
        })
    }

    fn target(&self, topic: &str) -> Target {
        Target {
            brokers: self.broker.bootstrap(),
            topic: topic.to_owned(),
            group: String::new(),
            output: None,
        }
    }

    /// The same target, where this is added to each round trip.
    pub(crate) fn at(&self, target: &Target, round_trip_ms: u32) -> Target {
        let far = self.far.get(&round_trip_ms);
        Target {
            brokers: far.map_or_else(|| target.brokers.clone(), Far::brokers),
            ..target.clone()
        }
    }

    /// A new group on a topic that is there.
    pub(crate) fn full(&mut self, contents: Contents) -> Target {
        self.made += 1;
        Target {
            group: format!("group-{}", self.made),
            ..self.target(&contents.topic())
        }
    }

    /// A new group on a new topic.
    pub(crate) async fn empty(&mut self, partitions: i32) -> Result<Target> {
        self.made += 1;
        let target = Target {
            group: format!("group-{}", self.made),
            ..self.target(&format!("topic-{}", self.made))
        };
        self.create(&target.topic, partitions).await?;
        Ok(target)
    }

    async fn create(&self, name: &str, partitions: i32) -> Result<()> {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1))
            // What is deleted makes room for the next round.
            .set("file.delete.delay.ms", "1000");
        let made = self
            .admin
            .create_topics(&[topic], &AdminOptions::new())
            .await?;
        for each in made {
            each.map_err(|(topic, code)| format!("{topic}: {code}"))?;
        }
        // The response is the controller's; the broker learns of the topic a moment later.
        let begun = Instant::now();
        while !self.is_led(name, partitions)? {
            if begun.elapsed() > TIMEOUT {
                return Err(format!("{name} has no leaders after {TIMEOUT:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn is_led(&self, topic: &str, partitions: i32) -> Result<bool> {
        let asked = self.admin.inner().fetch_metadata(Some(topic), TIMEOUT)?;
        let found = asked.topics().first().ok_or("no topic in the response")?;
        let led = found.partitions().iter().filter(|each| each.leader() >= 0);
        Ok(led.count() == usize::try_from(partitions)?)
    }

    pub(crate) async fn delete(&self, target: &Target) -> Result<()> {
        let deleted = self
            .admin
            .delete_topics(&[&target.topic], &AdminOptions::new())
            .await?;
        for each in deleted {
            each.map_err(|(topic, code)| format!("{topic}: {code}"))?;
        }
        Ok(())
    }

    /// Makes the topic that [`full`](Self::full) reads.
    pub(crate) async fn fill(&self, contents: Contents) -> Result<()> {
        let target = self.target(&contents.topic());
        self.create(&target.topic, PARTITIONS).await?;
        let fill = move || -> Result<(), KafkaError> {
            let producer: ThreadedProducer<_> = raw::producer(&target, 50).create()?;
            let payload = vec![b'x'; contents.bytes];
            let keys = keys().collect::<Vec<_>>();
            for key in keys.iter().cycle().take(contents.records) {
                let mut record = BaseRecord::to(&target.topic).key(key).payload(&payload);
                while let Err((error, again)) = producer.send(record) {
                    if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                        return Err(error);
                    }
                    std::thread::sleep(Duration::from_millis(1));
                    record = again;
                }
            }
            producer.flush(Duration::from_secs(60))
        };
        Ok(tokio::task::spawn_blocking(fill).await??)
    }
}
