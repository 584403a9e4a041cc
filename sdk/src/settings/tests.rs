//! Deserialization by type, with settings of each type.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::*;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sample {
    name: String,
    password: Option<String>,
    file: Option<PathBuf>,
    count: u16,
    offset: i64,
    rate: f64,
    sync: bool,
    brokers: Vec<String>,
    weights: Vec<u8>,
    mode: Option<Mode>,
    extra: BTreeMap<String, String>,
    inner: Inner,
    session_timeout: Option<Delay>,
    share: Option<Share>,
    secret_share: Option<Share>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Inner {
    size: u64,
    token: String,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Plain,
    FanOut,
}

/// A duration as `humantime_serde` reads it.
#[derive(Debug, PartialEq)]
struct Delay(Duration);

impl<'de> Deserialize<'de> for Delay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Delay;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a duration")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<Delay, E> {
                let seconds = text
                    .strip_suffix('s')
                    .and_then(|number| number.parse().ok());
                let seconds = seconds
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))?;
                Ok(Delay(Duration::from_secs(seconds)))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
struct Share(f64);

impl TryFrom<f64> for Share {
    type Error = String;

    fn try_from(share: f64) -> std::result::Result<Self, String> {
        match (0.0..=1.0).contains(&share) {
            true => Ok(Self(share)),
            false => Err(format!("a share is a number from 0 to 1, not {share}")),
        }
    }
}

fn from_file(text: &str) -> Result<Sample> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sample.toml");
    std::fs::write(&file, text).unwrap();
    read(SettingsBuilder::default().file(file).read()?, "sample")
}

fn from_variables(variables: &[(&str, &str)]) -> Result<Sample> {
    let variables = variables.iter().copied();
    read(
        SettingsBuilder::default()
            .env_from("APP", variables)
            .read()?,
        "sample",
    )
}

/// Returns the message of an error.
fn refused(result: Result<Sample>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    format!("{error:?}")
}

#[test]
fn a_text_is_taken_as_it_is() {
    let texts = [
        "123456",
        "1e5",
        "true",
        "0x1F",
        "[1]",
        "nan",
        "inf",
        "007",
        "-1",
        "1.50",
        "1979-05-27",
    ];
    for text in texts {
        let read = from_variables(&[("APP_PASSWORD", text), ("APP_INNER__TOKEN", text)]).unwrap();
        assert_eq!(read.password.as_deref(), Some(text));
        assert_eq!(read.inner.token, text);
        if text != "007" {
            // Not quoted, so TOML parses it as another type.
            let read = from_file(&format!("password = {text}\n[inner]\ntoken = {text}")).unwrap();
            assert_eq!(read.password.as_deref(), Some(text));
            assert_eq!(read.inner.token, text);
        }
    }
    for text in [
        "'quoted'",
        "\"quoted\"",
        "\"",
        "a,b",
        "{a = 1}",
        " spaces ",
        "",
    ] {
        let read = from_variables(&[("APP_PASSWORD", text), ("APP_FILE", text)]).unwrap();
        assert_eq!(read.password.as_deref(), Some(text));
        assert_eq!(read.file, Some(text.into()));
    }
}

