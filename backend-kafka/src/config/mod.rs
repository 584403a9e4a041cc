//! The settings of a connection.

pub(crate) mod passthrough;
#[cfg(test)]
mod readme;
mod sasl_table;
mod secret;
mod security;
#[cfg(test)]
mod tests;
mod validate;

pub use secret::Secret;
pub use security::{Credentials, MskIam, Sasl, Security, Tls};
#[cfg(not(feature = "msk-iam"))]
pub(crate) use validate::NO_MSK_IAM;

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_core::{Client, Result};
use serde::{Deserialize, Serialize};

use crate::Kafka;

/// The settings of a connection to Kafka, for TOML, environment or code.
///
/// Every key has a default. An unknown key is an error that lists the known ones. For encryption and login see
/// [`Security`].
///
/// ```
/// let config: millstream_kafka::Config = toml::from_str(r#"
///     brokers = ["kafka-1.example.com:9092", "kafka-2.example.com:9092"]
///     client_id = "notifications"
///     consumer = { session_timeout = "20s", heartbeat_interval = "1s" }
///     producer = { linger = "10ms", compression = "zstd" }
///     librdkafka = { "client.rack" = "eu-west-1a" }
/// "#)?;
/// assert_eq!(config.brokers.len(), 2);
/// # Ok::<_, toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// Some brokers of the cluster, each `host:port`. The other brokers are found through them. At least one;
    /// default `127.0.0.1:9092`.
    pub brokers: Vec<String>,
    /// The client id that brokers show in logs, quotas and group listings. A member with a name of its own appends
    /// it: `client_id.member`. Default `millstream`.
    pub client_id: String,
    /// Encryption and login. Default none.
    pub security: Security,
    /// Settings of consumers.
    pub consumer: Consumer,
    /// Settings of producers.
    pub producer: Producer,
    /// Settings of topic creation.
    pub topics: Topics,
    /// The timeout of one administrative request, of opening and of joining, including retries. Also how long all
    /// brokers may refuse the login of a member before it ends.
    /// 1 s to 10 minutes, default 30 s.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// How often members and producers read librdkafka's statistics. They supply the lag of partitions without new
    /// records, and the events `millstream.kafka.broker.*` and
    /// `millstream.kafka.client.statistics`. 100 ms to 1 day, default 5 s; `0s` is never.
    #[serde(with = "humantime_serde")]
    pub statistics_interval: Duration,
    /// Settings of [librdkafka] by its own names, for settings that have no key here. Settings that the SDK owns
    /// are refused with the reason, and so are unknown ones. Secrets do not belong here: `Debug` shows the
    /// values. Default none.
    ///
    /// [librdkafka]: https://github.com/confluentinc/librdkafka/blob/v2.12.1/CONFIGURATION.md
    pub librdkafka: BTreeMap<String, String>,
}

/// The settings of consumers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Consumer {
    /// The group protocol, which decides who assigns partitions. Default `cooperative`.
    pub protocol: Protocol,
    /// The static id of a member that is kept across restarts (static membership): within the session timeout, a member
    /// with the same id takes back its partitions without a rebalance, and `close` hands nothing over. Must be unique
    /// among the members of a group: if two members have the same id at once, one ends with `Invalid` or `Fenced`.
    /// With `protocol = "consumer"` it is the second one, because the broker keeps the id of a member that did not
    /// close until its session is over. Joining waits for that, up to 70 s. Default unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// How long a silent member keeps its partitions. 1 s to 1 hour. The broker has its own limits
    /// (6 s to 30 minutes unless configured otherwise). With `protocol = "consumer"` the broker's own
    /// setting applies. Default 45 s.
    ///
    /// When the coordinator of the group dies, no member can send heartbeats until the cluster has
    /// noticed (`broker.session.timeout.ms`, 9 s by default) and another broker has loaded the group. A
    /// shorter session then expires for all members at once, without a drain.
    #[serde(with = "humantime_serde")]
    pub session_timeout: Duration,
    /// How often a member sends a heartbeat, and so how soon it learns of a rebalance. 10 ms to a third
    /// of the session timeout. With `protocol = "consumer"` the broker's own setting applies. By
    /// default 1 s, or a third of the session timeout if that is less.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub heartbeat_interval: Option<Duration>,
    /// How long a member that keeps other partitions may drain the partitions that a rebalance revokes, if its
    /// group's [`drain_timeout`](millstream_core::ConsumerGroup::drain_timeout) is longer. 0 to 1 day, default
    /// 3 s.
    ///
    /// During the drain no records are fetched for the partitions that it keeps: librdkafka stops until a rebalance
    /// is acknowledged. So a key whose handler hangs delays all others of the member for this long.
    #[serde(with = "humantime_serde")]
    pub rebalance_drain_timeout: Duration,
}

