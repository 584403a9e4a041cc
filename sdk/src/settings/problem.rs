use std::fmt::{self, Display};

use serde::de::{self, Expected, Unexpected};

use super::origin::Origin;

/// The reason why settings cannot be used: key, place and valid form, never the value.
///
/// Files and variables contain secrets along with all other settings, and a value may be written at
/// the wrong key. So no value is shown, whatever its key.
#[derive(Debug)]
pub(super) struct Problem {
    /// From the innermost key outwards.
    path: Vec<String>,
    origin: Option<Origin>,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    /// A text from this crate, without a value in it.
    Plain(String),
    /// A text from the type of a setting, perhaps with the value in it.
    Foreign(String),
}

impl Problem {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self::with_reason(Reason::Plain(reason.into()))
    }

    fn with_reason(reason: Reason) -> Self {
        Self {
            path: Vec::new(),
            origin: None,
            reason,
        }
    }

    /// Returns the problem of a value that `expected` does not accept.
    pub(super) fn mismatch(expected: &dyn Expected) -> Self {
        Self::new(format!("expected {}", describe(&expected.to_string())))
    }

    /// Adds the place, unless a more precise one is known.
    pub(super) fn at(mut self, origin: &Origin) -> Self {
        self.origin.get_or_insert_with(|| origin.clone());
        self
    }

    /// Adds the enclosing key to the path.
    pub(super) fn within(mut self, key: &str) -> Self {
        self.path.push(key.to_owned());
        self
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path: Vec<_> = self.path.iter().rev().map(String::as_str).collect();
        let path = path.join(".");
        match (&self.origin, path.is_empty()) {
            (Some(origin), false) => write!(f, "`{path}` ({origin}): ")?,
            (Some(origin), true) => write!(f, "{origin}: ")?,
            (None, false) => write!(f, "`{path}`: ")?,
            (None, true) => {}
        }
        match &self.reason {
            Reason::Foreign(_) if is_secret(&path) => f.write_str("the value cannot be used"),
            Reason::Plain(reason) | Reason::Foreign(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Problem {}

impl de::Error for Problem {
    fn custom<T: Display>(reason: T) -> Self {
        Self::with_reason(Reason::Foreign(reason.to_string()))
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::mismatch(expected)
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::mismatch(expected)
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Self {
        Self::mismatch(expected)
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown value, expected {}", one_of(expected)))
    }

    fn unknown_field(key: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!(
            "unknown key `{key}`, expected {}",
            one_of(expected)
        ))
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(format!("the key `{key}` is missing"))
    }

    fn duplicate_field(key: &'static str) -> Self {
        Self::new(format!("the key `{key}` is set twice"))
    }
}

/// Returns whether a value at `path` may be a secret.
fn is_secret(path: &str) -> bool {
    const WORDS: [&str; 6] = [
        "password",
        "secret",
        "token",
        "credential",
        "pem",
        "librdkafka",
    ];
    WORDS.iter().any(|word| path.contains(word)) || path.split(['.', '_']).any(|part| part == "key")
}

pub(super) fn one_of(names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match &*names {
        [] => "none".into(),
        [name] => name.clone(),
        names => format!("one of {}", names.join(", ")),
    }
}

/// Rephrases a type's expectation in terms of settings.
fn describe(expected: &str) -> &str {
    match expected {
        "a duration" => "a duration such as \"10s\" or \"500ms\"",
        "a timestamp" => "a time such as \"2024-01-01T00:00:00Z\"",
        "a boolean" => "`true` or `false`",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "u128" | "usize" => "a whole number of at least 0",
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a sequence" => "a list such as [\"a\", \"b\"]",
        "a map" => "a table",
        "path string" => "a path",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}
