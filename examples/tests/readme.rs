//! The contents of the READMEs are usable: the program, the dependency, the settings and the links.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use millstream::{ErrorKind, Settings};
use toml::Table;

const README: &str = include_str!("../../README.md");
const BACKENDS: &str = include_str!("../../docs/backends.md");

/// Returns the code blocks in `language`.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let start = format!("```{language}\n");
    let blocks = text.split(&start).skip(1);
    blocks
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[test]
fn the_program_is_the_quickstart() {
    let quickstart = include_str!("../src/bin/quickstart.rs");
    let (_, program) = quickstart.split_once("\n\n").unwrap();
    assert_eq!(blocks(README, "rust"), [program]);
}

#[cfg(unix)]
#[test]
fn the_program_runs_until_a_signal() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MILLSTREAM_") {
            command.env_remove(name);
        }
    }
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let lines: Vec<_> = out.lines().take(3).map(Result::unwrap).collect();
    for (line, speed) in lines.iter().zip(["50", "80", "130"]) {
        assert!(line.contains(speed), "{lines:?}");
    }
    let killed = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_dependency_exists_with_its_features() {
    let shown: Vec<_> = blocks(README, "toml")
        .into_iter()
        .filter(|text| text.starts_with("[dependencies]"))
        .collect();
    let [shown] = &shown[..] else {
        panic!("{shown:?}")
    };
    let shown: Table = shown.parse().unwrap();
    let millstream = &shown["dependencies"]["millstream"];
    let path = millstream["path"].as_str().unwrap();
    let path = repository().join(path.strip_prefix("../millstream/").unwrap());
    let manifest: Table = std::fs::read_to_string(path.join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(manifest["package"]["name"].as_str(), Some("millstream"));
    for feature in millstream["features"].as_array().unwrap() {
        assert!(
            manifest["features"]
                .get(feature.as_str().unwrap())
                .is_some(),
            "{feature}"
        );
    }
}

#[test]
fn the_settings_can_be_read() {
    let shown = [README, BACKENDS].map(|text| blocks(text, "toml")).concat();
    let shown = shown
        .into_iter()
        .filter(|text| text.starts_with("backend = "));
    let files = [
        include_str!("../kafka.toml"),
        include_str!("../kinesis.toml"),
        include_str!("../fleet.toml"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut read = Vec::new();
    for text in shown.chain(files) {
        let file = folder.path().join("settings.toml");
        std::fs::write(&file, text).unwrap();
        let named: Table = text.parse().unwrap();
        let named = named["backend"].as_str().unwrap().to_owned();
        match Settings::load(&file) {
            Ok(settings) => assert_eq!(settings.backend(), named),
            // Not in this build; `tests/run` has all features.
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}: {text}");
                let built = [
                    ("memory", true),
                    ("kafka", cfg!(feature = "kafka")),
                    ("kinesis", cfg!(feature = "kinesis")),
                ];
                let is_built = built.contains(&(&*named, true));
                assert!(!is_built, "{error}");
            }
        }
        read.push(named);
    }
    let shown = ["kafka", "memory", "kafka", "kinesis"];
    assert_eq!(read, [&shown[..], &["kafka", "kinesis", "memory"]].concat());
}

#[test]
fn the_links_lead_somewhere() {
    let mut links = 0;
    for (folder, text) in [
        ("", README),
        ("docs", BACKENDS),
        ("examples", include_str!("../README.md")),
    ] {
        for link in text
            .split("](")
            .skip(1)
            .map(|rest| rest.split(')').next().unwrap())
        {
            let path = link.split('#').next().unwrap();
            assert!(
                repository().join(folder).join(path).exists(),
                "{folder}: {link}"
            );
            links += 1;
        }
    }
    assert!(links > 10);
}
