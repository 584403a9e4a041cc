//! C1: one key keeps its order, other keys keep flowing.

use std::error::Error as _;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::fake::{Fake, LIMITS};
use super::{ALL, FOUR, ONE, send};
use crate::ErrorKind::{Denied, Throttled, Timeout, Unavailable};
use crate::driver::{Pipelining, StreamLimits};

#[tokio::test(start_paused = true)]
async fn receipts_tell_where_records_are() {
    for pipelining in ALL {
        let fake = Fake::new(pipelining);
        let producer = fake.builder().open().await.unwrap();
        let one = send(&producer, "k", "1").await;
        let two = send(&producer, "k", "2").await;
        assert_eq!(two.await.unwrap().position, 2.into());
        assert_eq!(one.await.unwrap().position, 1.into());
        let stats = producer.stats();
        assert_eq!((stats.sent, stats.stored, stats.failed), (2, 2, 0));
        assert_eq!((stats.in_flight, stats.in_flight_bytes), (0, 0));
        producer.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_waits_for_its_failed_record() {
    for pipelining in [ONE, FOUR] {
        let fake = Fake::new(pipelining);
        fake.fail("a1", [Throttled, Unavailable, Timeout]);
        let producer = fake.builder().open().await.unwrap();
        for (key, name) in [("a", "a1"), ("b", "b1"), ("a", "a2")] {
            drop(send(&producer, key, name).await);
        }
        send(&producer, "b", "b2").await.await.unwrap();
        assert_eq!(fake.stored(), ["b1", "b2"], "{pipelining:?}");
        drop(send(&producer, "a", "a3").await);
        send(&producer, "c", "c1").await.await.unwrap();
        assert_eq!(fake.stored(), ["b1", "b2", "c1"], "{pipelining:?}");
        producer.flush().await.unwrap();
        assert_eq!(fake.stored_of("a"), ["a1", "a2", "a3"]);
        assert!(producer.stats().retried >= 3);
        producer.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_a_timeout_leaves_open_whether_it_is_stored() {
    for pipelining in [ONE, FOUR] {
        let fake = Fake::new(pipelining);
        fake.fail("a1", [Timeout, Throttled, Denied]);
        fake.fail("b1", [Throttled, Denied]);
        let producer = fake.builder().open().await.unwrap();
        let open = send(&producer, "a", "a1").await;
        let refused = send(&producer, "b", "b1").await;
        let error = open.await.unwrap_err();
        assert_eq!(error.kind(), Timeout);
        let source = error.source().unwrap().to_string();
        assert!(source.contains("denied"), "{source}");
        assert_eq!(refused.await.unwrap_err().kind(), Denied);
        producer.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_final_failure_lets_its_key_go_on_at_once() {
    for pipelining in [ONE, FOUR] {
        let fake = Fake::new(pipelining);
        fake.fail("a1", [Denied]);
        let producer = fake.builder().open().await.unwrap();
        let begun = Instant::now();
        let one = send(&producer, "a", "a1").await;
        let two = send(&producer, "a", "a2").await;
        let three = send(&producer, "a", "a3").await;
        three.await.unwrap();
        two.await.unwrap();
        assert_eq!(one.await.unwrap_err().kind(), Denied);
        assert_eq!(fake.stored(), ["a2", "a3"]);
        assert_eq!(begun.elapsed(), Duration::ZERO, "nothing had to wait");
        producer.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn records_without_key_hold_nothing_back() {
    for pipelining in [ONE, FOUR] {
        let fake = Fake::new(pipelining);
        fake.fail("1", [Throttled]);
        let producer = fake.builder().open().await.unwrap();
        let one = send(&producer, None, "1").await;
        let two = send(&producer, None, "2").await;
        two.await.unwrap();
        assert_eq!(fake.stored(), ["2"]);
        one.await.unwrap();
        assert_eq!(fake.calls(), [vec!["1", "2"], vec!["1"]]);
        producer.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn errors_of_an_ordered_driver_are_final() {
    let fake = Fake::new(Pipelining::Ordered);
    fake.fail("1", [Throttled]);
    let producer = fake.builder().open().await.unwrap();
    let failed = send(&producer, "a", "1").await.await;
    assert_eq!(failed.unwrap_err().kind(), Throttled);
    assert_eq!(producer.stats().failed, 1);
    producer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn retries_end_with_the_last_error_when_the_time_is_over() {
    for pipelining in [ONE, FOUR] {
        let fake = Fake::new(pipelining);
        fake.fail("a1", [Throttled; 100]);
        let timeout = Duration::from_secs(20);
        let producer = fake.builder().timeout(timeout).open().await.unwrap();
        let begun = Instant::now();
        let one = send(&producer, "a", "a1").await;
        assert_eq!(one.await.unwrap_err().kind(), Throttled);
        let took = begun.elapsed();
        assert!(
            (timeout..timeout + Duration::from_millis(5)).contains(&took),
            "{took:?}"
        );
        assert!((5..20).contains(&fake.calls().len()), "backoff grows");
        send(&producer, "a", "a2").await.await.unwrap();
        producer.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn calls_overlap_as_the_driver_allows() {
    for (pipelining, most) in [(Pipelining::Ordered, 5), (ONE, 1), (FOUR, 4)] {
        let limits = StreamLimits {
            batch_records: 1,
            ..LIMITS
        };
        let fake = Fake::with(pipelining, limits, Duration::from_millis(10));
        let producer = fake.builder().open().await.unwrap();
        for (key, name) in [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "5")] {
            drop(send(&producer, key, name).await);
        }
        producer.flush().await.unwrap();
        assert_eq!(fake.most_under_way(), most, "{pipelining:?}");
        assert_eq!(fake.calls().concat(), ["1", "2", "3", "4", "5"]);
        producer.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_keeps_the_limits() {
    for pipelining in ALL {
        let limits = StreamLimits {
            batch_records: 3,
            batch_bytes: 6,
            ..LIMITS
        };
        let fake = Fake::with(pipelining, limits, Duration::from_millis(10));
        let producer = fake.builder().open().await.unwrap();
        for name in ["1", "2", "3", "4444", "55", "6", "77777777", "8"] {
            drop(send(&producer, None, name).await);
        }
        producer.flush().await.unwrap();
        let calls = [
            vec!["1", "2", "3"],
            vec!["4444", "55"],
            vec!["6"],
            vec!["77777777"],
            vec!["8"],
        ];
        assert_eq!(fake.calls(), calls, "{pipelining:?}");
        producer.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_call_is_under_way_goes_together() {
    let fake = Fake::with(ONE, LIMITS, Duration::from_millis(10));
    let producer = fake.builder().open().await.unwrap();
    drop(send(&producer, "a", "1").await);
    tokio::task::yield_now().await;
    for name in ["2", "3", "4"] {
        drop(send(&producer, "a", name).await);
    }
    producer.flush().await.unwrap();
    assert_eq!(fake.calls(), [vec!["1"], vec!["2", "3", "4"]]);
    producer.close().await.unwrap();
}

/// While a record of one route gets no result, later records of other routes do, and its own ones wait behind it.
#[tokio::test(start_paused = true)]
async fn a_route_that_is_held_up_delays_no_other() {
    let fake = Fake::with_routes(Duration::ZERO);
    let producer = fake.builder().open().await.unwrap();
    let stuck = send(&producer, "a1", "stuck").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut receipts = Vec::new();
    for (key, name) in [
        ("b1", "1"),
        ("a2", "stuck"),
        ("b2", "2"),
        ("c1", "3"),
        ("b1", "4"),
    ] {
        receipts.push((name, send(&producer, key, name).await));
    }
    for (name, receipt) in receipts {
        let completed = timeout(Duration::from_secs(1), receipt).await;
        assert_eq!(completed.is_err(), name == "stuck", "{name}");
    }
    let calls = fake.calls();
    let expected: [&[&str]; 4] = [&["stuck"], &["1", "2", "4"], &["stuck"], &["3"]];
    assert_eq!(calls, expected);
    assert_eq!(producer.stats().in_flight, 2);
    drop(stuck);
}

/// A call that ends in time is not divided.
#[tokio::test(start_paused = true)]
async fn batches_stay_whole_while_calls_end_in_time() {
    let fake = Fake::with_routes(Duration::from_millis(400));
    let producer = fake.builder().open().await.unwrap();
    for name in ["1", "2", "3", "4", "5"] {
        for key in ["a", "b"] {
            drop(send(&producer, key, name).await);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    producer.close().await.unwrap();
    assert_eq!(fake.calls().len(), 5);
}
