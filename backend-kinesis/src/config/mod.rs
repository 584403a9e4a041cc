//! The settings of a connection.

#[cfg(test)]
mod readme;
mod secret;
#[cfg(test)]
mod tests;
mod validate;

pub use secret::Secret;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use millstream_core::{Client, Result};
use serde::{Deserialize, Serialize};

use crate::Kinesis;

/// The settings of a connection to Amazon Kinesis, for TOML, environment or code.
///
/// Every key has a default. An unknown key is an error that lists the known ones. Region and credentials come from the
/// sources that every AWS tool uses (environment, profile, container, instance), unless they are set here.
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
    /// The AWS region. Default unset: from the environment or the profile. Streams that are named by their ARNs must be
    /// in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The profile of the shared AWS configuration files. Default unset: from the environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Static credentials. Default unset: the default chain of the AWS SDK, which is right
    /// for a service. This setting is for emulators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// The endpoint of Kinesis, for example of an emulator: `http://127.0.0.1:4567`. Default unset: the
    /// region's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The endpoint of DynamoDB, which stores the leases. Default unset: the region's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamodb_endpoint: Option<String>,
    /// A file of PEM certificates of authorities that are trusted in addition to those of the system, for connections
    /// to Kinesis and DynamoDB. Default unset: the file that `AWS_CA_BUNDLE` names, if set. Providers of credentials use
    /// the system's alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The name of this client in the logs of AWS, as the application in the user agent. 1 to 50 of
    /// `A-Z a-z 0-9 . _ -`, default `millstream`. A member with a name of its own appends it.
    pub client_id: String,
    /// The settings of consumers.
    pub consumer: Consumer,
    /// The settings of producers.
    pub producer: Producer,
    /// The settings of the lease table.
    pub leases: Leases,
    /// The settings for creating streams.
    pub streams: Streams,
    /// The timeout of one administration call, of opening or of joining, including retries.
    /// 1 s to 10 minutes, default 30 s.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
}

/// Static AWS credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The ID of the access key.
    pub access_key_id: String,
    /// The secret of the access key.
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
    /// Enhanced fan-out: whether a member that is refused polls instead, with a warning: it has no permission to register or
    /// to subscribe, the stream has 20 consumers already, or the registration is throttled for `request_timeout`. It
    /// registers again every 3 to 5 minutes until it can subscribe. Default false: the member ends with the error.
    pub fan_out_fallback: bool,
    /// Polling: the minimum time between two requests to a shard that has no more records. 200 ms to 1 minute,
    /// default 1 s. A shard allows 5 requests per second for all groups together.
    #[serde(with = "humantime_serde")]
    pub poll_interval: Duration,
    /// Polling: the maximum number of records per request. 1 to 10,000, default 10,000.
    pub poll_records: usize,
    /// How long a member that renews no lease keeps its leases (KCL: `failoverTimeMillis`). Must be the same for all
    /// members of a group, including Java workers. 1 s to 1 hour, default 10 s.
    #[serde(with = "humantime_serde")]
    pub session_timeout: Duration,
    /// How long a request may make no progress. It then fails, its connections are closed, and the next request for records
    /// requests fewer. 1 s to 1 minute, default 10 s.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// Which records of an aggregate are delivered whose writer is not the Kinesis Producer Library. Default `deliver`.
    pub foreign_aggregates: ForeignAggregates,
}

/// Which records of an aggregate are delivered whose writer is not the Kinesis Producer Library (KPL).
///
/// The KPL and this crate send records again that came to the wrong shard with an aggregate, so those are left out. Other
/// writers (fluent-bit, Lambda functions) place aggregates anywhere, and send nothing again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ForeignAggregates {
    /// All of them.
    #[default]
    Deliver,
    /// Those whose hash keys belong to the shard, as with the KCL. The others are never delivered. An aggregate of one
    /// record is delivered, and so is every aggregate in a shard to which neither its partition key nor its first record
    /// leads: it was not placed by a hash key.
    Filter,
}

/// How records are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Retrieval {
    /// `GetRecords`: 2 MB/s and 5 requests per second for a shard, shared by all groups.
    #[default]
    Polling,
    /// Enhanced fan-out, `SubscribeToShard`: 2 MB/s per shard for this group alone, pushed. AWS
    /// charges for it.
    FanOut,
}

