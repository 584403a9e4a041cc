//! What of an event is in a log: the lines of `tracing-subscriber`, and what its filters select.

use std::future::pending;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream_core::{Delivery, Error, ErrorKind, Record, Retry, StreamSpec};
use millstream_memory::Config;
use tracing::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber, set_default};
use tracing_subscriber::EnvFilter;

use crate::fake::{Call, Script, until};

/// Where a subscriber writes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Writes the lines of this thread until the guard is dropped.
    ///
    /// The second dispatcher receives nothing. But while there is only one, `tracing` asks the thread
    /// that is first at an event whether anybody listens, and that may be the thread of another test.
    fn json(&self, filter: &str) -> (DefaultGuard, Dispatch) {
        let log = self.clone();
        let lines = tracing_subscriber::fmt()
            .json()
            .with_env_filter(EnvFilter::new(filter))
            .with_writer(move || log.clone());
        (
            set_default(lines.finish()),
            Dispatch::new(NoSubscriber::default()),
        )
    }

    /// As [`json`](Self::json), as text.
    fn text(&self, filter: &str) -> (DefaultGuard, Dispatch) {
        let log = self.clone();
        let lines = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(filter))
            .with_writer(move || log.clone());
        (
            set_default(lines.finish()),
            Dispatch::new(NoSubscriber::default()),
        )
    }

    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap();
        let text = std::str::from_utf8(&bytes).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// The one line that holds all of these.
    fn line(&self, words: &[&str]) -> String {
        let lines = self.lines();
        let found: Vec<_> = lines
            .iter()
            .filter(|line| words.iter().all(|word| line.contains(word)))
            .collect();
        assert_eq!(found.len(), 1, "{words:?} in {lines:#?}");
        found[0].clone()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Assigns a partition and takes it away, beside a producer that sends a record.
async fn lose_a_partition() {
    let script = Script::new();
    let producer = script.client.producer("dead").open().await.unwrap();
    producer
        .send(Record::new("p"))
        .await
        .unwrap()
        .await
        .unwrap();
    producer.close().await.unwrap();
    let group = script.client.group("store").stream("s");
    let run = group.run(|_: Delivery| async { Ok::<_, Error>(()) }, pending());
    let control = run.handle();
    let run = tokio::spawn(run);
    script.assign("0", 7);
    script.records("0", 7, 0, "a");
    script.until_called(Call::Checkpoint("0".into(), 0)).await;
    script.mark_lost("0", 7);
    until(|| control.stats().lost == 1).await;
    control.shutdown();
    run.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_line_of_json_holds_the_name_and_the_target() {
    let log = Log::default();
    let _listening = log.json("millstream=info");
    lose_a_partition().await;
    log.line(&[
        "\"level\":\"WARN\"",
        "\"target\":\"millstream::consumer\"",
        "\"event\":\"millstream.consumer.lost\"",
        "\"partition\":\"s/0\"",
        "\"epoch\":\"7\"",
    ]);
    log.line(&[
        "\"target\":\"millstream::producer\"",
        "\"event\":\"millstream.producer.closed\"",
    ]);
}

#[tokio::test(start_paused = true)]
async fn a_line_of_text_holds_the_name_and_the_target() {
    let log = Log::default();
    let _listening = log.text("millstream=info");
    lose_a_partition().await;
    log.line(&[
        "WARN millstream::consumer: ",
        "event=\"millstream.consumer.lost\"",
    ]);
}

#[tokio::test(start_paused = true)]
async fn a_filter_selects_a_part_by_its_target() {
    let log = Log::default();
    let _listening = log.json("millstream::consumer=info");
    lose_a_partition().await;
    log.line(&["\"event\":\"millstream.consumer.joined\""]);
    for line in log.lines() {
        assert!(line.contains("millstream.consumer."), "{line}");
        assert!(!line.contains("\"level\":\"DEBUG\""), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_takes_a_part_at_a_level_of_its_own() {
    let log = Log::default();
    let _listening = log.json("millstream=off,millstream::consumer=debug");
    lose_a_partition().await;
    log.line(&["\"event\":\"millstream.consumer.checkpointed\""]);
    let lines = log.lines();
    let of_producers = lines
        .iter()
        .find(|line| line.contains("millstream.producer"));
    assert_eq!(of_producers, None);
}

#[tokio::test(start_paused = true)]
async fn a_closed_producer_counts_what_its_pipeline_published() {
    let log = Log::default();
    let _listening = log.json("millstream::producer=info");
    let client = Config::default().connect().await.unwrap();
    for name in ["raw", "clean"] {
        client
            .streams()
            .create(StreamSpec::new(name))
            .await
            .unwrap();
    }
    let raw = client.producer("raw").open().await.unwrap();
    for id in 0..200 {
        drop(raw.send(Record::new(format!("{id}"))).await.unwrap());
    }
    raw.close().await.unwrap();
    let clean = client.producer("clean").open().await.unwrap();
    let pass_on = |delivery: Delivery| async move { Ok::<_, Error>([delivery.to_record()]) };
    let group = client.group("cleaner").stream("raw");
    let run = group.transform_to(&clean, pass_on, pending());
    let control = run.handle();
    let run = tokio::spawn(run);
    until(|| control.stats().published == 200).await;
    control.shutdown();
    run.await.unwrap().unwrap();
    clean.close().await.unwrap();
    log.line(&[
        "\"event\":\"millstream.producer.closed\"",
        "\"stream\":\"clean\"",
        "\"stored\":200",
        "\"failed\":0",
    ]);
}

/// An error of a disk, as the SDK's errors carry it.
fn no_space() -> Error {
    let full = io::Error::other("No space left on device (os error 28)");
    Error::new(
        ErrorKind::Unavailable,
        "checkpoint",
        "the folder cannot be written",
    )
    .with_source(Error::new(ErrorKind::Unavailable, "write", "the journal").with_source(full))
}

#[tokio::test(start_paused = true)]
async fn lines_hold_the_whole_chain_of_causes() {
    let log = Log::default();
    let _listening = log.json("millstream=debug");
    let script = Script::new();
    let retry = Retry::fixed(Duration::from_secs(1)).attempts(2);
    let group = script.client.group("g").stream("s").on_failure(retry);
    let run = group.run(|_: Delivery| async { Err::<(), _>(no_space()) }, pending());
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    run.await.unwrap_err();
    for (event, field) in [("retried", "reason"), ("closed", "error")] {
        let event = format!("\"event\":\"millstream.consumer.{event}\"");
        let line = log.line(&[&event]);
        let (_, said) = line.split_once(&format!("\"{field}\":\"")).unwrap();
        assert!(
            said.contains(
                "the folder cannot be written: write failed (unavailable): the journal: \
                 No space left on device (os error 28)\""
            ),
            "{line}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn lines_of_a_refused_checkpoint_hold_its_causes() {
    let log = Log::default();
    let _listening = log.json("millstream::consumer=warn");
    let script = Script::new();
    let group = script.client.group("g").stream("s");
    let run = group.run(|_: Delivery| async { Ok::<_, Error>(()) }, pending());
    let control = run.handle();
    let _run = tokio::spawn(run);
    script.refuse_updates_with([
        no_space(),
        Error::new(ErrorKind::Fenced, "checkpoint", "late"),
    ]);
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    until(|| control.stats().lost == 1).await;
    log.line(&["consumer.checkpoint_delayed", "No space left on device"]);
    log.line(&["consumer.fenced", "checkpoint failed (fenced): late"]);
}
