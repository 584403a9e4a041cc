//! C3: every readable record can be dead-lettered, however unusual it is, and the group continues.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millstream_core::{ConsumerStats, DeadLetter, Delivery, ErrorKind, Failure, Record, Retry};
use tokio::sync::oneshot;

use super::cases;
use super::longest_key::longest_key;
use super::reader::letters;
use crate::Harness;
use crate::fleet::{Fleet, joined};
use crate::harness::unique_stream;

cases! {
    c03_dead_letter_of_a_full_record,
    c03_dead_letter_of_an_old_record,
    c03_dead_letter_of_odd_header_names,
    c03_dead_letter_of_odd_keys,
}

/// The outcome of some records.
struct Letters {
    /// Each record that the stream accepted, with its letter.
    letters: Vec<(Record, Delivery)>,
    stats: ConsumerStats,
}

/// Sends records to a stream of one partition, and one more. All except the last fail permanently.
async fn dead_letter(harness: Arc<dyn Harness>, records: Vec<Record>, reason: &str) -> Letters {
    let fleet = Fleet::new(harness, 1).await;
    let dead = unique_stream(&*fleet.harness, 1).await;
    let producer = fleet.client.producer(fleet.stream.as_str()).open().await;
    let producer = producer.expect("the producer opens");
    let mut taken = Vec::new();
    for record in records {
        let stored = async { producer.send(record.clone()).await?.await };
        match stored.await {
            Ok(metadata) => taken.push((record, metadata.position.to_string())),
            // The stream does not accept it, so there is nothing to read.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid, "{error}"),
        }
    }
    let last = producer.send(Record::new("the last one").key("last")).await;
    last.expect("it is taken").await.expect("it is stored");
    producer.close().await.expect("it closes");

    let policy = Retry::none().then(DeadLetter::stream(dead.as_str()));
    let group = fleet.handle().await.on_failure(policy);
    let reason = reason.to_owned();
    let handler = move |delivery: Delivery| {
        let reason = reason.clone();
        async move {
            match *delivery.payload() == "the last one" {
                true => Ok(()),
                false => Err(Failure::permanent(reason)),
            }
        }
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let run = group.run(handler, async move { _ = stopped.await });
    let control = run.handle();
    let task = tokio::spawn(run);
    fleet.caught_up().await;
    stop.send(()).expect("the member runs on");
    joined(task).await.expect("the member closes");

    // A record whose receipt was lost was sent again, and has a letter for each copy.
    let stats = control.stats();
    let all = letters(&*fleet.harness, &dead, stats.dead_lettered as usize).await;
    assert!(stats.settled > stats.dead_lettered, "{stats:?}");
    for letter in &all {
        assert_eq!(
            header(letter, "stream"),
            Some(fleet.stream.as_str()),
            "the letter names the stream of its record"
        );
    }
    let changed = all.iter().filter(|l| header(l, "changed").is_some());
    assert_eq!(
        stats.dead_letters_changed as usize,
        changed.count(),
        "a letter that was changed says so: {stats:?}"
    );
    let letter_of = |position: &str| {
        let mut of = all.iter();
        let letter = of.find(|letter| header(letter, "position") == Some(position));
        letter.expect("each record has its letter").clone()
    };
    let letters = taken
        .into_iter()
        .map(|(record, position)| (record, letter_of(&position)))
        .collect();
    Letters { letters, stats }
}

fn header<'a>(letter: &'a Delivery, name: &str) -> Option<&'a str> {
    letter.headers().get_str(&format!("millstream-dead-{name}"))
}

async fn c03_dead_letter_of_a_full_record(harness: Arc<dyn Harness>) {
    let limit = harness.limits().record_bytes;
    let of_payload = |bytes: usize| Record::new(vec![b'x'; bytes]).key("k");
    // No room for anything, room for a short reason, and room for a long one.
    let records = [limit - 1, limit - 1_000, limit - 10_000].map(of_payload);
    let reason = "x".repeat(2_000);
    let Letters { letters, .. } = dead_letter(harness, records.into(), &reason).await;
    let seen: Vec<_> = letters
        .iter()
        .map(|(record, letter)| {
            assert_eq!(
                letter.key(),
                record.key.as_ref(),
                "the letter has the key of its record"
            );
            let kept = letter.nullable_payload() == record.payload.as_ref();
            assert!(kept || letter.payload().is_empty(), "whole or left out");
            assert!(
                !letter.is_tombstone(),
                "a compacted topic would delete the letter"
            );
            let reason = header(letter, "reason").map(str::len);
            (kept, reason, header(letter, "changed"))
        })
        .collect();
    assert_eq!(
        seen,
        [
            (false, None, Some("headers,payload,reason")),
            (true, Some(100), Some("reason")),
            (true, Some(1_000), None),
        ],
        "whether the payload is kept, the length of the reason, and what was changed"
    );
}

