mod builder;
mod deserializer;
mod environment;
mod origin;
mod problem;
#[cfg(test)]
mod tests;
mod tree;

pub use builder::SettingsBuilder;

use std::path::Path;

use millstream_core::{Client, Error, ErrorKind, Result};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use problem::Problem;
use tree::{Node, Table};

/// The key that names the backend.
const BACKEND: &str = "backend";

/// The default backend.
const MEMORY: &str = "memory";

/// Settings that name a backend, with the settings of that backend.
///
/// The key `backend` names the backend, and all other keys are those of its `Config`. Without
/// `backend`, it is memory.
///
/// ```toml
/// backend = "kafka"
/// brokers = ["kafka-1.example.com:9092"]
///
/// [consumer]
/// session_timeout = "20s"
/// ```
///
/// # Examples
/// A file, and environment variables that override it:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> millstream::Result<()> {
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let file = folder.path().join("streams.toml");
/// # std::fs::write(&file, "backend = 'memory'").expect("a file");
/// let settings = millstream::Settings::builder().file(file).env("MILLSTREAM").build()?;
/// let client = settings.connect().await?;
/// # Ok(())
/// # }
/// ```
///
/// Within an application's own settings, use [`SettingsBuilder`] as the type of the field: its errors
/// show no value. `Settings` can be that type too, but its errors are those of the application's
/// deserializer, whose text may contain the source line and with it a password (the `toml` crate does
/// so). Only `message()` shows none.
///
/// Your own backend does not use this type; see [`Client::new`](crate::Client::new).
#[derive(Debug, Clone)]
#[non_exhaustive]
#[allow(
    clippy::large_enum_variant,
    reason = "a program has one, and consumes it"
)]
pub enum Settings {
    /// The backend within the process. It needs no broker, and loses everything at the end of the process
    /// unless `persist` is set.
    Memory(millstream_memory::Config),
    /// Apache Kafka and Amazon MSK.
    #[cfg(feature = "kafka")]
    Kafka(millstream_kafka::Config),
    /// Amazon Kinesis Data Streams.
    #[cfg(feature = "kinesis")]
    Kinesis(millstream_kinesis::Config),
}

impl Settings {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// As [`SettingsBuilder::build`].
    pub fn load(file: impl AsRef<Path>) -> Result<Self> {
        Self::builder().file(file.as_ref()).build()
    }

    /// Reads the environment variables that begin with `prefix` and an underscore. Without any, it returns
    /// the memory backend with its defaults.
    ///
    /// With the prefix `MILLSTREAM`, `MILLSTREAM_BACKEND` sets the key `backend`, and so on. Two
    /// underscores step into a table: `MILLSTREAM_CONSUMER__SESSION_TIMEOUT=20s` sets
    /// `session_timeout` in `[consumer]`.
    ///
    /// A value is read as the type of its setting, so that a password of digits is a text. A list is
    /// `a,b` or `["a", "b"]`, a table is `{a = 1, b = 2}`. A variable for an unknown setting is an
    /// error. Variables that Kubernetes sets for a service with the name of the prefix
    /// (`MILLSTREAM_PORT`, `MILLSTREAM_SERVICE_HOST`) are ignored with a warning.
    ///
    /// # Errors
    /// As [`SettingsBuilder::build`].
    pub fn from_env(prefix: &str) -> Result<Self> {
        Self::builder().env(prefix).build()
    }

    /// Returns a builder that reads settings from several sources.
    pub fn builder() -> SettingsBuilder {
        SettingsBuilder::default()
    }

    /// Returns the name of the backend, as in the key `backend`.
    pub fn backend(&self) -> &'static str {
        match self {
            Self::Memory(_) => MEMORY,
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => "kafka",
            #[cfg(feature = "kinesis")]
            Self::Kinesis(_) => "kinesis",
        }
    }

    /// Connects to the backend.
    ///
    /// # Errors
    /// As `Config::connect` of the backend: [`Invalid`](ErrorKind::Invalid) for a setting out of its
    /// bounds, [`Unauthenticated`](ErrorKind::Unauthenticated) for refused credentials,
    /// [`Unavailable`](ErrorKind::Unavailable) if no broker can be reached.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing behind.
    pub async fn connect(self) -> Result<Client> {
        match self {
            Self::Memory(config) => config.connect().await,
            #[cfg(feature = "kafka")]
            Self::Kafka(config) => config.connect().await,
            #[cfg(feature = "kinesis")]
            Self::Kinesis(config) => config.connect().await,
        }
    }
}

/// Returns the memory backend with its defaults.
impl Default for Settings {
    fn default() -> Self {
        Self::Memory(millstream_memory::Config::default())
    }
}

/// Reads a table. [`SettingsBuilder`] has errors that show no source line. An unquoted list in place of a text is
/// rejected, because its source text is not known.
impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = Node::deserialize(deserializer)?.into_table();
        let table = table.ok_or_else(|| D::Error::custom("expected a table of settings"))?;
        from_table(table).map_err(|error| D::Error::custom(error.message()))
    }
}

/// Reads the settings of the backend that `table` names.
fn from_table(mut table: Table) -> Result<Settings> {
    let named = table.0.remove(BACKEND);
    let backend = match named.clone() {
        None => MEMORY.to_owned(),
        Some(entry) => {
            String::deserialize(entry.node).map_err(|problem| problem.within(BACKEND))?
        }
    };
    let problem = match &*backend {
        "memory" => return Ok(Settings::Memory(read(table, &backend)?)),
        #[cfg(feature = "kafka")]
        "kafka" => return Ok(Settings::Kafka(read(table, &backend)?)),
        #[cfg(feature = "kinesis")]
        "kinesis" => return Ok(Settings::Kinesis(read(table, &backend)?)),
        #[cfg(not(feature = "kafka"))]
        "kafka" => return Err(not_built("kafka")),
        #[cfg(not(feature = "kinesis"))]
        "kinesis" => return Err(not_built("kinesis")),
        unknown => Problem::new(format!(
            "unknown backend{}, expected one of `memory`, `kafka`, `kinesis`",
            quoted_name(unknown)
        )),
    };
    let problem = match &named {
        Some(entry) => problem.at(&entry.node.origin),
        None => problem,
    };
    Err(problem.within(BACKEND).into())
}

fn read<T: serde::de::DeserializeOwned>(table: Table, backend: &str) -> Result<T> {
    let node = Node {
        value: tree::Value::Table(table),
        origin: origin::Origin::Backend(backend.into()),
    };
    Ok(T::deserialize(node)?)
}

/// Returns a quotable text if it looks like the name of a backend: any other may be a misplaced secret.
fn quoted_name(text: &str) -> String {
    let is_name = text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_lowercase());
    match is_name {
        true => format!(" `{text}`"),
        false => String::new(),
    }
}

#[cfg(not(all(feature = "kafka", feature = "kinesis")))]
fn not_built(backend: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        OPERATION,
        format!(
            "the {backend} backend is not in this build, add the cargo feature `{backend}` of \
             `millstream`: millstream = {{ features = [\"{backend}\"] }}"
        ),
    )
}

const OPERATION: &str = "load settings";

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Invalid, OPERATION, message)
}
