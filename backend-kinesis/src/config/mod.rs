//! The settings of a connection.

#[cfg(test)]
mod readme;
mod secret;
#[cfg(test)]
mod tests;
mod validate;

pub use secret::Secret;

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_core::{Client, Result};
use serde::{Deserialize, Serialize};

use crate::Kinesis;

/// The settings of a connection to Amazon Kinesis, for TOML, environment or code.
///
/// Every key has a default. A key that does not exist is an error that lists the ones that do.
/// Region and credentials come from where every AWS tool takes them (environment, profile,
/// container, instance), unless they are given here.
///
/// ```
/// let config: millstream_kinesis::Config = toml::from_str(r#"
///     region = "eu-central-1"
///     producer = { aggregation = "kpl", linger = "50ms" }
///     consumer = { retrieval = "fan-out", session_timeout = "10s" }
///     leases = { table = "notifications-leases" }
/// "#)?;
/// assert_eq!(config.region.as_deref(), Some("eu-central-1"));
/// # Ok::<_, toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// The AWS region. Default unset: from the environment or the profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The profile of the shared AWS configuration files. Default unset: as the environment says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Credentials that do not change. Default unset: the usual chain of the AWS SDK, which is what
    /// a service wants; this is for emulators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// Another address for Kinesis, say an emulator: `http://127.0.0.1:4567`. Default unset: the
    /// region's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Another address for DynamoDB, which holds the leases. Default unset: the region's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamodb_endpoint: Option<String>,
    /// What AWS shows of this client in its logs, as the application of the user agent. 1 to 50 of
    /// `A-Z a-z 0-9 . _ -`, default `millstream`. A member with a name of its own appends it.
    pub client_id: String,
    /// Consuming.
    pub consumer: Consumer,
    /// Sending.
    pub producer: Producer,
    /// The table of leases.
    pub leases: Leases,
    /// Creating streams.
    pub streams: Streams,
    /// How long one call of administration, of opening or of joining may take, repeats included.
    /// 1 s to 10 minutes, default 30 s.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
}

/// Credentials of AWS that do not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The access key's id.
    pub access_key_id: String,
    /// The access key's secret.
    pub secret_access_key: Secret,
    /// The token of temporary credentials. Default unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<Secret>,
}

/// How members consume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Consumer {
    /// How records are fetched. Default `polling`.
    pub retrieval: Retrieval,
    /// Enhanced fan-out: the name under which the group registers with the stream. 1 to 128 of
    /// `A-Z a-z 0-9 . _ -`. Default unset: the group's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fan_out_name: Option<String>,
    /// Enhanced fan-out: whether a member that may not or cannot register (no permission, 20
    /// consumers of the stream already) polls instead, with a warning. Default false: it ends with
    /// the error.
    pub fan_out_fallback: bool,
    /// Polling: the least time between two requests to a shard that has no more records. 200 ms (the
    /// stream's own limit is 5 requests a second, for all groups together) to 1 minute, default
    /// 250 ms.
    #[serde(with = "humantime_serde")]
    pub poll_interval: Duration,
    /// Polling: most records of one request. 1 to 10,000, default 10,000.
    pub poll_records: usize,
    /// How long a silent member keeps its leases (KCL: `failoverTimeMillis`). The same for all
    /// members of a group, Java's too. 1 s to 1 hour, default 10 s.
    #[serde(with = "humantime_serde")]
    pub session_timeout: Duration,
}

/// How records are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Retrieval {
    /// `GetRecords`: 2 MB/s and 5 requests a second of a shard, shared by all groups.
    #[default]
    Polling,
    /// Enhanced fan-out, `SubscribeToShard`: 2 MB/s of a shard for this group alone, pushed. AWS
    /// charges for it.
    FanOut,
}

/// How records are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Producer {
    /// Whether many records share one Kinesis record. Default `off`.
    pub aggregation: Aggregation,
    /// Aggregation: how large a Kinesis record is filled. 1 KiB to the stream's largest record,
    /// default 51,200 bytes, as the KPL has it.
    pub aggregate_bytes: usize,
    /// What becomes of headers, timestamps and missing keys without aggregation. Default `envelope`.
    pub headers: HeaderPolicy,
    /// The name of a header that says to which shard a record goes, in place of its key. Its value is
    /// an explicit hash key, a decimal number of 0 to 2<sup>128</sup> - 1; it is taken off the record,
    /// and a record without it goes by its key. Records of one key that give different hash keys have
    /// no order among each other. Default unset: no header says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explicit_hash_key_header: Option<String>,
    /// How long a record waits for others that share its request. 0 to 1 minute, default 20 ms.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// How long a record is tried before its receipt answers `Timeout`. 1 s to 1 day, default 2
    /// minutes.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// The share of a shard's limits (1 MB/s and 1,000 records/s) that this producer uses. Several
    /// producers of one stream share its limits: give each its part. Above 0 to 10, default 1.
    pub rate: Rate,
    /// Most requests under way. 1 to 1,000, default 24.
    pub requests: usize,
}

