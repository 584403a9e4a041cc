use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

#[cfg(doc)]
use millstream_core::ErrorKind;
use millstream_core::{Error, Result};
use serde::{Deserialize, Deserializer};

use super::environment::Environment;
use super::problem::Problem;
use super::tree::{Node, Table};
use super::{BACKEND, MEMORY, Settings, from_table, invalid};

/// Reads [`Settings`] from several sources: defaults, then a table within an application's own
/// settings, then a file, then environment variables.
///
/// A later source overrides an earlier one, key by key. Created by [`Settings::builder`], or read from
/// an application's own settings as a table.
///
/// # Examples
/// ```
/// use millstream::Settings;
///
/// let settings = Settings::builder()
///     .defaults("session_timeout = '5s'")
///     .env("MILLSTREAM")
///     .build()?;
/// # Ok::<_, millstream::Error>(())
/// ```
///
/// Within an application's own settings:
///
/// ```
/// #[derive(serde::Deserialize)]
/// struct App {
///     listen: String,
///     streams: millstream::SettingsBuilder,
/// }
///
/// let app: App = toml::from_str(r#"
///     listen = "0.0.0.0:80"
///
///     [streams]
///     backend = "memory"
///     session_timeout = "5s"
/// "#)?;
/// let settings = app.streams.env("APP_STREAMS").build()?;
/// assert_eq!(settings.backend(), "memory");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
#[must_use = "a builder reads nothing before `build`"]
pub struct SettingsBuilder {
    defaults: Option<String>,
    /// The table of an application's own settings.
    embedded: Option<Node>,
    file: Option<PathBuf>,
    environment: Option<Source>,
}

/// Environment variables to read.
#[derive(Clone)]
struct Source {
    prefix: String,
    /// `None`: those of the process.
    variables: Option<Vec<(OsString, OsString)>>,
}

impl SettingsBuilder {
    /// Sets defaults of the application, in TOML. Default: only the backend's own defaults.
    ///
    /// They are ignored if the file or the environment names another backend.
    pub fn defaults(mut self, toml: impl Into<String>) -> Self {
        self.defaults = Some(toml.into());
        self
    }

    /// Reads a TOML file. It must exist. Default: no file.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Reads the environment variables of the process that begin with `prefix` and an underscore.
    /// Default: none.
    ///
    /// See [`Settings::from_env`] for their names and values.
    pub fn env(mut self, prefix: impl Into<String>) -> Self {
        self.environment = Some(Source {
            prefix: prefix.into(),
            variables: None,
        });
        self
    }

    /// Reads `variables` instead of the process environment, for tests and for programs that keep their
    /// environment elsewhere.
    pub fn env_from<N, V>(
        mut self,
        prefix: impl Into<String>,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let variables = variables.into_iter();
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        self.environment = Some(Source {
            prefix: prefix.into(),
            variables: Some(variables.collect()),
        });
        self
    }

    /// Reads the sources and returns the settings.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for a file that cannot be read, for TOML that is not valid,
    /// and for an unknown backend, an unknown key or an unusable value. The message names the file
    /// with its line or the variable, the key, and what is valid; it never shows a value.
    /// [`Unsupported`](ErrorKind::Unsupported) for a backend that is not in this build; the message
    /// names the cargo feature to add.
    pub fn build(self) -> Result<Settings> {
        from_table(self.read()?)
    }

    /// Merges the sources.
    pub(super) fn read(self) -> Result<Table> {
        let file = match &self.file {
            None => Table::default(),
            Some(path) => {
                let name = path.display().to_string();
                let text = std::fs::read_to_string(path).map_err(|error| {
                    invalid(format!("cannot read {name}: {error}")).with_source(error)
                })?;
                Table::parse(&name, &text)?
            }
        };
        let environment = match self.environment {
            None => None,
            Some(Source { prefix, variables }) => {
                let prefix = prefix.trim_end_matches('_');
                if prefix.is_empty() {
                    return Err(invalid(
                        "the prefix of environment variables is empty, name one such as MILLSTREAM",
                    ));
                }
                let prefix = format!("{prefix}_");
                Some(match variables {
                    None => Environment::new(&prefix, std::env::vars_os())?,
                    Some(variables) => Environment::new(&prefix, variables.into_iter())?,
                })
            }
        };
        let mut table = match &self.defaults {
            None => Table::default(),
            Some(text) => Table::parse("default settings", text)?,
        };
        let mut written = match self.embedded {
            None => Table::default(),
            Some(node) => node.into_table().ok_or_else(not_a_table)?,
        };
        written.merge(file);
        let named = environment
            .as_ref()
            .and_then(|variables| variables.get(BACKEND));
        if let Some(named) = named.or_else(|| written.text(BACKEND)) {
            if named != table.text(BACKEND).unwrap_or(MEMORY) {
                table = Table::default();
            }
        }
        table.merge(written);
        if let Some(environment) = environment {
            environment.apply(&mut table)?;
        }
        Ok(table)
    }
}

/// Reads a table. Its errors are reported by [`build`](SettingsBuilder::build).
///
/// The text of an error of the application's deserializer may contain the source line, and with it a
/// secret in the same line (the `toml` crate does so). Errors of `build` show no value.
impl<'de> Deserialize<'de> for SettingsBuilder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Ok(Self {
            embedded: Some(Node::deserialize(deserializer)?),
            ..Self::default()
        })
    }
}

fn not_a_table() -> Error {
    Problem::new("expected a table of settings").into()
}

/// Prints no setting, because any may be a secret.
impl fmt::Debug for SettingsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SettingsBuilder")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        invalid(problem.to_string())
    }
}
