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
    /// Partitions of a stream that is created when a producer is opened to it or a member joins. 1
    /// to 100,000. Default: unset, an unknown stream is `NotFound`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_create_partitions: Option<usize>,
    /// How long a member without heartbeats keeps its partitions. 1 ms to 1 day, default 10 s.
    #[serde(with = "humantime_serde")]
    pub session_timeout: Duration,
    /// What partitions retain. Default: everything.
    pub retention: Retention,
    /// What streams accept.
    pub limits: Limits,
    /// The folder in which streams, records, groups and checkpoints survive. The file in it grows
    /// with every change: retention frees memory, not the file. Default: unset, nothing survives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persist: Option<PathBuf>,
    /// Whether each write to the folder of `persist` waits for the disk (`fsync`). Without it,
    /// acknowledged records survive the end of the process, but may not survive a power failure.
    /// Default: false.
    pub sync: bool,
    /// The seed of random faults. Default: 0.
    pub seed: u64,
    /// The initial time of the broker, for reproducible runs. Default: unset, the wall clock.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub start_time: Option<SystemTime>,
}

/// What a partition retains. Records beyond a bound are removed, whether they were read or not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Retention {
    /// How long a record is retained after it was stored. 1 ms to 10,000 days. Default: unset, no
    /// bound.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub age: Option<Duration>,
    /// The bytes ([`Record::size`](millstream_core::Record::size)) retained in a partition. The
    /// newest record is always retained. At least 1. Default: unset, no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// What a stream accepts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// The largest record in bytes, with key and headers. 1 to 1 GiB, default 1 MiB.
    pub record_bytes: usize,
    /// The largest key in bytes. 1 to 1 GiB, default 256.
    pub key_bytes: usize,
    /// Records per second and partition; beyond it they are `Throttled`. At least 1. Default:
    /// unset, no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_per_second: Option<u64>,
    /// Bytes per second and partition; beyond it records are `Throttled`. At least 1. Default: unset,
    /// no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
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

impl Default for Limits {
    fn default() -> Self {
        Self {
            record_bytes: 1 << 20,
            key_bytes: 256,
            records_per_second: None,
            bytes_per_second: None,
        }
    }
}

impl Config {
    /// Creates a broker and returns a client of it.
    ///
    /// To share one broker among clients, or to inject faults, create a [`Memory`].
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
        within("limits.record_bytes", self.limits.record_bytes, 1, GIB)?;
        within("limits.key_bytes", self.limits.key_bytes, 1, GIB)?;
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
            "session_timeout = '2s'\nstart_time = '2024-01-01T00:00:00Z'\n\
             [retention]\nage = '1h'\n[limits]\nkey_bytes = 64",
        )
        .unwrap();
        assert_eq!(config.session_timeout, Duration::from_secs(2));
        assert_eq!(config.retention.age, Some(Duration::from_secs(3600)));
        assert_eq!(config.limits.key_bytes, 64);
        assert_eq!(config.limits.record_bytes, 1 << 20);
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
        let entry = |set: fn(&mut Config)| {
            let mut config = Config::default();
            set(&mut config);
            config
        };
        let table: [(&str, Config); 11] = [
            (
                "auto_create_partitions",
                entry(|c| c.auto_create_partitions = Some(0)),
            ),
            (
                "session_timeout",
                entry(|c| c.session_timeout = Duration::ZERO),
            ),
            (
                "session_timeout",
                entry(|c| c.session_timeout = Duration::MAX),
            ),
            (
                "retention.age",
                entry(|c| c.retention.age = Some(Duration::ZERO)),
            ),
            ("retention.bytes", entry(|c| c.retention.bytes = Some(0))),
            ("limits.record_bytes", entry(|c| c.limits.record_bytes = 0)),
            ("limits.key_bytes", entry(|c| c.limits.key_bytes = 0)),
            (
                "limits.records_per_second",
                entry(|c| c.limits.records_per_second = Some(0)),
            ),
            (
                "limits.bytes_per_second",
                entry(|c| c.limits.bytes_per_second = Some(0)),
            ),
            ("persist", entry(|c| c.persist = Some("".into()))),
            ("sync", entry(|c| c.sync = true)),
        ];
        for (key, config) in table {
            let error = Memory::new(config).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().starts_with(key), "{error}");
        }
    }
}