async fn c03_dead_letter_of_an_old_record(harness: Arc<dyn Harness>) {
    const MILLI: Duration = Duration::from_millis(1);
    let times = [
        (UNIX_EPOCH - 5 * MILLI, "-5"),
        (UNIX_EPOCH, "0"),
        (UNIX_EPOCH + MILLI, "1"),
    ];
    let of_time = |(at, _)| Record::new("x").key("k").timestamp(at);
    let records = times.map(of_time).into();
    let Letters { letters, stats } = dead_letter(harness, records, "no").await;
    assert!(!letters.is_empty(), "the last one is taken by every stream");
    assert_eq!(
        stats.dead_letters_changed, 0,
        "no letter is changed: {stats:?}"
    );
    let recent: SystemTime = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for (record, letter) in letters {
        let text = times.iter().find(|(at, _)| Some(*at) == record.timestamp);
        assert_eq!(
            header(&letter, "timestamp"),
            text.map(|(_, text)| *text),
            "the letter has the timestamp of its record"
        );
        assert!(
            letter.timestamp() > recent,
            "it is a record of its own time"
        );
    }
}

async fn c03_dead_letter_of_odd_header_names(harness: Arc<dyn Harness>) {
    let long = "x".repeat(1_000);
    // As original names, and as names in a letter.
    let names = [
        ("a\0b", "millstream-dead-named-a%00b"),
        ("two\nlines", "millstream-dead-named-two%0Alines"),
        ("\u{7f}", "millstream-dead-named-%7F"),
        (" ", " "),
        ("größe-車", "größe-車"),
        (&long, &long),
    ];
    let of_name = |(name, _): (&str, &str)| {
        let mut record = Record::new("x").key("k").header("plain", "1");
        record.headers.push(name, vec![0, 255]);
        record.headers.push_null(name);
        record
    };
    let records = names.map(of_name).into();
    let Letters { letters, .. } = dead_letter(harness, records, "no").await;
    assert!(letters.len() >= 4, "only control characters may be refused");
    for (record, letter) in letters {
        let sent = record.headers.iter().nth(1).map(|(name, _)| name);
        let name = names.iter().find(|(name, _)| Some(*name) == sent);
        let (name, expected) = name.expect("it is one of these");
        let kept: Vec<_> = letter.headers().iter().take(3).collect();
        let plain = bytes::Bytes::from("1");
        let binary = bytes::Bytes::from(vec![0, 255]);
        let value = [Some(&plain), Some(&binary), None];
        let names = ["plain", expected, expected];
        assert_eq!(
            kept,
            names.into_iter().zip(value).collect::<Vec<_>>(),
            "the letter has the headers of its record, with names that are valid"
        );
        let changed = (name != expected).then_some("header names");
        assert_eq!(
            header(&letter, "changed"),
            changed,
            "the letter says what was changed"
        );
    }
}

async fn c03_dead_letter_of_odd_keys(harness: Arc<dyn Harness>) {
    let limits = harness.limits();
    let mut records = vec![
        Record::new("no key"),
        Record::new("control characters").key("a\0b\n"),
        Record::new("long").key(longest_key(&limits, 'k')),
        Record::new("long in bytes").key(longest_key(&limits, 'é')),
    ];
    if limits.empty_key {
        records.push(Record::new("empty").key(""));
    }
    if !limits.text_key {
        records.push(Record::new("binary").key([0xff, 0x00, 0xfe]));
    }
    let sent = records.len();
    let Letters { letters, stats } = dead_letter(harness, records, "no").await;
    assert_eq!(
        (letters.len(), stats.dead_letters_changed),
        (sent, 0),
        "each record has an unchanged letter: {stats:?}"
    );
    for (record, letter) in letters {
        assert_eq!(
            letter.key(),
            record.key.as_ref(),
            "the letter has the key of its record"
        );
        assert_eq!(
            letter.nullable_payload(),
            record.payload.as_ref(),
            "the letter has the payload of its record"
        );
    }
}