/// A share of a limit, in thousandths; written as a number such as `0.5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Rate(pub(crate) u32);

impl TryFrom<f64> for Rate {
    type Error = String;

    fn try_from(rate: f64) -> Result<Self, Self::Error> {
        if (0.001..=10.0).contains(&rate) {
            return Ok(Self((rate * 1_000.0).round() as u32));
        }
        Err(format!("a rate is a number of 0.001 to 10, not {rate}"))
    }
}

impl From<Rate> for f64 {
    fn from(rate: Rate) -> Self {
        f64::from(rate.0) / 1_000.0
    }
}

/// Whether many records share one Kinesis record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Aggregation {
    /// Each record is one of Kinesis, its payload as it is: readable by Lambda, Firehose and all
    /// others.
    #[default]
    Off,
    /// The format of the Kinesis Producer Library, which the KCL and AWS's de-aggregation libraries
    /// read. Many times the records per second.
    Kpl,
}

/// What becomes of what a bare Kinesis record cannot carry: headers, and a timestamp of one's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HeaderPolicy {
    /// A record that has them is sent as an aggregate of one; records without stay bare.
    #[default]
    Envelope,
    /// A record that has them is refused with `Invalid`.
    Refuse,
}

/// The table of leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Leases {
    /// The table's name; `{group}` in it stands for the group's. 3 to 255 of `A-Z a-z 0-9 . _ -`.
    /// Default `{group}`, as the KCL has it.
    pub table: String,
    /// Whether the first member creates a missing table, with on-demand billing. Default true. If
    /// not, make one with the partition key `leaseKey`, a string.
    pub create: bool,
    /// How lease keys are written. Default `auto`.
    pub keys: LeaseKeys,
    /// Most leases that one member holds. At least 1, default unset: no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_per_member: Option<usize>,
    /// How often a member looks at the whole table while others share it and nothing happens: what it
    /// takes longer than it must to notice that one has died. Of what members do they tell each other. 100
    /// ms to 1 minute, default unset: two thirds of `session_timeout`, which is also the most.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub scan_interval: Option<Duration>,
    /// How often the members' leader looks for shards without a lease. 1 s to 1 hour, default 2
    /// minutes.
    #[serde(with = "humantime_serde")]
    pub audit_interval: Duration,
    /// Whether leases of shards that are read to their end are deleted when their children have
    /// begun. Default true.
    pub cleanup: bool,
}

/// How lease keys are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LeaseKeys {
    /// `single` for a group of one stream, `multi` for one of several.
    #[default]
    Auto,
    /// The shard's id alone, as the KCL has it for one stream.
    Single,
    /// `account:stream:creation:shard`, as the KCL has it for several.
    Multi,
}

/// How streams are created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Streams {
    /// Whether they grow by themselves. Default `provisioned`, with as many shards as asked for.
    pub mode: StreamMode,
    /// Tags of new streams. Default none.
    pub tags: BTreeMap<String, String>,
}

/// Who says how many shards a stream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StreamMode {
    /// Whoever creates and reshards it.
    #[default]
    Provisioned,
    /// Kinesis, by the load. A stream begins with 4 shards, whatever is asked for.
    OnDemand,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            region: None,
            profile: None,
            credentials: None,
            endpoint: None,
            dynamodb_endpoint: None,
            client_id: "millstream".into(),
            consumer: Consumer::default(),
            producer: Producer::default(),
            leases: Leases::default(),
            streams: Streams::default(),
            request_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for Consumer {
    fn default() -> Self {
        Self {
            retrieval: Retrieval::default(),
            fan_out_name: None,
            fan_out_fallback: false,
            poll_interval: Duration::from_millis(250),
            poll_records: 10_000,
            session_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for Producer {
    fn default() -> Self {
        Self {
            aggregation: Aggregation::default(),
            aggregate_bytes: 51_200,
            headers: HeaderPolicy::default(),
            explicit_hash_key_header: None,
            linger: Duration::from_millis(20),
            timeout: Duration::from_secs(120),
            rate: Rate(1_000),
            requests: 24,
        }
    }
}

impl Default for Leases {
    fn default() -> Self {
        Self {
            table: "{group}".into(),
            create: true,
            keys: LeaseKeys::default(),
            max_per_member: None,
            scan_interval: None,
            audit_interval: Duration::from_secs(120),
            cleanup: true,
        }
    }
}

impl Config {
    /// Connects: asks Kinesis for one name of a stream, so that a wrong address or refused
    /// credentials are told here.
    ///
    /// # Errors
    /// `Invalid` for a setting that cannot be used, `Unauthenticated` for refused credentials,
    /// `Unavailable` if Kinesis does not answer within `request_timeout`.
    ///
    /// # Cancellation
    /// A dropped call leaves nothing behind.
    pub async fn connect(self) -> Result<Client> {
        Ok(Client::new(Kinesis::connect(self).await?))
    }
}
