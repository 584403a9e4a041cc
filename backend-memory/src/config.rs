//! The settings of a broker.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use millstream_core::{Client, Result};
use serde::{Deserialize, Serialize};

use crate::Memory;
use crate::refusal::Refusal;

/// The settings of a memory broker, for TOML, environment or code.
///
/// Every key has a default. A key that does not exist is an error that lists the ones that do.
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
    /// Creates an unknown stream with so many partitions when a producer is opened to it or a
    /// member joins. 1 to 100,000. Default unset: an unknown stream is `NotFound`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_create_partitions: Option<usize>,
    /// How long a member that gives no sign of life keeps its partitions. 1 ms to 1 day, default 10
    /// s.
    #[serde(with = "humantime_serde")]
    pub session_timeout: Duration,
    /// What partitions keep. Default: everything.
    pub retention: Retention,
    /// What streams take.
    pub limits: Limits,
    /// A folder in which streams, records, groups and checkpoints survive. The file in it grows with
    /// every change: retention frees memory, not the file. Default unset: nothing survives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persist: Option<PathBuf>,
    /// Whether each write to the folder of `persist` waits for the disk (`fsync`). Without it, what
    /// was acknowledged survives the end of the process, but perhaps not a power failure. Default
    /// false.
    pub sync: bool,
    /// Seeds what is random in faults. Default 0.
    pub seed: u64,
    /// What the broker's clock shows at its beginning, for runs that shall be the same each time.
    /// Default unset: the wall clock's time.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub start_time: Option<SystemTime>,
}

/// What a partition keeps; older and further records are removed, whether they were read or not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Retention {
    /// How long a record is kept after it was stored. 1 ms to 10,000 days, default unset: for ever.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub age: Option<Duration>,
    /// How many bytes ([`Record::size`](millstream_core::Record::size)) are kept in a partition, besides
    /// the newest record. At least 1, default unset: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// What a stream takes, to feel a broker's limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// The largest record, key and headers included, in bytes. 1 to 1 GiB, default 1 MiB.
    pub record_bytes: usize,
    /// The largest key in bytes. 1 to 1 GiB, default 256.
    pub key_bytes: usize,
    /// How many records a partition takes in a second; over it they are `Throttled`. At least 1,
    /// default unset: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_per_second: Option<u64>,
    /// How many bytes a partition takes in a second; over it records are `Throttled`. At least 1,
    /// default unset: any.
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
    /// Makes a broker of its own for this client and connects to it.
    ///
    /// To share one broker among clients, or to reach its faults, make a [`Memory`].
    ///
    /// # Errors
    /// As [`Memory::new`].
    ///
    /// # Cancellation
    /// It waits for nothing.
    pub async fn connect(self) -> Result<Client> {
        Ok(Memory::new(self)?.client())
    }

    pub(crate) fn validate(&self) -> Result<(), Refusal> {
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
            return refuse("persist is empty, name a folder or leave it out".into());
        }
        if self.sync && self.persist.is_none() {
            return refuse("sync is set without persist, name a folder in persist".into());
        }
        Ok(())
    }
}

fn within(key: &str, value: usize, least: usize, most: usize) -> Result<(), Refusal> {
    match (least..=most).contains(&value) {
        true => Ok(()),
        false => refuse(format!("{key} is {value}, use {least} to {most}")),
    }
}

fn positive(key: &str, value: Option<u64>) -> Result<(), Refusal> {
    match value {
        Some(0) => refuse(format!("{key} is 0, use at least 1 or leave it out")),
        _ => Ok(()),
    }
}

fn duration(
    key: &str,
    value: Duration,
    least: Duration,
    most: Duration,
    range: &str,
) -> Result<(), Refusal> {
    match (least..=most).contains(&value) {
        true => Ok(()),
        false => refuse(format!("{key} is {value:?}, use {range}")),
    }
}

fn refuse(reason: String) -> Result<(), Refusal> {
    Err(Refusal::Setting(reason))
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
    fn a_typo_lists_the_valid_names() {
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
    fn wrong_values_name_the_key() {
        let change = |set: fn(&mut Config)| {
            let mut config = Config::default();
            set(&mut config);
            config
        };
        let table: [(&str, Config); 11] = [
            (
                "auto_create_partitions",
                change(|c| c.auto_create_partitions = Some(0)),
            ),
            (
                "session_timeout",
                change(|c| c.session_timeout = Duration::ZERO),
            ),
            (
                "session_timeout",
                change(|c| c.session_timeout = Duration::MAX),
            ),
            (
                "retention.age",
                change(|c| c.retention.age = Some(Duration::ZERO)),
            ),
            ("retention.bytes", change(|c| c.retention.bytes = Some(0))),
            ("limits.record_bytes", change(|c| c.limits.record_bytes = 0)),
            ("limits.key_bytes", change(|c| c.limits.key_bytes = 0)),
            (
                "limits.records_per_second",
                change(|c| c.limits.records_per_second = Some(0)),
            ),
            (
                "limits.bytes_per_second",
                change(|c| c.limits.bytes_per_second = Some(0)),
            ),
            ("persist", change(|c| c.persist = Some("".into()))),
            ("sync", change(|c| c.sync = true)),
        ];
        for (key, config) in table {
            let error = Memory::new(config).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().starts_with(key), "{error}");
        }
    }
}
