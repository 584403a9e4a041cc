//! Every event that the code emits is in a table of the docs with its levels, and every event in a
//! table is emitted. Nothing else is logged under a target of the SDK.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The levels of each event, by the event's name.
type Events = BTreeMap<String, BTreeSet<String>>;

/// The crates, and the files that list their events.
const CRATES: [(&str, &str); 5] = [
    ("core", "core/README.md"),
    ("sdk", "core/README.md"),
    ("backend-memory", "core/README.md"),
    ("backend-kafka", "backend-kafka/README.md"),
    ("backend-kinesis", "backend-kinesis/README.md"),
];

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

#[test]
fn the_tables_list_what_is_emitted() {
    let mut emitted: BTreeMap<&str, Events> = BTreeMap::new();
    for (name, table) in CRATES {
        let events = emitted.entry(table).or_default();
        for file in sources(&root().join(name).join("src")) {
            for (event, level) in emitted_by(&fs::read_to_string(file).unwrap()) {
                events.entry(event).or_default().insert(level);
            }
        }
    }
    for (table, events) in emitted {
        assert!(!events.is_empty(), "{table}");
        let listed = listed_in(&fs::read_to_string(root().join(table)).unwrap());
        assert_eq!(listed, events, "{table} (left) and the code (right) differ");
    }
}

#[test]
fn no_line_goes_round_the_events() {
    for (name, _) in CRATES {
        for file in sources(&root().join(name).join("src")) {
            let text = fs::read_to_string(&file).unwrap();
            let calls = LEVELS.map(|level| format!("tracing::{level}!("));
            for line in calls.iter().flat_map(|call| text.split(call).skip(1)) {
                // librdkafka's own messages, and its log of calls.
                assert!(
                    line.trim_start().starts_with("target: \"librdkafka\""),
                    "use the macro event!, in {}: {}",
                    file.display(),
                    line.lines().take(2).collect::<String>()
                );
            }
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Returns all Rust files in a folder and below it.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(sources(&path)),
            false if path.extension().is_some_and(|kind| kind == "rs") => found.push(path),
            false => {}
        }
    }
    found
}

/// Returns the names in the calls of the macro `event!`, each with its level.
fn emitted_by(text: &str) -> impl Iterator<Item = (String, String)> {
    text.split(" event!(").skip(1).map(|call| {
        let (level, rest) = call.trim_start().split_once(',').unwrap();
        let name = rest.trim_start().strip_prefix('"');
        let (name, _) = name.and_then(|rest| rest.split_once('"')).unwrap();
        (name.to_owned(), level.to_owned())
    })
}

/// Returns the event names in the first cells of rows, each with the levels in the second cell.
fn listed_in(text: &str) -> Events {
    let mut events = Events::new();
    for row in text.lines() {
        let Some(row) = row.strip_prefix("| `millstream.") else {
            continue;
        };
        let mut cells = row.split(" | ");
        let names = format!("`millstream.{}", cells.next().unwrap());
        let words = cells.next().unwrap().split(|c: char| !c.is_alphabetic());
        let levels: BTreeSet<String> = words
            .filter(|word| LEVELS.contains(word))
            .map(str::to_owned)
            .collect();
        for name in names.split('`').skip(1).step_by(2) {
            let before = events.insert(name.to_owned(), levels.clone());
            assert_eq!(before, None, "{name} is listed twice");
        }
    }
    events
}