#[test]
fn the_environment_is_read_by_the_type_of_the_setting() {
    let read = from_variables(&[
        ("APP_NAME", "plain text"),
        ("APP_COUNT", "7"),
        ("APP_OFFSET", "-0x1F"),
        ("APP_RATE", "1e-1"),
        ("APP_SYNC", "true"),
        ("APP_MODE", "fan-out"),
        ("APP_INNER__SIZE", "67_108_864"),
        ("APP_SESSION_TIMEOUT", "10s"),
        ("APP_SHARE", "1"),
        ("PATH", "/bin"),
        ("APPLE", "1"),
    ]);
    // TOML has no negative hexadecimal numbers.
    assert!(refused(read).contains("`offset` (environment variable APP_OFFSET)"));
    let read = from_variables(&[
        ("APP_NAME", "plain text"),
        ("APP_COUNT", "7"),
        ("APP_OFFSET", "-31"),
        ("APP_RATE", "1e-1"),
        ("APP_SYNC", "true"),
        ("APP_MODE", "fan-out"),
        ("APP_INNER__SIZE", "67_108_864"),
        ("APP_SESSION_TIMEOUT", "10s"),
        ("APP_SHARE", "1"),
        ("PATH", "/bin"),
        ("APPLE", "1"),
    ]);
    let expected = Sample {
        name: "plain text".into(),
        count: 7,
        offset: -31,
        rate: 0.1,
        sync: true,
        mode: Some(Mode::FanOut),
        inner: Inner {
            size: 67_108_864,
            ..Inner::default()
        },
        session_timeout: Some(Delay(Duration::from_secs(10))),
        share: Some(Share(1.0)),
        ..Sample::default()
    };
    assert_eq!(read.unwrap(), expected);
}

#[test]
fn lists_take_commas_and_toml() {
    let brokers = |text| from_variables(&[("APP_BROKERS", text)]).unwrap().brokers;
    assert_eq!(brokers("host:9092"), ["host:9092"]);
    assert_eq!(brokers("a:1, b:2,c:3"), ["a:1", "b:2", "c:3"]);
    assert_eq!(brokers("[\"a:1\", 'b:2']"), ["a:1", "b:2"]);
    assert_eq!(brokers(""), [""; 0]);
    let weights = from_variables(&[("APP_WEIGHTS", "1,2")]).unwrap().weights;
    assert_eq!(weights, [1, 2]);
    let message = refused(from_variables(&[("APP_WEIGHTS", "1,300")]));
    assert!(
        message.contains("`weights` (environment variable APP_WEIGHTS)"),
        "{message}"
    );
    assert!(message.contains("from 0 to 255"), "{message}");
    let message = refused(from_variables(&[("APP_BROKERS", "[\"a:1\"")]));
    assert!(message.contains("a list such as"), "{message}");
}

#[test]
fn tables_take_toml_and_single_keys() {
    let variables = [
        ("APP_EXTRA", "{\"client.rack\" = \"a\", n = 5}"),
        ("APP_EXTRA__MORE", "1"),
        ("APP_INNER", "{size = 3}"),
    ];
    let read = from_variables(&variables).unwrap();
    assert_eq!(read.extra["client.rack"], "a");
    assert_eq!((&*read.extra["n"], &*read.extra["more"]), ("5", "1"));
    assert_eq!(read.inner.size, 3);
    let message = refused(from_variables(&[("APP_INNER", "3")]));
    assert!(
        message.contains("`inner` (environment variable APP_INNER): expected a table"),
        "{message}"
    );
    let message = refused(from_variables(&[("APP_NAME", "a"), ("APP_NAME__B", "b")]));
    assert!(message.contains("APP_NAME__B"), "{message}");
}

