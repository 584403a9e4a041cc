//! What a member says of partitions that do not move on.

use std::fmt::{Debug, Write};
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream_core::{DeadLetter, Failure, OnExhausted, Retry};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Metadata, Subscriber};

use crate::desk::{Desk, checkpoint, group};
use crate::fake::{Call, Script, partition, until};

const HOUR: Duration = Duration::from_secs(3_600);

/// Notes the events about pauses, stalls and what is left unsettled, each as one line.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if !matches!(field.name(), "event" | "message" | "group" | "member") {
            write!(self.0, " {}={value:?}", field.name()).unwrap();
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

impl Lines {
    /// Listens on this thread until the guard is dropped. Why there are two dispatchers is said in
    /// `telemetry`.
    fn listen(&self) -> (tracing::subscriber::DefaultGuard, Dispatch) {
        let guard = tracing::subscriber::set_default(self.clone());
        (guard, Dispatch::new(self.clone()))
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn count(&self, start: &str) -> usize {
        self.all()
            .iter()
            .filter(|line| line.starts_with(start))
            .count()
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("millstream")
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let name = event.metadata().name();
        let name = name.strip_prefix("millstream.consumer.").unwrap_or(name);
        let reported = ["paused", "resumed", "stalled", "recovered", "unsettled"];
        if reported.contains(&name) {
            let mut line = Line(name.to_owned());
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_partition_at_its_bound_names_what_it_waits_for() {
    let lines = Lines::default();
    let _listening = lines.listen();
    let (script, desk) = (Script::new(), Desk::default());
    desk.fail(0, 1);
    let retry = Retry::fixed(HOUR);
    let (control, _run) = desk.run(
        group(&script)
            .max_unsettled_per_partition(4)
            .on_failure(retry),
    );
    script.assign("0", 1);
    script.records("0", 1, 0, "abcde");
    until(|| lines.count("paused") == 1).await;
    let line = &lines.all()[0];
    let start = "paused partition=s/0 reason=max_unsettled_per_partition unsettled=5 position=0 key=a \
                 attempt=2 age=1";
    assert!(line.starts_with(start), "{line}");
    assert!(line.contains(" next_attempt=3599"), "{line}");
    let oldest = control.partitions()[&partition("0")]
        .oldest_unsettled
        .clone();
    let oldest = oldest.unwrap();
    assert_eq!((oldest.position, oldest.attempt), (0.into(), 2));
    assert_eq!(oldest.key.as_deref(), Some(&b"a"[..]));
    assert!(oldest.age().unwrap() >= Duration::from_secs(1));
    let waits = oldest.next_attempt().unwrap();
    assert!(
        waits < HOUR && waits > HOUR - Duration::from_secs(60),
        "{waits:?}"
    );
    tokio::time::sleep(HOUR).await;
    script.until_called(checkpoint("0", 4)).await;
    until(|| lines.count("resumed") == 1).await;
    assert_eq!(lines.count("paused"), 1, "{:?}", lines.all());
    assert_eq!(control.partitions()[&partition("0")].oldest_unsettled, None);
}

#[tokio::test(start_paused = true)]
async fn a_busy_partition_that_reaches_its_bounds_reports_nothing() {
    let lines = Lines::default();
    let _listening = lines.listen();
    let script = Script::new();
    let handler = |_| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok::<(), String>(())
    };
    let run = group(&script)
        .max_unsettled_per_partition(2)
        .run(handler, pending());
    tokio::spawn(run);
    script.assign("0", 1);
    for round in 0..20 {
        script.records("0", 1, 3 * round, "aaa");
        script.until_called(checkpoint("0", 3 * round + 2)).await;
    }
    assert!(script.calls().contains(&Call::Pause("0".into())));
    assert_eq!(lines.all(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_does_not_end_is_reported_once() {
    let lines = Lines::default();
    let _listening = lines.listen();
    let (script, desk) = (Script::new(), Desk::default());
    let gate = desk.gate(0);
    let age = Duration::from_secs(30);
    let (control, _run) = desk.run(group(&script).stall_warning(age));
    script.assign("0", 1);
    script.records("0", 1, 0, "aab");
    until(|| lines.count("stalled") == 1).await;
    let start = "stalled partition=s/0 unsettled=3 position=0 key=a attempt=1 age=3";
    assert!(lines.all()[0].starts_with(start), "{:?}", lines.all());
    tokio::time::sleep(24 * HOUR).await;
    let oldest = control.partitions()[&partition("0")]
        .oldest_unsettled
        .clone();
    assert!(oldest.unwrap().age().unwrap() >= 24 * HOUR);
    assert_eq!(lines.all().len(), 1);
    gate.notify_one();
    until(|| lines.count("recovered") == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_close_says_what_it_leaves_unsettled() {
    let lines = Lines::default();
    let _listening = lines.listen();
    let (script, desk) = (Script::new(), Desk::default());
    desk.gate(1);
    desk.fail(2, 1);
    let (control, run) = desk.run(group(&script).on_failure(Retry::fixed(HOUR)));
    script.assign("0", 1);
    script.records("0", 1, 0, "abc");
    desk.until_begun(&[0, 1, 2]).await;
    control.shutdown();
    run.await.unwrap().unwrap();
    assert_eq!(
        lines.all(),
        ["unsettled partition=s/0 position=1 unsettled=2"]
    );
    assert_eq!(control.stats().abandoned, 2);
}

#[tokio::test(start_paused = true)]
async fn pauses_that_were_asked_for_are_reported() {
    let lines = Lines::default();
    let _listening = lines.listen();
    let (script, desk) = (Script::new(), Desk::default());
    let (control, _run) = desk.run(group(&script));
    script.assign("0", 1);
    until(|| control.stats().assigned == 1).await;
    control.pause_all();
    until(|| lines.count("paused") == 1).await;
    control.resume_all();
    until(|| lines.count("resumed") == 1).await;
    let expected = [
        "paused partition=s/0 reason=user",
        "resumed partition=s/0 reason=user",
    ];
    assert_eq!(lines.all(), expected);
}

/// 100 bytes of records are nothing to a buffer of 64 MiB; a retry for each is.
#[tokio::test(start_paused = true)]
async fn deliveries_that_wait_for_a_retry_are_bounded() {
    let lines = Lines::default();
    let _listening = lines.listen();
    let script = Script::new();
    let down = |_| async { Err::<(), _>(Failure::unavailable("down")) };
    let run = group(&script).buffer_bytes(64 << 10).run(down, pending());
    let control = run.handle();
    tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, &"-".repeat(1_000));
    until(|| lines.count("paused") == 1).await;
    assert!(
        lines.all()[0].contains("reason=retries"),
        "{:?}",
        lines.all()
    );
    let in_flight = control.stats().in_flight;
    assert!((8..=64).contains(&in_flight), "{in_flight} wait");
    // Another partition has a share of its own.
    script.assign("1", 1);
    script.records("1", 1, 0, "-");
    until(|| control.stats().in_flight > in_flight).await;
}

/// The same holds while the dead letter stream is down.
#[tokio::test(start_paused = true)]
async fn deliveries_that_wait_for_their_letter_are_bounded() {
    let script = Script::new();
    *script.letters().latency.lock().unwrap() = Duration::from_secs(60);
    let dead = Retry::none().then(DeadLetter::stream("dead"));
    let run = group(&script)
        .buffer_bytes(64 << 10)
        .on_failure(dead)
        .run(|_| async { Err::<(), _>("no") }, pending());
    let control = run.handle();
    tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, &"-".repeat(1_000));
    until(|| control.stats().failures > 0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let in_flight = control.stats().in_flight;
    assert!((8..=64).contains(&in_flight), "{in_flight} wait");
    *script.letters().latency.lock().unwrap() = Duration::ZERO;
    until(|| control.stats().settled == 1_000).await;
    assert_eq!(control.stats().in_flight, 0);
}

/// Neither the room of an attempt nor its permit is held by what waits.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_retry_takes_no_place_of_an_attempt() {
    let (script, desk) = (Script::new(), Desk::default());
    (0..50).for_each(|position| desk.fail(position, 1));
    let retry = Retry::fixed(HOUR).then(OnExhausted::Skip);
    let (control, _run) = desk.run(group(&script).concurrency(1).on_failure(retry));
    script.assign("0", 1);
    script.records("0", 1, 0, &"-".repeat(60));
    until(|| control.stats().settled == 10).await;
    assert_eq!(control.stats().in_flight, 50);
    tokio::time::sleep(HOUR).await;
    script.until_called(checkpoint("0", 59)).await;
    assert_eq!(control.stats().in_flight, 0);
}

/// A letter under way is no attempt either.
#[tokio::test(start_paused = true)]
async fn what_waits_for_its_letter_takes_no_place_of_an_attempt() {
    let (script, desk) = (Script::new(), Desk::default());
    *script.letters().latency.lock().unwrap() = Duration::from_secs(1);
    (0..50).for_each(|position| desk.fail(position, 1));
    let dead = Retry::none().then(DeadLetter::stream("dead"));
    let (control, _run) = desk.run(group(&script).concurrency(1).on_failure(dead));
    script.assign("0", 1);
    script.records("0", 1, 0, &"-".repeat(60));
    until(|| control.stats().settled == 10).await;
    assert_eq!(control.stats().in_flight, 50);
    assert!(script.letters().records().is_empty(), "none is stored yet");
    script.until_called(checkpoint("0", 59)).await;
    assert_eq!(script.letters().records().len(), 50);
}
