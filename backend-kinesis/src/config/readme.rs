//! The README lists every setting with its default, and its examples are valid.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::*;

const README: &str = include_str!("../../README.md");

/// Returns the rows of the settings table: the key and the default, as they are written.
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

/// Collects the keys of a table and of its nested tables. A name chosen by the user ends a key.
fn keys(prefix: &str, table: &Table, found: &mut BTreeSet<String>) {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        match value {
            Value::Table(inner) if key != "streams.tags" => {
                keys(&format!("{key}."), inner, found);
            }
            _ => _ = found.insert(key),
        }
    }
}

#[test]
fn the_table_has_every_key_and_no_other() {
    let mut config = Config {
        region: Some("r".into()),
        profile: Some("p".into()),
        credentials: Some(Credentials {
            access_key_id: "i".into(),
            secret_access_key: "s".into(),
            session_token: Some("t".into()),
        }),
        endpoint: Some("http://e".into()),
        dynamodb_endpoint: Some("http://d".into()),
        ca_file: Some("f".into()),
        ..Config::default()
    };
    config.consumer.fan_out_name = Some("f".into());
    config.producer.explicit_hash_key_header = Some("h".into());
    config.leases.region = Some("r".into());
    config.leases.profile = Some("p".into());
    config.leases.role_arn = Some("a".into());
    config.leases.max_per_member = Some(1);
    config.leases.scan_interval = Some(Duration::from_secs(1));
    let mut all = BTreeSet::new();
    keys("", &Table::try_from(&config).unwrap(), &mut all);
    let documented: BTreeSet<_> = rows().into_iter().map(|(key, _)| key.to_owned()).collect();
    assert_eq!(documented, all);
}

#[test]
fn the_table_tells_the_defaults() {
    let mut checked = 0;
    for (key, default) in rows() {
        let Some(value) = default.strip_prefix('`').and_then(|d| d.strip_suffix('`')) else {
            assert!(default.starts_with("unset"), "{key}: {default}");
            continue;
        };
        let written: Config = toml::from_str(&format!("{key} = {value}")).unwrap();
        assert_eq!(written, Config::default(), "{key}");
        checked += 1;
    }
    assert!(checked >= 20, "{checked}");
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
        config.validate().unwrap();
    }
}
