//! Dead letters: what they look like, and what happens when their stream does not take them.

use std::future::pending;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use millstream_core::driver::StoredRecord;
use millstream_core::{DeadLetter, ErrorKind, Headers, Position, Record, Retry};
use tokio::time::Instant;

use crate::desk::{checkpoint, group};
use crate::fake::{Call, Script};

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
        assert!(!letter.is_tombstone());
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
