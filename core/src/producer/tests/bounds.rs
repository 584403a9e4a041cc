//! C8 and C13: room, limits and options.

use std::time::Duration;

use futures_util::FutureExt;

use super::fake::{Fake, LIMITS};
use super::{ALL, ONE, send};
use crate::ErrorKind::{Invalid, TooLarge};
use crate::driver::StreamLimits;
use crate::{Client, ProducerBuilder, Record};

#[tokio::test(start_paused = true)]
async fn send_waits_for_room_in_turn() {
    for pipelining in ALL {
        let fake = Fake::with(pipelining, LIMITS, Duration::from_millis(10));
        let producer = fake.builder().in_flight_records(1).open().await.unwrap();
        drop(send(&producer, "a", "1").await);
        let mut second = Box::pin(send(&producer, "a", "2"));
        let mut third = Box::pin(send(&producer, "a", "3"));
        let mut fourth = Box::pin(send(&producer, "a", "4"));
        for waiting in [&mut second, &mut third, &mut fourth] {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        drop(third);
        // They are polled in another order than they arrived in.
        let (fourth, second) = tokio::join!(biased; fourth, second);
        second.await.unwrap();
        fourth.await.unwrap();
        assert_eq!(
            fake.stored(),
            ["1", "2", "4"],
            "the dropped one was not sent"
        );
        let stats = producer.stats();
        assert_eq!((stats.sent, stats.waited, stats.in_flight), (3, 3, 0));
        producer.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn room_is_bytes_too() {
    let fake = Fake::with(ONE, LIMITS, Duration::from_millis(10));
    let producer = fake.builder().in_flight_bytes(10).open().await.unwrap();
    drop(send(&producer, None, "12345678").await);
    assert!(producer.send(Record::new("123")).now_or_never().is_none());
    drop(send(&producer, None, "12").await);
    assert_eq!(producer.stats().in_flight_bytes, 10);
    let larger = send(&producer, None, "a record larger than the room").await;
    assert_eq!(producer.stats().in_flight_bytes, 10, "it has all the room");
    assert!(producer.send(Record::new("1")).now_or_never().is_none());
    larger.await.unwrap();
    assert_eq!(producer.stats().in_flight_bytes, 0);
    producer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_record_that_the_stream_does_not_take_stops_no_other() {
    let record = || Record::new("p").key("k");
    let loose = StreamLimits {
        empty_key: true,
        text_key: false,
        ..LIMITS
    };
    let counted = StreamLimits {
        key_chars: Some(3),
        ..LIMITS
    };
    let table = [
        (LIMITS, record().key(""), Some((Invalid, "at least 1 byte"))),
        (loose, record().key(""), None),
        (
            LIMITS,
            record().key("12345678901"),
            Some((Invalid, "at most 10")),
        ),
        (LIMITS, record().key("1234567890"), None),
        (counted, record().key("ééé"), None),
        (counted, record().key("é🚗"), None),
        (
            counted,
            record().key("éééé"),
            Some((Invalid, "4 characters, use at most 3")),
        ),
        (counted, record().key("🚗🚗"), Some((Invalid, "at most 3"))),
        (LIMITS, record().key(&[0xff][..]), Some((Invalid, "UTF-8"))),
        (loose, record().key(&[0xff][..]), None),
        (
            LIMITS,
            record().header("", "v"),
            Some((Invalid, "header name")),
        ),
        (LIMITS, record().header("h", ""), None),
        (
            LIMITS,
            Record::new(vec![b'p'; 1_001]),
            Some((TooLarge, "at most 1000")),
        ),
        (LIMITS, Record::new(vec![b'p'; 998]).header("h", "v"), None),
        (
            LIMITS,
            Record::new(vec![b'p'; 999]).header("h", "v"),
            Some((TooLarge, "1001 bytes")),
        ),
        (LIMITS, Record::new(""), None),
    ];
    for (limits, record, refused) in table {
        let fake = Fake::with(ONE, limits, Duration::ZERO);
        let producer = fake.builder().open().await.unwrap();
        let sent = producer.send(record).await;
        match refused {
            None => drop(sent.unwrap().await.unwrap()),
            Some((kind, message)) => {
                let error = sent.unwrap_err();
                assert_eq!((error.kind(), error.stream()), (kind, Some("s")));
                assert!(error.message().contains(message), "{error}");
            }
        }
        send(&producer, "k", "other").await.await.unwrap();
        producer.close().await.unwrap();
    }
}

#[tokio::test]
async fn options_out_of_bounds_are_refused() {
    type Change = fn(ProducerBuilder) -> ProducerBuilder;
    let fake = Fake::new(ONE);
    let table: [(&str, Change); 8] = [
        ("in_flight_records", |b| b.in_flight_records(0)),
        ("in_flight_records", |b| b.in_flight_records(10_000_001)),
        ("in_flight_bytes", |b| b.in_flight_bytes(0)),
        ("in_flight_bytes", |b| b.in_flight_bytes(usize::MAX)),
        ("timeout", |b| b.timeout(Duration::ZERO)),
        ("timeout", |b| b.timeout(Duration::MAX)),
        ("close_timeout", |b| b.close_timeout(Duration::ZERO)),
        ("close_timeout", |b| b.close_timeout(Duration::MAX)),
    ];
    for (option, change) in table {
        let error = change(fake.builder()).open().await.unwrap_err();
        assert_eq!((error.kind(), error.stream()), (Invalid, Some("s")));
        assert!(error.message().starts_with(option), "{error}");
        assert!(error.message().contains("use 1"), "{error}");
    }
    let unnamed = Client::new(fake).producer("").open().await;
    assert_eq!(unnamed.unwrap_err().kind(), Invalid);
}
