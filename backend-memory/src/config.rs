//! The settings of a broker.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use millstream_core::{Client, Result};
use serde::{Deserialize, Serialize};

use crate::Memory;
use crate::error::BrokerError;

/// The settings of a memory broker, for TOML, environment or code.
///
/// Every key has a default. An unknown key is an error that lists the valid ones.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> millstream_core::Result<()> {
/// let mut config = millstream_memory::Config::default();
/// config.limits.records_per_second = Some(1_000);
/// let client = config.connect().await?;
/// assert_eq!(client.backend(), "memory");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// The name of a broker to share within the process: settings with the same name connect to the
    /// same broker, which lives as long as a client or handle of it. Different settings with the same
    /// name are `Invalid`. At least 1 byte. Default: unset, each connection creates a broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The broker whose limits are imitated. Default: unset, only this backend's own limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub like: Option<Imitation>,
    /// The number of partitions of a stream that is created when a producer opens it or a member joins.
    /// 1 to 100,000. Default: unset, an unknown stream is `NotFound`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_create_partitions: Option<usize>,
    /// How long a member without heartbeats keeps its partitions. 1 ms to 1 day, default 10 s.
    #[serde(with = "humantime_serde")]
    pub session_timeout: Duration,
    /// The retention of partitions. Default: everything is retained.
    pub retention: Retention,
    /// The limits of streams.
    pub limits: Limits,
    /// The folder in which streams, records, groups and checkpoints are stored. The file in it grows
    /// with every change: retention frees memory, not the file. Default: unset, nothing is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persist: Option<PathBuf>,
    /// Whether each write to the folder of `persist` waits for the disk (`fsync`). Without it,
    /// acknowledged records survive the end of the process, but may not survive a power failure.
    /// Default: false.
    pub sync: bool,
    /// The seed of random faults. Default: 0.
    pub seed: u64,
    /// The initial time of the broker, for reproducible runs: the ids of its streams
    /// ([`Delivery::stream_id`](millstream_core::Delivery::stream_id)) then depend on this and on
    /// `seed` only. Default: unset, the wall clock, and ids that no other broker has.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub start_time: Option<SystemTime>,
}

/// The retention of a partition. Records beyond a bound are removed, whether they were read or not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Retention {
    /// How long a record is retained after it was stored. 1 ms to 10,000 days. Default: unset, no
    /// limit.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub age: Option<Duration>,
    /// The bytes ([`Record::size`](millstream_core::Record::size)) retained in a partition. The
    /// newest record is always retained. At least 1. Default: unset, no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// A broker whose limits are imitated, so that tests on memory reject what that broker rejects.
///
/// | | unset | `kafka` | `kinesis` |
/// |---|---|---|---|
/// | largest record ([`Limits::record_bytes`]) | 1 MiB | 999,964 bytes | 1 MiB |
/// | its size | [`Record::size`] | plus the encoded lengths of header names and values | as stored: with its partition key, and an envelope if it has headers or a timestamp, or is a tombstone |
/// | keys ([`Limits::key_bytes`]) | 256 bytes | as large as a record | UTF-8 of 1 to 256 UTF-16 code units, not starting with `millstream:-:` |
/// | header names | any | without NUL | not starting with NUL |
/// | timestamps | any | 1970-01-01T00:00:00.001Z or later | any |
/// | records and bytes in a batch | 10,000; 16 MiB | 1,000; 1 MiB | 100; 5 MiB |
/// | stream names | 249 bytes | 249 bytes | 128 bytes |
/// | split and merge | yes | `Unsupported` | yes |
/// | add partitions | yes | yes | `Unsupported` |
/// | [`Guarantees`] | all | without `ordered_reshard` | without `exactly_once` and `add_partitions` |
///
/// A record that is too large is `TooLarge`. A key, header name, timestamp or stream name that is
/// not accepted is `Invalid`. `durable` is that of this backend. The limits are those of the backends'
/// default settings on a topic or stream with default settings.
///
/// Not imitated: rates ([`Limits::records_per_second`], [`Limits::bytes_per_second`]), latency,
/// positions, and the assignment of partitions.
///
/// [`Record::size`]: millstream_core::Record::size
/// [`Guarantees`]: millstream_core::Guarantees
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Imitation {
    /// Apache Kafka, as `millstream-kafka` uses it.
    Kafka,
    /// Amazon Kinesis, as `millstream-kinesis` uses it.
    Kinesis,
}

/// The limits of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// The maximum size of a record in bytes, with key and headers. 1 to 1 GiB. Default: 1 MiB, or that of
    /// the imitated broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_bytes: Option<usize>,
    /// The maximum size of a key in bytes. 1 to 1 GiB. Default: 256, or that of the imitated broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_bytes: Option<usize>,
    /// Records per second and partition; more are rejected with `Throttled`. At least 1. Default:
    /// unset, no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_per_second: Option<u64>,
    /// Bytes per second and partition; more are rejected with `Throttled`. At least 1. Default: unset,
    /// no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: None,
            like: None,
            auto_create_partitions: None,
            session_timeout: Duration::from_secs(10),
            retention: Retention::default(),
            limits: Limits::default(),
            persist: None,
            sync: false,
            seed: 0,
            start_time: None,
        }
    }
}

