//! What becomes of a failure: how often it is tried, what it holds up, and how it ends.

use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use millstream_core::driver::{Event, StoredRecord};
use millstream_core::{
    BatchFailure, DeadLetter, Delivery, Epoch, Error, ErrorKind, Failure, Headers, OnExhausted,
    Position, Record, Retry,
};
use tokio::time::Instant;

use crate::desk::{Desk, checkpoint, group};
use crate::fake::{Call, Script, partition, until};

/// The positions and the attempts of a batch.
type Batch = Vec<(u64, u32)>;

/// Notes what it is handed.
#[derive(Clone, Default)]
struct Batches(Arc<Mutex<Vec<Batch>>>);

impl Batches {
    fn note(&self, batch: &[Delivery]) {
        let places = batch
            .iter()
            .map(|delivery| (delivery.position().offset().unwrap(), delivery.attempt()));
        self.0.lock().unwrap().push(places.collect());
    }

    fn seen(&self) -> Vec<Batch> {
        self.0.lock().unwrap().clone()
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_failure_at_an_index_settles_what_is_before_it_also_at_a_stop() {
    let script = Script::new();
    let run = group(&script).on_failure(Retry::none()).run_batches(
        3,
        |_| async { Err(BatchFailure::at(1, "no")) },
        pending(),
    );
    let run = tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "abc");
    let error = run.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler);
    assert_eq!(script.steps(), [checkpoint("0", 0), Call::Leave]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_failure_at_an_index_is_checkpointed_during_the_retries() {
    let script = Script::new();
    let retry = Retry::fixed(Duration::from_secs(3_600));
    let run = group(&script).on_failure(retry).run_batches(
        3,
        |_| async { Err(BatchFailure::at(2, "no")) },
        pending(),
    );
    let control = run.handle();
    tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "abc");
    until(|| control.stats().failures == 1).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(script.steps(), [checkpoint("0", 1)]);
    assert_eq!(control.stats().settled, 2);
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_next_attempt_comes_too_late_holds_up_no_shutdown() {
    let (script, desk) = (Script::new(), Desk::default());
    desk.fail(0, 1);
    let (control, run) = desk.run(
        group(&script)
            .on_failure(Retry::fixed(Duration::from_secs(30)))
            .drain_timeout(Duration::from_secs(10)),
    );
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    until(|| control.stats().failures == 1).await;
    let asked = Instant::now();
    control.shutdown();
    run.await.unwrap().unwrap();
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_next_attempt_comes_too_late_holds_up_no_release() {
    let (script, desk) = (Script::new(), Desk::default());
    desk.fail(1, 1);
    let (control, _run) =
        desk.run(group(&script).on_failure(Retry::fixed(Duration::from_secs(30))));
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    until(|| control.stats().failures == 1).await;
    let asked = Instant::now();
    script.revoke("0", 1, Duration::from_secs(10));
    script.until_called(Call::Release("0".into())).await;
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(
        script.steps(),
        [checkpoint("0", 0), Call::Release("0".into())]
    );
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_next_attempt_comes_in_time_is_waited_for() {
    let (script, desk) = (Script::new(), Desk::default());
    desk.fail(0, 1);
    let (control, run) = desk.run(group(&script).on_failure(Retry::fixed(Duration::from_secs(5))));
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    until(|| control.stats().failures == 1).await;
    control.shutdown();
    run.await.unwrap().unwrap();
    assert_eq!(script.steps(), [checkpoint("0", 0), Call::Leave]);
}

#[tokio::test(start_paused = true)]
async fn one_bad_record_of_a_batch_is_found_before_it_is_given_up() {
    let script = Script::new();
    let batches = Batches::default();
    let seen = batches.clone();
    let handler = move |batch: Vec<Delivery>| {
        seen.note(&batch);
        async move {
            match batch.iter().any(|delivery| *delivery.payload() == "5") {
                true => Err(BatchFailure::from("one of them is bad")),
                false => Ok(()),
            }
        }
    };
    let retry = Retry::fixed(Duration::from_secs(1))
        .attempts(2)
        .then(DeadLetter::stream("dead"));
    let run = group(&script)
        .on_failure(retry)
        .run_batches(8, handler, pending());
    let control = run.handle();
    tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "abcdefgh");
    script.until_called(checkpoint("0", 7)).await;
    let letters = script.letters().records();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0].payload.as_deref(), Some(&b"5"[..]));
    assert_eq!(
        (control.stats().dead_lettered, control.stats().settled),
        (1, 8)
    );
    let sizes: Vec<_> = batches.seen().iter().map(Vec::len).collect();
    assert_eq!(sizes, [8, 8, 4, 4, 2, 1, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_bad_records_is_dead_lettered_side_by_side() {
    let script = Script::new();
    *script.letters().latency.lock().unwrap() = Duration::from_secs(1);
    let run = group(&script)
        .on_failure(Retry::none().then(DeadLetter::stream("dead")))
        .run_batches(
            16,
            |_| async { Err(BatchFailure::from("all are bad")) },
            pending(),
        );
    tokio::spawn(run);
    script.assign("0", 1);
    let begun = Instant::now();
    script.records("0", 1, 0, "abcdefghijklmnop");
    until(|| script.letters().records().len() == 16).await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn letters_of_one_key_keep_their_order() {
    let script = Script::new();
    let run = group(&script)
        .on_failure(Retry::none().then(DeadLetter::stream("dead")))
        .run_batches(
            16,
            |_| async { Err(BatchFailure::from("all are bad")) },
            pending(),
        );
    tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "aaaaaaaa");
    until(|| script.letters().records().len() == 8).await;
    let letters = script.letters().records();
    assert!(letters.iter().map(|letter| &letter.payload).is_sorted());
}

#[tokio::test(start_paused = true)]
async fn attempts_are_counted_for_each_delivery_of_a_batch() {
    let script = Script::new();
    let batches = Batches::default();
    let seen = batches.clone();
    let handler = move |batch: Vec<Delivery>| {
        seen.note(&batch);
        let first_attempt = batch[0].attempt();
        let last_failed = batch.len() == 1 && first_attempt == 1;
        async move {
            match first_attempt {
                1..=3 if batch.len() == 2 => Err(BatchFailure::at(0, "no")),
                4 => Err(BatchFailure::at(1, "no")),
                _ if last_failed => Err(BatchFailure::at(0, "no")),
                _ => Ok(()),
            }
        }
    };
    let retry = Retry::fixed(Duration::from_secs(1));
    tokio::spawn(
        group(&script)
            .on_failure(retry)
            .run_batches(2, handler, pending()),
    );
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    script.until_called(checkpoint("0", 1)).await;
    assert_eq!(
        batches.seen(),
        [
            vec![(0, 1), (1, 1)],
            vec![(0, 2), (1, 1)],
            vec![(0, 3), (1, 1)],
            vec![(0, 4), (1, 1)],
            vec![(1, 2)],
        ]
    );
    assert_eq!(batches.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn the_default_policy_survives_five_minutes_without_a_database() {
    let script = Script::new();
    let up = Instant::now() + Duration::from_secs(300);
    let run = tokio::spawn(group(&script).run(
        move |_| async move {
            match Instant::now() < up {
                true => Err("connection refused"),
                false => Ok(()),
            }
        },
        pending(),
    ));
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    until(|| run.is_finished() || script.steps().contains(&checkpoint("0", 0))).await;
    assert!(!run.is_finished(), "the member has stopped");
}

#[derive(Debug)]
struct TankOnFire(u32);

impl fmt::Display for TankOnFire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tank {} is on fire", self.0)
    }
}

impl std::error::Error for TankOnFire {}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_handler_is_the_source_of_the_end() {
    let script = Script::new();
    let run = group(&script)
        .on_failure(Retry::none())
        .run(|_| async { Err(TankOnFire(7)) }, pending());
    let run = tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    let error = run.await.unwrap().unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(
        source.downcast_ref::<TankOnFire>().map(|tank| tank.0),
        Some(7)
    );
    let printed = format!("{error:?}");
    assert_eq!(printed.matches("on fire").count(), 1, "{printed}");
}

/// An error whose text cannot be had.
#[derive(Debug)]
struct Speechless;

impl fmt::Display for Speechless {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::panic::resume_unwind(Box::new("there is no text"))
    }
}

impl std::error::Error for Speechless {}

/// An error whose cause cannot be had.
#[derive(Debug)]
struct Groundless;

impl fmt::Display for Groundless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("groundless")
    }
}

impl std::error::Error for Groundless {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::panic::resume_unwind(Box::new("there is no cause"))
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_whose_text_panics_ends_nothing_but_its_record() {
    ends_nothing_but_its_record(|| Speechless).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_whose_source_panics_ends_nothing_but_its_record() {
    ends_nothing_but_its_record(|| Groundless).await;
}

async fn ends_nothing_but_its_record<E>(error: fn() -> E)
where
    E: std::error::Error + Send + Sync + 'static,
{
    for exhausted in [OnExhausted::Skip, DeadLetter::stream("dead").into()] {
        let script = Script::new();
        let retry = Retry::fixed(Duration::from_secs(1)).attempts(2);
        let handler = move |delivery: Delivery| async move {
            match &delivery.payload()[..] {
                b"0" => Err(error()),
                _ => Ok(()),
            }
        };
        let run = group(&script)
            .on_failure(retry.then(exhausted))
            .run(handler, pending());
        tokio::spawn(run);
        script.assign("0", 1);
        script.records("0", 1, 0, "aa");
        script.until_called(checkpoint("0", 1)).await;
    }
    let script = Script::new();
    let run = group(&script)
        .on_failure(Retry::none())
        .run(move |_| async move { Err(error()) }, pending());
    let run = tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    let error = run.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler);
    assert_eq!(script.steps(), [Call::Leave]);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_panics_ends_the_member_in_order() {
    let methods = [
        "next",
        "checkpoint",
        "publish",
        "release",
        "complete",
        "leave",
        "pause",
        "resume",
    ];
    for method in methods {
        let (script, desk) = (Script::new(), Desk::default());
        let (control, run) = match method {
            "publish" => {
                let results = script.client.producer("results").open().await.unwrap();
                let transform = |_| async { Ok::<_, String>([Record::new("result")]) };
                let run = group(&script).transform_to(&results, transform, pending());
                (run.handle(), tokio::spawn(run))
            }
            _ => desk.run(group(&script)),
        };
        script.assign("0", 1);
        script.panic_in(method);
        script.records("0", 1, 0, "a");
        match method {
            "next" => script.records("0", 1, 1, "a"),
            "release" => script.revoke("0", 1, Duration::from_secs(10)),
            "complete" => script.emit(Event::Ended {
                partition: partition("0"),
                epoch: Epoch(1),
            }),
            "pause" => control.pause_all(),
            "resume" => {
                control.pause_all();
                script.until_called(Call::Pause("0".into())).await;
                control.resume_all();
            }
            "leave" => control.shutdown(),
            _ => {}
        }
        let ended = run.await.unwrap_or_else(|_| panic!("{method} unwinds"));
        let error = ended.unwrap_err();
        assert!(error.message().contains("panicked"), "{method}: {error}");
        assert_eq!(
            script.steps().contains(&Call::Leave),
            method != "leave",
            "{method}"
        );
    }
}

/// The producer gives up within seconds, so its delays between retries never grow to those of a long
/// outage: the key goes on soon after the stream is back.
#[tokio::test(start_paused = true)]
async fn a_letter_is_sent_anew_within_seconds_while_its_stream_is_down() {
    let script = Script::new();
    *script.letters().refuses.lock().unwrap() = |_| Some(ErrorKind::Unavailable);
    let run = group(&script)
        .on_failure(Retry::none().then(DeadLetter::stream("dead")))
        .run(|_| async { Err("no") }, pending());
    tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    tokio::time::sleep(Duration::from_secs(60)).await;
    // With one delay after the other up to the longest one, it would be about 15.
    let calls = script.letters().calls();
    assert!(calls >= 30, "{calls} calls within a minute");
    *script.letters().refuses.lock().unwrap() = |_| None;
    let up = Instant::now();
    script.until_called(checkpoint("0", 0)).await;
    let took = up.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_is_too_large_by_its_headers_is_stored_all_the_same() {
    let script = Script::new();
    script.letters().limits.lock().unwrap().record_bytes = 200;
    let run = group(&script)
        .on_failure(Retry::none().then(DeadLetter::stream("dead")))
        .run(|_| async { Err("x".repeat(500)) }, pending());
    tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    script.until_called(checkpoint("0", 0)).await;
    let letters = script.letters().records();
    assert_eq!(letters[0].payload.as_deref(), Some(&b"0"[..]));
    assert_eq!(
        letters[0].headers.get_str("millstream-dead-position"),
        Some("0")
    );
}

/// Whether this is one of the 5 % that cannot be parsed.
fn is_malformed(delivery: &Delivery) -> bool {
    delivery.position().offset().unwrap() % 20 == 7
}

#[tokio::test(start_paused = true)]
async fn malformed_records_cost_no_time() {
    let keys: String = "abcdefghij".repeat(100);
    let policy = Retry::exponential().then(DeadLetter::stream("dead"));
    let each = |delivery: Delivery| async move {
        match is_malformed(&delivery) {
            true => Err(Failure::permanent("not JSON")),
            false => Ok(()),
        }
    };
    let at_index = |batch: Vec<Delivery>| async move {
        match batch.iter().position(is_malformed) {
            Some(index) => Err(BatchFailure::at(index, Failure::permanent("not JSON"))),
            None => Ok(()),
        }
    };
    let whole = |batch: Vec<Delivery>| async move {
        match batch.iter().any(is_malformed) {
            true => Err(BatchFailure::from(Failure::permanent("not JSON"))),
            false => Ok(()),
        }
    };
    for way in 0..3 {
        let script = Script::new();
        let group = group(&script).on_failure(policy.clone());
        let run = match way {
            0 => group.run(each, pending()),
            1 => group.run_batches(500, at_index, pending()),
            _ => group.run_batches(500, whole, pending()),
        };
        let control = run.handle();
        tokio::spawn(run);
        script.assign("0", 1);
        let begun = Instant::now();
        script.records("0", 1, 0, &keys);
        until(|| control.stats().settled == 1_000).await;
        assert!(
            begun.elapsed() < Duration::from_millis(500),
            "{way}: {:?}",
            begun.elapsed()
        );
        assert_eq!(control.stats().dead_lettered, 50);
        assert_eq!(script.letters().records().len(), 50);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_uses_up_no_attempts_and_holds_up_its_key_only() {
    let script = Script::new();
    let up = Instant::now() + Duration::from_secs(3_600);
    let attempts = Batches::default();
    let seen = attempts.clone();
    let run = group(&script).on_failure(Retry::none()).run(
        move |delivery: Delivery| {
            seen.note(std::slice::from_ref(&delivery));
            async move {
                match delivery.key().is_some_and(|key| key == "a") && Instant::now() < up {
                    true => Err(Failure::unavailable("connection refused")),
                    false => Ok(()),
                }
            }
        },
        pending(),
    );
    let run = tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "aba");
    until(|| attempts.seen().contains(&vec![(1, 1)])).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(360)).await;
    }
    script.until_called(checkpoint("0", 2)).await;
    assert!(!run.is_finished());
    let seen = attempts.seen();
    assert!(seen.iter().all(|places| places[0].1 == 1), "{seen:?}");
    // At the most one attempt in 30 s, after some quick ones.
    assert!((60..140).contains(&seen.len()), "{}", seen.len());
}

#[tokio::test(start_paused = true)]
async fn a_failure_says_when_to_try_again() {
    let script = Script::new();
    let run = group(&script).run(
        |delivery: Delivery| async move {
            match delivery.attempt() {
                1 => Err(Failure::retry_after("busy", Duration::from_secs(77))),
                _ => Ok(()),
            }
        },
        pending(),
    );
    let control = run.handle();
    tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    until(|| control.stats().failures == 1).await;
    let failed = Instant::now();
    until(|| control.stats().settled == 1).await;
    let took = failed.elapsed().as_secs();
    assert!((76..79).contains(&took), "{took} s");
}

#[tokio::test(start_paused = true)]
async fn a_predicate_makes_failures_permanent() {
    let script = Script::new();
    let retry = Retry::fixed(Duration::from_secs(3_600))
        .retry_if(|error| !error.is::<TankOnFire>())
        .then(OnExhausted::Skip);
    let run = group(&script)
        .on_failure(retry)
        .run(|_| async { Err(TankOnFire(1)) }, pending());
    let control = run.handle();
    tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    until(|| control.stats().skipped == 1).await;
    assert_eq!(control.stats().failures, 1);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_takes_too_long_has_failed_and_its_helpers_learn_of_it() {
    let script = Script::new();
    let (attempts, mut lost) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |delivery: Delivery| {
        let attempts = attempts.clone();
        async move {
            if delivery.attempt() == 1 {
                let helped = delivery.clone();
                tokio::spawn(async move {
                    helped.lost().await;
                    attempts.send((helped.attempt(), helped.is_lost())).unwrap();
                });
                pending::<()>().await;
            }
            assert!(!delivery.is_lost(), "the second attempt is wanted");
            Ok::<(), String>(())
        }
    };
    let run = group(&script)
        .handler_timeout(Duration::from_secs(30))
        .on_failure(Retry::fixed(Duration::from_secs(1)))
        .run(handler, pending());
    let control = run.handle();
    tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    assert_eq!(lost.recv().await, Some((1, true)));
    script.until_called(checkpoint("0", 0)).await;
    assert_eq!((control.stats().failures, control.stats().lost), (1, 0));

    let script = Script::new();
    let run = group(&script)
        .handler_timeout(Duration::from_secs(30))
        .on_failure(Retry::none())
        .run(|_| pending::<Result<(), String>>(), pending());
    let run = tokio::spawn(run);
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    let error = run.await.unwrap().unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    let timeout = source.downcast_ref::<Error>().unwrap();
    assert_eq!(timeout.kind(), ErrorKind::Timeout);
}

/// Dead-letters one record and returns its letter.
async fn dead_letter(script: &Script, record: StoredRecord) -> Record {
    let position = record.position.offset().unwrap();
    let run = group(script)
        .on_failure(Retry::none().then(DeadLetter::stream("dead")))
        .run(|_| async { Err("no good".repeat(200)) }, pending());
    let control = run.handle();
    tokio::spawn(run);
    script.assign("0", 1);
    script.record("0", 1, record);
    script.until_called(checkpoint("0", position)).await;
    let letter = script.letters().records().remove(0);
    let changed = u64::from(letter.headers.contains("millstream-dead-changed"));
    assert_eq!(control.stats().dead_letters_changed, changed);
    letter
}

fn stored(key: Option<&'static [u8]>, headers: Headers) -> StoredRecord {
    StoredRecord {
        position: Position::from(7),
        timestamp: SystemTime::UNIX_EPOCH - Duration::from_millis(5),
        key: key.map(Bytes::from_static),
        payload: Some(Bytes::from_static(b"payload")),
        headers,
    }
}

fn header<'a>(letter: &'a Record, name: &str) -> Option<&'a str> {
    letter.headers.get_str(&format!("millstream-dead-{name}"))
}

#[tokio::test(start_paused = true)]
async fn a_letter_has_its_own_time_and_one_set_of_headers() {
    let script = Script::new();
    let again = [
        ("trace", "7"),
        ("millstream-dead-reason", "an older one"),
        ("millstream-dead-position", "99"),
    ];
    let letter = dead_letter(&script, stored(Some(b"a"), Headers::from_iter(again))).await;
    assert_eq!(
        (letter.timestamp, header(&letter, "timestamp")),
        (None, Some("-5"))
    );
    assert_eq!(header(&letter, "position"), Some("7"));
    assert_eq!(letter.headers.get_all("millstream-dead-reason").count(), 1);
    assert_eq!(
        letter.headers.get_all("millstream-dead-position").count(),
        1
    );
    assert_eq!(letter.headers.get_str("trace"), Some("7"));
    assert_eq!(header(&letter, "changed"), None);
}

#[tokio::test(start_paused = true)]
async fn odd_header_names_do_not_keep_a_record_from_becoming_a_letter() {
    let script = Script::new();
    let odd = Headers::from_iter([("", "none"), ("a\0b", "nul"), ("fine", "yes")]);
    let letter = dead_letter(&script, stored(Some(b"a"), odd)).await;
    assert_eq!(header(&letter, "named-"), Some("none"));
    assert_eq!(header(&letter, "named-a%00b"), Some("nul"));
    assert_eq!(letter.headers.get_str("fine"), Some("yes"));
    assert_eq!(header(&letter, "changed"), Some("header names"));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_the_stream_does_not_take_is_kept_in_a_header() {
    let script = Script::new();
    script.letters().limits.lock().unwrap().text_key = true;
    let letter = dead_letter(&script, stored(Some(b"\xff\xfe"), Headers::new())).await;
    let kept = letter.headers.get("millstream-dead-key").unwrap();
    assert_eq!(
        (&kept[..], letter.payload.as_deref().unwrap()),
        (&b"\xff\xfe"[..], &b"payload"[..])
    );
    assert_eq!(header(&letter, "changed"), Some("key"));

    let script = Script::new();
    *script.letters().refuses.lock().unwrap() =
        |record| record.key.is_none().then_some(ErrorKind::Invalid);
    let letter = dead_letter(&script, stored(None, Headers::new())).await;
    assert!(letter.key.is_some() && header(&letter, "key").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_letter_loses_step_by_step_what_does_not_fit() {
    let headers = || Headers::from_iter([("trace", "x".repeat(300))]);
    let steps = [
        (2_000, None),
        (1_000, Some("reason")),
        (600, Some("reason")),
        (350, Some("headers,reason")),
        (200, Some("headers,payload,reason")),
    ];
    for (limit, changed) in steps {
        let script = Script::new();
        script.letters().limits.lock().unwrap().record_bytes = limit;
        let mut record = stored(Some(b"a"), headers());
        record.payload = Some(vec![b'x'; 100].into());
        let letter = dead_letter(&script, record).await;
        assert_eq!(header(&letter, "changed"), changed, "{limit} bytes");
        assert!(letter.size() <= limit);
        assert_eq!(header(&letter, "position"), Some("7"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_refuses_all_letters_stops_the_member() {
    for kind in [ErrorKind::Invalid, ErrorKind::TooLarge, ErrorKind::Denied] {
        let script = Script::new();
        let refuses: crate::letters::Refuses = match kind {
            ErrorKind::Invalid => |_| Some(ErrorKind::Invalid),
            ErrorKind::TooLarge => |_| Some(ErrorKind::TooLarge),
            _ => |_| Some(ErrorKind::Denied),
        };
        *script.letters().refuses.lock().unwrap() = refuses;
        let run = group(&script)
            .on_failure(Retry::none().then(DeadLetter::stream("dead")))
            .run(|_| async { Err("no") }, pending());
        let run = tokio::spawn(run);
        script.assign("0", 1);
        script.records("0", 1, 0, "a");
        let error = run.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(script.steps(), [Call::Leave], "the record comes again");
    }
}

#[tokio::test(start_paused = true)]
async fn dead_letters_to_a_stream_without_headers_are_refused_at_the_start() {
    let script = Script::new();
    *script.letters().validate.lock().unwrap() =
        |record| (!record.headers.is_empty()).then_some(ErrorKind::Invalid);
    let dead_letters = group(&script).on_failure(Retry::none().then(DeadLetter::stream("dead")));
    let error = dead_letters.join().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.operation()),
        (ErrorKind::Invalid, "join")
    );
    assert_eq!((error.stream(), error.group()), (Some("dead"), Some("g")));
    for words in ["dead letters", "set headers to allow"] {
        assert!(error.message().contains(words), "{error}");
    }
    assert!(
        script.joins().is_empty(),
        "no partition moves to the member"
    );
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_stream_that_refuses_some_records_is_no_reason_not_to_start() {
    let refuses: [crate::letters::Refuses; 3] = [
        |record| record.key.is_none().then_some(ErrorKind::Invalid),
        |record| record.payload.is_none().then_some(ErrorKind::Invalid),
        |record| record.timestamp.is_some().then_some(ErrorKind::Invalid),
    ];
    for refuses in refuses {
        let script = Script::new();
        *script.letters().validate.lock().unwrap() = refuses;
        script.letters().limits.lock().unwrap().key_bytes = 1;
        script.letters().limits.lock().unwrap().empty_key = false;
        let policy = Retry::none().then(DeadLetter::stream("dead"));
        group(&script).on_failure(policy).join().await.unwrap();
    }
}