#[test]
fn a_quoted_string_in_a_file_is_no_number() {
    for (key, expected) in [
        ("count", "whole number"),
        ("rate", "a number"),
        ("sync", "`true` or `false`"),
        ("brokers", "a list"),
        ("inner", "a table"),
    ] {
        let message = refused(from_file(&format!("\n{key} = '5'")));
        assert!(message.contains(&format!("`{key}` (")), "{message}");
        assert!(message.contains("sample.toml, line 2): "), "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_wrong_duration_is_shown_with_key_line_and_a_valid_form() {
    for value in ["\"10\"", "10", "\"\"", "true", "1.5", "[1]"] {
        let message = refused(from_file(&format!("name = 'a'\nsession_timeout = {value}")));
        let end = "sample.toml, line 2): expected a duration such as \"10s\" or \"500ms\"";
        assert!(message.contains("`session_timeout` ("), "{message}");
        assert!(message.ends_with(end), "{message}");
    }
    for value in ["10", ""] {
        let message = refused(from_variables(&[("APP_SESSION_TIMEOUT", value)]));
        let end = "`session_timeout` (environment variable APP_SESSION_TIMEOUT): expected a \
                   duration such as \"10s\" or \"500ms\"";
        assert!(message.ends_with(end), "{message}");
    }
}

#[test]
fn no_error_shows_a_value() {
    const SECRET: &str = "hunter2";
    let documents = [
        // Not closed, not quoted, without its key, and at the end of the file.
        format!("[inner]\ntoken = \"{SECRET}\npassword = 'x'"),
        format!("password = '{SECRET}"),
        format!("password = {SECRET}"),
        format!("password = {SECRET}=="),
        format!("password \"{SECRET}\""),
        format!("password = \"\"\"\n{SECRET}\n"),
        format!("password = \n{SECRET}\n"),
        SECRET.to_owned(),
        format!("password = \"{SECRET}\" x"),
        format!("password = \"\\{SECRET}\""),
        format!("password = [\"{SECRET}\""),
        format!("password = 'a'\npassword = '{SECRET}'"),
        // Of another type than the setting.
        format!("password = {{ {SECRET} = '{SECRET}' }}"),
        format!("count = '{SECRET}'"),
        format!("session_timeout = '{SECRET}'"),
        format!("mode = '{SECRET}'"),
        format!("rate = ['{SECRET}']"),
        format!("inner = '{SECRET}'"),
        format!("inner.size = '{SECRET}'"),
        format!("brokers = '{SECRET}'"),
    ];
    for document in documents {
        let message = refused(from_file(&document));
        assert!(!message.contains(SECRET), "{document}: {message}");
        assert!(
            message.contains("sample.toml, line "),
            "{document}: {message}"
        );
    }
    let names = [
        "COUNT",
        "SESSION_TIMEOUT",
        "MODE",
        "RATE",
        "INNER",
        "INNER__SIZE",
        "WEIGHTS",
    ];
    for name in names {
        let name = format!("APP_{name}");
        let message = refused(from_variables(&[(&name, SECRET)]));
        assert!(!message.contains(SECRET), "{message}");
        assert!(message.contains(&name), "{message}");
    }
    // The message of a setting's own type is shown, except for secrets.
    let message = refused(from_variables(&[("APP_SHARE", "1.25")]));
    assert!(
        message.contains("a share is a number from 0 to 1"),
        "{message}"
    );
    let message = refused(from_variables(&[("APP_SECRET_SHARE", "1.25")]));
    assert!(message.ends_with(
        "`secret_share` (environment variable APP_SECRET_SHARE): the value cannot be used"
    ));
}

#[test]
fn a_syntax_error_names_the_place_and_the_key() {
    let message = refused(from_file("name = 'a'\n[inner]\ntoken = \"abc\n"));
    assert!(message.contains("`inner.token` ("), "{message}");
    assert!(
        message.contains("sample.toml, line 3): not valid TOML"),
        "{message}"
    );
}

#[test]
fn a_wrong_key_lists_the_valid_ones_and_names_its_line() {
    let message = refused(from_file("name = 'a'\n\n[inner]\nsise = 3"));
    assert!(message.contains("`inner` ("), "{message}");
    let end = "sample.toml, line 4): unknown key `sise`, expected one of `size`, `token`";
    assert!(message.ends_with(end), "{message}");
    let message = refused(from_variables(&[("APP_INNER__SISE", "3")]));
    assert!(
        message.contains("APP_INNER__SISE): unknown key `sise`"),
        "{message}"
    );
}

#[test]
fn builders_show_no_value() {
    let builder = SettingsBuilder::default();
    let builder = builder
        .defaults("password = 'hush'")
        .env_from("APP", [("APP_PASSWORD", "hush")]);
    assert!(!format!("{builder:?}").contains("hush"));
}
