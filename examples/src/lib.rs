//! Chooses the backend for the fleet program and the small programs: the one place that names all
//! backends.
//!
//! An application copies this file, keeps the backends that it wants, and writes everything else
//! once:
//!
//! ```
//! # async fn demo() -> anyhow::Result<()> {
//! let client = millstream_examples::connect().await?; // memory, unless the environment says otherwise
//! let producer = client.producer("car-raw-events");
//! # Ok(()) }
//! ```

use std::path::Path;

use millstream::Client;
use serde::Deserialize;

mod caught_up;
mod sample;
mod settings;

pub use caught_up::caught_up;
pub use sample::{create, fill};

/// Which backend to use, and its own settings beside it: `backend = "memory"` in TOML.
///
/// See [`Settings::load`] for where they come from.
#[derive(Debug, Deserialize)]
#[serde(tag = "backend", rename_all = "kebab-case")]
#[non_exhaustive]
#[allow(
    clippy::large_enum_variant,
    reason = "a program has one, and uses it up"
)]
pub enum Settings {
    /// The embedded backend: needs nothing, and forgets everything at the end of the process.
    Memory(millstream_memory::Config),
    /// Apache Kafka and Amazon MSK.
    #[cfg(feature = "kafka")]
    Kafka(millstream_kafka::Config),
    /// Apache Kafka and Amazon MSK.
    #[cfg(not(feature = "kafka"))]
    Kafka(NotBuilt),
    /// Amazon Kinesis Data Streams.
    #[cfg(feature = "kinesis")]
    Kinesis(millstream_kinesis::Config),
    /// Amazon Kinesis Data Streams.
    #[cfg(not(feature = "kinesis"))]
    Kinesis(NotBuilt),
}

/// Stands for the settings of a backend that this build does not contain. Takes any.
#[derive(Debug, Deserialize)]
#[non_exhaustive]
pub struct NotBuilt {}

impl Settings {
    /// Reads `file` if there is one, then the environment, which wins. Without both it is the
    /// memory backend with its defaults.
    ///
    /// `MILLSTREAM_BACKEND=memory` sets the key `backend`, and so on for every other key; two
    /// underscores step into a table: `MILLSTREAM_TLS__CA_FILE` sets `ca_file` in `[tls]`. A value
    /// is read as TOML where it is TOML (`5`, `true`, `"text"`), and as plain text otherwise.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, or names a backend or a key that does not exist; the
    /// message lists those that do.
    pub fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        Self::load_or(file, "")
    }

    /// As [`load`](Self::load), with `defaults` in TOML where there is no file. They are left out
    /// if the environment names another backend than they do.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_or(file: Option<&Path>, defaults: &str) -> anyhow::Result<Self> {
        settings::load(file, defaults, std::env::vars())
    }

    /// Connects to the backend.
    ///
    /// # Errors
    /// The backend is not in this build (the message names the cargo feature), or does not answer.
    pub async fn connect(self) -> anyhow::Result<Client> {
        match self {
            Self::Memory(config) => Ok(config.connect().await?),
            #[cfg(feature = "kafka")]
            Self::Kafka(config) => Ok(config.connect().await?),
            #[cfg(not(feature = "kafka"))]
            Self::Kafka(_) => anyhow::bail!(
                "the kafka backend is not in this build: add the cargo feature `kafka` (cargo run --features kafka)"
            ),
            #[cfg(feature = "kinesis")]
            Self::Kinesis(config) => Ok(config.connect().await?),
            #[cfg(not(feature = "kinesis"))]
            Self::Kinesis(_) => anyhow::bail!(
                "the kinesis backend is not in this build: add the cargo feature `kinesis` (cargo run --features kinesis)"
            ),
        }
    }
}

/// Connects to the backend that the environment names, by default memory.
///
/// # Errors
/// As [`Settings::load`] and [`Settings::connect`].
pub async fn connect() -> anyhow::Result<Client> {
    Settings::load(None)?.connect().await
}
