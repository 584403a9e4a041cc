//! The settings that the readmes show can be read by a program that chooses its backend.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use millstream_examples::Settings;

#[test]
fn the_settings_that_are_shown_can_be_read() {
    let shown = include_str!("../../README.md").split("```toml\n").skip(1);
    let shown = shown.map(|rest| rest.split("```").next().unwrap_or_default());
    let settings = shown.filter(|text| text.starts_with("backend = "));
    let files = [
        include_str!("../kafka.toml"),
        include_str!("../kinesis.toml"),
        include_str!("../fleet.toml"),
    ];
    let mut read = Vec::new();
    let folder = tempfile::tempdir().unwrap();
    for text in settings.chain(files) {
        let file = folder.path().join("settings.toml");
        std::fs::write(&file, text).unwrap();
        let settings = Settings::load(Some(&file)).unwrap_or_else(|e| panic!("{e}: {text}"));
        read.push(match settings {
            Settings::Memory(_) => "memory",
            Settings::Kafka(_) => "kafka",
            Settings::Kinesis(_) => "kinesis",
            other => panic!("{other:?} is not shown"),
        });
    }
    let shown = ["memory", "kafka", "kinesis"];
    assert_eq!(read, [&shown[..], &["kafka", "kinesis", "memory"]].concat());
}
