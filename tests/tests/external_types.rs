//! The public API of the crates contains no foreign types except those that are listed here.
//!
//! A foreign type in the API ties users to that crate's version. The test reads rustdoc's JSON output for the API, and
//! checks every path to a type or trait in it. That output is unstable, so the test allows it for this one call and
//! reads only those paths.
//!
//! Features are off: none of them adds to the API or changes it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const STANDARD: [&str; 3] = ["alloc", "core", "std"];

#[test]
fn core_names_only_bytes_and_std() {
    assert_eq!(foreign("millstream-core", &["bytes"]), BTreeMap::new());
}

#[test]
fn memory_backend_names_only_the_core_and_serde() {
    assert_eq!(
        foreign(
            "millstream-memory",
            &["bytes", "millstream_core", "serde", "serde_core"]
        ),
        BTreeMap::new()
    );
}

#[test]
fn kafka_backend_names_only_the_core_and_serde() {
    assert_eq!(
        foreign(
            "millstream-kafka",
            &["bytes", "millstream_core", "serde", "serde_core"]
        ),
        BTreeMap::new()
    );
}

#[test]
fn kinesis_backend_names_only_the_core_and_serde() {
    assert_eq!(
        foreign(
            "millstream-kinesis",
            &["bytes", "millstream_core", "serde", "serde_core"]
        ),
        BTreeMap::new()
    );
}

/// Returns the crates outside `allowed` whose types are in the public API of `package`, each with those
/// types.
fn foreign(package: &str, allowed: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let api: Value = serde_json::from_slice(&std::fs::read(document(package)).unwrap()).unwrap();
    let mut ids = BTreeSet::new();
    for item in api["index"].as_object().unwrap().values() {
        // Implementations of std for every type, and derived ones of the compiler, are not part
        // of the API.
        let implementation = &item["inner"]["impl"];
        if item["crate_id"] == 0
            && implementation["blanket_impl"].is_null()
            && implementation["is_synthetic"] != true
        {
            paths(&item["inner"], &mut ids);
        }
    }
    assert!(
        !ids.is_empty(),
        "rustdoc's output has no paths, so its form has changed"
    );
    let mut foreign = BTreeMap::<_, BTreeSet<_>>::new();
    for path in ids.iter().filter_map(|id| api["paths"].get(id)) {
        let origin = match path["crate_id"].to_string() {
            local if local == "0" => continue,
            id => api["external_crates"][id]["name"]
                .as_str()
                .unwrap()
                .to_owned(),
        };
        if !STANDARD.contains(&origin.as_str()) && !allowed.contains(&origin.as_str()) {
            let segments = path["path"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(Value::as_str);
            foreign
                .entry(origin)
                .or_default()
                .insert(segments.collect::<Vec<_>>().join("::"));
        }
    }
    foreign
}

/// Collects the ids of `{"path": .., "id": .., "args": ..}`, which represents each mention of a type or a
/// trait.
fn paths(value: &Value, ids: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if fields.contains_key("path") && fields.contains_key("args") {
                ids.insert(fields["id"].to_string());
            }
            fields.values().for_each(|each| paths(each, ids));
        }
        Value::Array(values) => values.iter().for_each(|each| paths(each, ids)),
        _ => {}
    }
}

/// Documents the package as JSON, in a separate folder: dependencies that are built for this cannot be used
/// for anything else.
fn document(package: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("external-types");
    let status = Command::new(env!("CARGO"))
        .current_dir(root)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", &target)
        .args([
            "rustdoc",
            "--quiet",
            "--locked",
            "--lib",
            "--package",
            package,
        ])
        .args(without_c_libraries())
        .args(["--", "-Zunstable-options", "--output-format", "json"])
        .status()
        .unwrap();
    assert!(status.success(), "rustdoc of {package}: {status}");
    target
        .join("doc")
        .join(format!("{}.json", package.replace('-', "_")))
}

/// Returns cargo settings that replace the builds of librdkafka and its libraries, because nothing is linked
/// here.
fn without_c_libraries() -> impl Iterator<Item = String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(rustc).arg("-vV").output().unwrap().stdout;
    let said = String::from_utf8(said).unwrap();
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.expect("rustc names its host").to_owned();
    let none = move |library| format!("--config=target.{host}.{library}.rustc-link-lib=[]");
    ["rdkafka", "z", "zstd"].into_iter().map(none)
}