/// How records are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Producer {
    /// Whether several records share one Kinesis record. Default `off`.
    pub aggregation: Aggregation,
    /// Aggregation: the size from which a Kinesis record does not wait for more records. 1 KiB to the stream's
    /// maximum record size, default 51,200 bytes, as in the KPL. If more records are waiting, a Kinesis record
    /// may be as large as what its shard accepts in the latency of a request, up to 1 MiB.
    pub aggregate_bytes: usize,
    /// How headers, timestamps and missing keys are sent without aggregation. Default `envelope`.
    pub headers: HeaderPolicy,
    /// The name of a header that decides the shard of a record, in place of its key. Its value is
    /// an explicit hash key, a decimal number of 0 to 2<sup>128</sup> - 1. It is removed from the record.
    /// A record without the header is sent by its key. Records of one key with different hash keys have
    /// no order among each other. Default unset: no header is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explicit_hash_key_header: Option<String>,
    /// How long a record waits for other records of the same request. 0 to 1 minute, default 20 ms.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// How long a record is retried before its receipt fails with `Timeout`. 1 s to 1 day, default 2
    /// minutes.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How long a request may make no progress. It is then sent again, with fewer records, on a new connection. Later records
    /// of the same keys wait for it. 1 s to 1 minute, default 6 s, as in the KPL.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// The fraction of a shard's limits (1 MB/s and 1,000 records/s) that this producer uses. Several
    /// producers of one stream share its limits: give each a fraction. Above 0 to 10, default 1.
    pub rate: Rate,
    /// The maximum number of requests in flight. 1 to 1,000, default 24.
    pub requests: usize,
}

/// A fraction of a limit, in thousandths; written as a number such as `0.5`.
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

/// Whether several records share one Kinesis record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Aggregation {
    /// Each record is one Kinesis record with an unchanged payload: readable by Lambda, Firehose and all
    /// others.
    #[default]
    Off,
    /// The format of the Kinesis Producer Library, which the KCL and the AWS deaggregation libraries
    /// read. Many times the records per second.
    Kpl,
}

/// How data is sent that a bare Kinesis record cannot represent: headers, and an explicit timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HeaderPolicy {
    /// A record with such data is sent as an aggregate of one; other records stay bare.
    #[default]
    Envelope,
    /// A record with such data is rejected with `Invalid`.
    Refuse,
}

/// The settings of the lease table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Leases {
    /// The table's name; `{group}` in it is replaced by the group's name. 3 to 255 of `A-Z a-z 0-9 . _ -`.
    /// Default `{group}`, as in the KCL.
    pub table: String,
    /// Whether the first member creates a missing table, with on-demand billing. Default true. If
    /// false, create one with the partition key `leaseKey`, a string.
    pub create: bool,
    /// The AWS region of the table. Default unset: that of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The profile of the shared AWS configuration files whose credentials are used for the table, and no others, whatever
    /// the environment has. Default unset: those of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The ARN of a role that is assumed for the table, `arn:aws:iam::ACCOUNT:role/NAME`, with the credentials of
    /// `profile`, if that is set, or those of the connection. Default unset: no role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    /// The format of lease keys. Default `auto`.
    pub keys: LeaseKeys,
    /// The maximum number of leases of one member. At least 1, default unset: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_per_member: Option<usize>,
    /// The interval between two scans of the lease table while other members share it and nothing happens. It bounds
    /// how much later than possible a member detects that another one has died. Other changes are signalled between
    /// members. 100 ms to 1 minute, default unset: two thirds of `session_timeout`, which is also the maximum.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub scan_interval: Option<Duration>,
    /// The interval between two audits by the leader for shards without a lease. 1 s to 1 hour, default 2
    /// minutes.
    #[serde(with = "humantime_serde")]
    pub audit_interval: Duration,
    /// Whether leases of shards at shard end are deleted once their children have
    /// begun. Default true.
    pub cleanup: bool,
}

/// The format of lease keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LeaseKeys {
    /// Each stream keeps the format that its leases have. New leases of a group of one stream have `single`, and of
    /// further streams `multi`, so that streams can be added to a group and removed.
    #[default]
    Auto,
    /// The shard ID alone, as in the KCL for one stream.
    Single,
    /// `account:stream:creation:shard`, as in the KCL for several streams.
    Multi,
}

/// The settings for creating streams.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Streams {
    /// The capacity mode. Default `provisioned`, with the requested number of shards.
    pub mode: StreamMode,
    /// Tags of new streams. Default none.
    pub tags: BTreeMap<String, String>,
}

/// Decides the number of shards of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StreamMode {
    /// The user who creates and reshards it.
    #[default]
    Provisioned,
    /// Kinesis, by the load. A stream begins with 4 shards, regardless of the requested number.
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
            ca_file: None,
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
            foreign_aggregates: ForeignAggregates::default(),
            poll_interval: Duration::from_secs(1),
            poll_records: 10_000,
            session_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
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
            request_timeout: Duration::from_secs(6),
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
            region: None,
            profile: None,
            role_arn: None,
            keys: LeaseKeys::default(),
            max_per_member: None,
            scan_interval: None,
            audit_interval: Duration::from_secs(120),
            cleanup: true,
        }
    }
}

impl Leases {
    /// Returns whether the table has credentials of its own.
    pub(crate) fn has_credentials(&self) -> bool {
        self.profile.is_some() || self.role_arn.is_some()
    }
}

impl Config {
    /// Connects. Loads the region and the credentials, and sends no request to Kinesis: a wrong address or refused
    /// credentials are reported by the first call that needs it.
    ///
    /// # Errors
    /// `Invalid` for a setting that cannot be used, `Unauthenticated` without credentials, `Unavailable` if their
    /// provider does not respond within `request_timeout`.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind.
    pub async fn connect(self) -> Result<Client> {
        Ok(Client::new(Kinesis::connect(self).await?))
    }
}