impl Consumer {
    /// Returns the configured interval, or the default one.
    pub(crate) fn heartbeat_interval(&self) -> Duration {
        let default = Duration::from_secs(1).min(self.session_timeout / 3);
        self.heartbeat_interval.unwrap_or(default)
    }
}

/// The group protocol: who assigns partitions to members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Protocol {
    /// The members themselves, with the cooperative-sticky assignor: only partitions that move are interrupted. All
    /// brokers support it.
    #[default]
    Cooperative,
    /// The broker (KIP-848): Apache Kafka 4.0 and later.
    Consumer,
}

/// The settings of producers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Producer {
    /// How long a record waits for others that share its request. 0 to 15 minutes, default 5 ms.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// How long sending a record is retried before its receipt returns `Timeout`. 1 s to 1 day, default 2
    /// minutes. The time starts again when the record is handed to librdkafka. So if it first waits for responses to
    /// earlier records of its partition, it may take up to twice as long. If a librdkafka client must be
    /// replaced during that time, up to 15 s are added in which the broker may still store the records that it has.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How batches are compressed. Default `none`.
    pub compression: Compression,
    /// Whether records with a key wait while a request of their partition has no response, if the broker takes longer
    /// to respond than records linger. Default `true`; without `linger` they never wait.
    ///
    /// An idempotent client of librdkafka (2.12) has one request of a partition in flight at a time, and keeps a
    /// core busy while more records wait behind it. Turn it off if the throughput to a distant broker matters more
    /// than CPU time.
    pub throttle_in_flight: bool,
}

/// How batches of records are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Compression {
    /// No compression.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Returns librdkafka's name of the codec.
    pub(crate) fn codec(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// The settings of topic creation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Topics {
    /// The number of brokers that hold each partition. 1 to 32,767; default unset: the cluster's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication_factor: Option<u16>,
    /// Settings of new topics by Kafka's own names (`retention.ms`). Default none.
    pub config: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            brokers: vec!["127.0.0.1:9092".into()],
            client_id: "millstream".into(),
            security: Security::default(),
            consumer: Consumer::default(),
            producer: Producer::default(),
            topics: Topics::default(),
            request_timeout: Duration::from_secs(30),
            statistics_interval: Duration::from_secs(5),
            librdkafka: BTreeMap::new(),
        }
    }
}

impl Default for Consumer {
    fn default() -> Self {
        Self {
            protocol: Protocol::default(),
            instance_id: None,
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: None,
            rebalance_drain_timeout: Duration::from_secs(3),
        }
    }
}

impl Default for Producer {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(5),
            timeout: Duration::from_secs(120),
            compression: Compression::default(),
            throttle_in_flight: true,
        }
    }
}

impl Config {
    /// Connects. Requests the cluster id, so that a wrong address or a refused login is reported
    /// here.
    ///
    /// # Errors
    /// `Invalid` for a setting that cannot be used, `Unauthenticated` for a refused login,
    /// `Unavailable` if no broker responds within `request_timeout`, `Throttled` if the brokers refuse more
    /// connections for that long.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind.
    pub async fn connect(self) -> Result<Client> {
        Ok(Client::new(Kafka::connect(self).await?))
    }
}
