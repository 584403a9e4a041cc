//! Reads settings from a TOML file and the environment. Knows no backend.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

const PREFIX: &str = "MILLSTREAM_";

/// The variable that names the backend, without the prefix.
const BACKEND: &str = "BACKEND";

pub(crate) fn load<S: DeserializeOwned>(
    file: Option<&Path>,
    defaults: &str,
    environment: impl Iterator<Item = (String, String)>,
) -> anyhow::Result<S> {
    let read = |name: &str, text: &str| -> anyhow::Result<Table> {
        text.parse()
            .map_err(|error| anyhow!("{name} is not valid TOML: {error}"))
    };
    let mut table = match file {
        None => read("the default settings", defaults)?,
        Some(path) => {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the settings file {name}"))?;
            read(&name, &text)?
        }
    };
    // In the order of names, so that the same environment always gives the same settings.
    let mut variables: Vec<_> = environment
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?.to_owned(), value)))
        .collect();
    variables.sort();
    let backend = variables.iter().find(|(name, _)| name == BACKEND);
    if let (None, Some((_, named))) = (file, backend) {
        if table.get("backend").and_then(Value::as_str) != Some(named) {
            table.clear();
        }
    }
    for (name, value) in &variables {
        set(&mut table, name, value)?;
    }
    table
        .entry("backend")
        .or_insert_with(|| Value::String("memory".into()));
    let source = match (file, variables.is_empty()) {
        (Some(path), true) => format!("in {}", path.display()),
        (Some(path), false) => format!("in {} or the environment", path.display()),
        (None, _) => "in the environment".into(),
    };
    S::deserialize(table).map_err(|error| anyhow!("wrong setting {source}: {}", error.message()))
}

/// Sets what the variable `name` (without the prefix) stands for.
fn set(table: &mut Table, name: &str, value: &str) -> anyhow::Result<()> {
    let path = name.to_lowercase();
    let mut keys: Vec<&str> = path.split("__").collect();
    let last = keys.pop().unwrap_or_default();
    if last.is_empty() || keys.contains(&"") {
        bail!("the environment variable {PREFIX}{name} names no setting");
    }
    let mut table = table;
    for key in keys {
        let entry = table
            .entry(key)
            .or_insert_with(|| Value::Table(Table::new()));
        table = entry.as_table_mut().with_context(|| {
            format!("the environment variable {PREFIX}{name} treats `{key}` as a table, but it is a value")
        })?;
    }
    table.insert(last.to_owned(), parse(value));
    Ok(())
}

fn parse(text: &str) -> Value {
    text.parse()
        .unwrap_or_else(|_| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(tag = "backend", rename_all = "kebab-case")]
    enum Sample {
        Memory(Options),
        Other(Options),
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Options {
        size: u64,
        name: String,
        limits: BTreeMap<String, i64>,
    }

    fn read(text: &str, environment: &[(&str, &str)]) -> anyhow::Result<Sample> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("fleet.toml");
        std::fs::write(&file, text)?;
        let variables = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        load(Some(&file), "size = 1", variables)
    }

    #[test]
    fn nothing_said_is_memory() {
        let settings: Sample = load(None, "", std::iter::empty()).unwrap();
        assert_eq!(settings, Sample::Memory(Options::default()));
    }

    #[test]
    fn the_environment_wins() {
        let environment = [
            ("MILLSTREAM_SIZE", "7"),
            ("MILLSTREAM_NAME", "plain text"),
            ("MILLSTREAM_LIMITS__RATE", "9"),
            ("PATH", "/bin"),
        ];
        let settings = read("backend = 'other'\nsize = 3", &environment).unwrap();
        let Sample::Other(options) = settings else {
            panic!("{settings:?}")
        };
        assert_eq!((options.size, options.name.as_str()), (7, "plain text"));
        assert_eq!(options.limits["rate"], 9);
    }

    #[test]
    fn defaults_are_for_their_own_backend_and_no_file() {
        const DEFAULTS: &str = "backend = 'memory'\nsize = 5";
        let load = |file, environment: &[(&str, &str)]| -> Sample {
            let variables = environment.iter();
            let variables = variables.map(|(name, value)| ((*name).into(), (*value).into()));
            super::load(file, DEFAULTS, variables).unwrap()
        };
        let options = |size| Options {
            size,
            ..Options::default()
        };
        assert_eq!(load(None, &[]), Sample::Memory(options(5)));
        let other = [("MILLSTREAM_BACKEND", "other")];
        assert_eq!(load(None, &other), Sample::Other(options(0)));
        assert_eq!(read("", &[]).unwrap(), Sample::Memory(options(0)));
    }

    #[test]
    fn an_unknown_backend_lists_the_known_ones() {
        let error = read("backend = 'memry'", &[]).unwrap_err().to_string();
        assert!(
            error.contains("memry") && error.contains("`memory`"),
            "{error}"
        );
        assert!(error.contains("fleet.toml"), "{error}");
    }

    #[test]
    fn a_mistyped_key_lists_the_valid_ones() {
        let error = read("siez = 3", &[]).unwrap_err().to_string();
        assert!(
            error.contains("siez") && error.contains("`size`"),
            "{error}"
        );
    }

    #[test]
    fn a_variable_that_names_nothing_is_refused() {
        for name in ["MILLSTREAM_", "MILLSTREAM___A", "MILLSTREAM_SIZE__A"] {
            let error = read("size = 3", &[(name, "1")]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