impl Config {
    /// Creates a broker, or finds the one with this [`name`](Self::name), and returns a client of it.
    ///
    /// To inject faults, create a [`Memory`].
    ///
    /// # Errors
    /// As [`Memory::new`].
    ///
    /// # Cancel safety
    /// Never waits.
    pub async fn connect(self) -> Result<Client> {
        Ok(Memory::new(self)?.client())
    }

    pub(crate) fn validate(&self) -> Result<(), BrokerError> {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        const MILLI: Duration = Duration::from_millis(1);
        const GIB: usize = 1 << 30;
        if let Some(partitions) = self.auto_create_partitions {
            within("auto_create_partitions", partitions, 1, 100_000)?;
        }
        duration(
            "session_timeout",
            self.session_timeout,
            MILLI,
            DAY,
            "1ms to 1day",
        )?;
        if let Some(age) = self.retention.age {
            duration(
                "retention.age",
                age,
                MILLI,
                10_000 * DAY,
                "1ms to 10000days",
            )?;
        }
        if let Some(bytes) = self.limits.record_bytes {
            within("limits.record_bytes", bytes, 1, GIB)?;
        }
        if let Some(bytes) = self.limits.key_bytes {
            within("limits.key_bytes", bytes, 1, GIB)?;
        }
        if self.name.as_ref().is_some_and(String::is_empty) {
            return invalid("name is empty, use at least 1 byte or leave it out".into());
        }
        positive("retention.bytes", self.retention.bytes)?;
        positive("limits.records_per_second", self.limits.records_per_second)?;
        positive("limits.bytes_per_second", self.limits.bytes_per_second)?;
        if self
            .persist
            .as_ref()
            .is_some_and(|folder| folder.as_os_str().is_empty())
        {
            return invalid("persist is empty, name a folder or leave it out".into());
        }
        if self.sync && self.persist.is_none() {
            return invalid("sync is set without persist, name a folder in persist".into());
        }
        Ok(())
    }
}

fn within(key: &str, value: usize, least: usize, most: usize) -> Result<(), BrokerError> {
    match (least..=most).contains(&value) {
        true => Ok(()),
        false => invalid(format!("{key} is {value}, use {least} to {most}")),
    }
}

fn positive(key: &str, value: Option<u64>) -> Result<(), BrokerError> {
    match value {
        Some(0) => invalid(format!("{key} is 0, use at least 1 or leave it out")),
        _ => Ok(()),
    }
}

fn duration(
    key: &str,
    value: Duration,
    least: Duration,
    most: Duration,
    range: &str,
) -> Result<(), BrokerError> {
    match (least..=most).contains(&value) {
        true => Ok(()),
        false => invalid(format!("{key} is {value:?}, use {range}")),
    }
}

fn invalid(reason: String) -> Result<(), BrokerError> {
    Err(BrokerError::Setting(reason))
}

#[cfg(test)]
mod tests {
    use millstream_core::ErrorKind;

    use super::*;

    #[test]
    fn reads_toml_and_keeps_defaults() {
        let config: Config = toml::from_str(
            "name = 'shared'\nlike = 'kafka'\nsession_timeout = '2s'\nstart_time = '2024-01-01T00:00:00Z'\n\
             [retention]\nage = '1h'\n[limits]\nkey_bytes = 64",
        )
        .unwrap();
        assert_eq!(config.session_timeout, Duration::from_secs(2));
        assert_eq!(config.name.as_deref(), Some("shared"));
        assert_eq!(config.like, Some(Imitation::Kafka));
        assert_eq!(config.retention.age, Some(Duration::from_secs(3600)));
        assert_eq!(config.limits.key_bytes, Some(64));
        assert_eq!(config.limits.record_bytes, None);
        let again: Config = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn an_unknown_key_lists_the_valid_ones() {
        let error = toml::from_str::<Config>("sesion_timeout = '2s'")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`sesion_timeout`") && error.contains("`session_timeout`"),
            "{error}"
        );
        let error = toml::from_str::<Config>("[limits]\nrecordbytes = 1")
            .unwrap_err()
            .to_string();
        assert!(error.contains("`record_bytes`"), "{error}");
    }

    #[test]
    fn an_invalid_value_names_its_key() {
        let with = |set: fn(&mut Config)| {
            let mut config = Config::default();
            set(&mut config);
            config
        };
        let table: [(&str, Config); 12] = [
            ("name", with(|c| c.name = Some(String::new()))),
            (
                "auto_create_partitions",
                with(|c| c.auto_create_partitions = Some(0)),
            ),
            (
                "session_timeout",
                with(|c| c.session_timeout = Duration::ZERO),
            ),
            (
                "session_timeout",
                with(|c| c.session_timeout = Duration::MAX),
            ),
            (
                "retention.age",
                with(|c| c.retention.age = Some(Duration::ZERO)),
            ),
            ("retention.bytes", with(|c| c.retention.bytes = Some(0))),
            (
                "limits.record_bytes",
                with(|c| c.limits.record_bytes = Some(0)),
            ),
            ("limits.key_bytes", with(|c| c.limits.key_bytes = Some(0))),
            (
                "limits.records_per_second",
                with(|c| c.limits.records_per_second = Some(0)),
            ),
            (
                "limits.bytes_per_second",
                with(|c| c.limits.bytes_per_second = Some(0)),
            ),
            ("persist", with(|c| c.persist = Some("".into()))),
            ("sync", with(|c| c.sync = true)),
        ];
        for (key, config) in table {
            let error = Memory::new(config).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().starts_with(key), "{error}");
        }
    }
}
