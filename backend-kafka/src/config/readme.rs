//! Tests that the README lists every setting with its default, and that its examples work.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::*;

const README: &str = include_str!("../../README.md");

/// Returns the rows of the table of settings: the key and the default, as they are written.
fn rows() -> Vec<(&'static str, &'static str)> {
    let (_, settings) = README.split_once("| key | what it sets |").unwrap();
    let rows = settings
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let rows = rows.map(|row| {
        let cells: Vec<_> = row.split(" | ").collect();
        let key = cells[0].trim_start_matches("| ").trim_matches('`');
        (key, cells[2].trim())
    });
    rows.collect()
}

/// Collects the keys of a table and of its inner tables. A table with user-defined keys counts as one key.
fn keys(prefix: &str, table: &Table, found: &mut BTreeSet<String>) {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        match value {
            Value::Table(inner) if !matches!(&*key, "librdkafka" | "topics.config") => {
                keys(&format!("{key}."), inner, found);
            }
            _ => _ = found.insert(key),
        }
    }
}

#[test]
fn the_table_has_every_key_and_no_other() {
    let secret = || Some(Secret::from("s"));
    let mut config = Config::default();
    config.consumer.instance_id = Some("i".into());
    config.consumer.heartbeat_interval = Some(Duration::from_secs(1));
    config.topics.replication_factor = Some(1);
    config.security.tls = Some(Tls {
        ca_file: Some("f".into()),
        ca_pem: Some("p".into()),
        certificate_file: Some("f".into()),
        certificate_pem: Some("p".into()),
        key_file: Some("f".into()),
        key_pem: secret(),
        key_password: secret(),
        key_password_file: Some("f".into()),
        verify_hostname: true,
    });
    let login = Credentials {
        password_file: Some("f".into()),
        ..Credentials::new("u", "p")
    };
    let identity = MskIam {
        region: "r".into(),
        profile: Some("p".into()),
        role_arn: Some("a".into()),
        session_name: Some("s".into()),
    };
    let mut all = BTreeSet::new();
    for sasl in [Sasl::ScramSha512(login), Sasl::MskIam(identity)] {
        config.security.sasl = Some(sasl);
        keys("", &Table::try_from(&config).unwrap(), &mut all);
    }
    let told: BTreeSet<_> = rows().into_iter().map(|(key, _)| key.to_owned()).collect();
    assert_eq!(told, all);
}

#[test]
fn the_table_tells_the_defaults() {
    let mut checked = 0;
    for (key, default) in rows() {
        let Some(value) = default.strip_prefix('`').and_then(|d| d.strip_suffix('`')) else {
            assert!(
                default.starts_with("unset") || default == "none",
                "{key}: {default}"
            );
            continue;
        };
        let mut expected = Config::default();
        if key.starts_with("security.tls.") {
            expected.security.tls = Some(Tls::default());
        }
        let written: Config = toml::from_str(&format!("{key} = {value}")).unwrap();
        assert_eq!(written, expected, "{key}");
        checked += 1;
    }
    assert!(checked >= 12, "{checked}");
}

#[test]
fn the_examples_can_be_used() {
    let examples = README.split("```toml\n").skip(1);
    let examples: Vec<_> = examples
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(!examples.is_empty());
    for example in examples {
        let config: Config = toml::from_str(example).unwrap();
        if cfg!(feature = "tls") {
            config.validate().unwrap();
        }
    }
}
