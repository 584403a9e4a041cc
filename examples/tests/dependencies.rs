//! An application needs only one dependency to stream: these programs have no other.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use toml::Table;

const MANIFEST: &str = include_str!("../Cargo.toml");

#[test]
fn millstream_is_the_only_streaming_dependency() {
    let manifest: Table = MANIFEST.parse().unwrap();
    let mut checked = 0;
    for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let Some(dependencies) = manifest.get(section) else {
            continue;
        };
        for name in dependencies.as_table().unwrap().keys() {
            let streams = ["millstream", "kafka", "kinesis", "aws"];
            let streams = streams.iter().any(|word| name.contains(word));
            assert!(!streams || name == "millstream", "{section}: {name}");
            checked += usize::from(name == "millstream");
        }
    }
    assert_eq!(checked, 1);
}

#[test]
fn features_only_pass_on_to_millstream() {
    let manifest: Table = MANIFEST.parse().unwrap();
    for (name, adds) in manifest["features"].as_table().unwrap() {
        let passed_on = match &**name {
            // The database of one example.
            "sqlite" => "dep:rusqlite".to_owned(),
            _ => format!("millstream/{name}"),
        };
        assert_eq!(adds.as_array().unwrap(), &[passed_on.into()], "{name}");
    }
}
