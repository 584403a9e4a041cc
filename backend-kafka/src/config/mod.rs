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
/// Every key has a default. A key that does not exist is an error that lists the ones that do. How
/// to encrypt and to log in is shown at [`Security`].
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
    /// Some brokers of the cluster, each `host:port`; the others are found by them. At least one;
    /// default `127.0.0.1:9092`.
    pub brokers: Vec<String>,
    /// What brokers show of this client in logs, quotas and group listings. A member with a name of
    /// its own appends it: `client_id.member`. Default `millstream`.
    pub client_id: String,
    /// Encryption and login. Default none.
    pub security: Security,
    /// Consuming.
    pub consumer: Consumer,
    /// Sending.
    pub producer: Producer,
    /// Creating topics.
    pub topics: Topics,
    /// How long one request of administration, of opening or of joining may take, repeats included. Also how
    /// long all brokers may refuse the login of a member before it ends.
    /// 1 s to 10 minutes, default 30 s.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// How often members and producers look at librdkafka's statistics, for the lag of partitions of
    /// which no records come and for the events `millstream.kafka.broker.*` and
    /// `millstream.kafka.client.statistics`. 100 ms to 1 day, default 5 s; `0s` is never.
    #[serde(with = "humantime_serde")]
    pub statistics_interval: Duration,
    /// Settings of [librdkafka] by its own names, for what has no key here. Those that the SDK owns
    /// are refused with the reason, as are unknown ones. They are no place for secrets: `Debug` shows
    /// them. Default none.
    ///
    /// [librdkafka]: https://github.com/confluentinc/librdkafka/blob/v2.12.1/CONFIGURATION.md
    pub librdkafka: BTreeMap<String, String>,
}

/// How members consume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Consumer {
    /// Who assigns partitions. Default `cooperative`.
    pub protocol: Protocol,
    /// A name for a member that stays over its restarts (static membership): within the session
    /// timeout a member of the same name takes its partitions back without a rebalance, and `close`
    /// hands nothing over. Unique among the members of a group: of two at once, one ends with
    /// `Invalid` or `Fenced`. With `protocol = "consumer"` it is the second, for the broker keeps the
    /// name of a member that did not close until its session is over; joining waits for that, up to
    /// 70 s. Default unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// How long a silent member keeps its partitions. 1 s to 1 hour, and the broker bounds it again
    /// (6 s to 30 minutes unless set otherwise there). With `protocol = "consumer"` the broker's own
    /// setting counts. Default 45 s.
    ///
    /// When the coordinator of the group dies, no member can show that it lives until the cluster has
    /// noticed (`broker.session.timeout.ms`, 9 s by default) and another broker has loaded the group. A
    /// shorter session is then over for all members at once, without a drain.
    #[serde(with = "humantime_serde")]
    pub session_timeout: Duration,
    /// How often a member shows that it lives, and how soon it hears of a rebalance. 10 ms to a third
    /// of the session timeout. With `protocol = "consumer"` the broker's own setting counts. By
    /// default 1 s, or a third of the session timeout where that is less.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub heartbeat_interval: Option<Duration>,
    /// How long a member that keeps other partitions may drain those that a rebalance takes away, if its
    /// group's [`drain_timeout`](millstream_core::ConsumerGroup::drain_timeout) is longer. 0 to 1 day, default
    /// 3 s.
    ///
    /// Records of the partitions that it keeps are not fetched meanwhile: librdkafka stops until a rebalance
    /// is answered. So a key whose handler hangs delays all others of the member for as long.
    #[serde(with = "humantime_serde")]
    pub rebalance_drain_timeout: Duration,
}

impl Consumer {
    /// The interval that is set, or the default one.
    pub(crate) fn heartbeat_interval(&self) -> Duration {
        let default = Duration::from_secs(1).min(self.session_timeout / 3);
        self.heartbeat_interval.unwrap_or(default)
    }
}

/// Who assigns partitions to members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Protocol {
    /// The members themselves, with the cooperative-sticky assignor: only partitions that move stand
    /// still. All brokers know it.
    #[default]
    Cooperative,
    /// The broker (KIP-848): Apache Kafka 4.0 and later.
    Consumer,
}

/// How records are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Producer {
    /// How long a record waits for others that share its request. 0 to 15 minutes, default 5 ms.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// How long a record is tried before its receipt answers `Timeout`. 1 s to 1 day, default 2
    /// minutes. The time begins anew when the record goes out, so where it first waits for others of
    /// its partition to be answered, it may be up to twice as long. Where a client of librdkafka must be
    /// replaced meanwhile, up to 15 s are added in which the broker may still store what it has.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How batches are compressed. Default `none`.
    pub compression: Compression,
    /// Whether records with a key wait as long as a request of their partition has no response and the broker takes
    /// longer to respond than records linger. Default `true`; without `linger` they never wait.
    ///
    /// An idempotent client of librdkafka (2.12) has one request of a partition in flight at a time, and keeps a
    /// core busy while more records wait behind it. Turn it off where the rate to a distant broker matters more
    /// than processor time.
    pub throttle_in_flight: bool,
}

/// How batches of records are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// By gzip.
    Gzip,
    /// By snappy.
    Snappy,
    /// By LZ4.
    Lz4,
    /// By Zstandard.
    Zstd,
}

impl Compression {
    /// Returns librdkafka's name for it.
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

/// How topics are created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Topics {
    /// How many brokers hold each partition. 1 to 32,767; default unset: as the cluster says.
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
    /// Connects: asks the cluster who it is, so that a wrong address or a refused login is told
    /// here.
    ///
    /// # Errors
    /// `Invalid` for a setting that cannot be used, `Unauthenticated` for a refused login,
    /// `Unavailable` if no broker answers within `request_timeout`, `Throttled` if the brokers refuse more
    /// connections for that long.
    ///
    /// # Cancellation
    /// A dropped call leaves nothing behind.
    pub async fn connect(self) -> Result<Client> {
        Ok(Client::new(Kafka::connect(self).await?))
    }
}
