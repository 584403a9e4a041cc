//! C12 and the receipts: every record is completed once and reported once, whatever ends first.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime;
use tokio::time::Instant;

use super::fake::{Fake, LIMITS};
use super::{ALL, FOUR, ONE, send};
use crate::ErrorKind::{Closed, Denied, Timeout, TooLarge, Unauthenticated, Unavailable};
use crate::Record;

/// Waits for a condition that other tasks fulfill.
async fn eventually(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "it did not come about");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn failures_of_dropped_receipts_are_reported_once() {
    for pipelining in ALL {
        let fake = Fake::new(pipelining);
        for name in ["1", "2", "3", "4"] {
            fake.fail(name, [Denied]);
        }
        let producer = fake.builder().open().await.unwrap();
        drop(send(&producer, "a", "1").await);
        drop(send(&producer, "b", "2").await);
        let receipt = send(&producer, "c", "3").await;
        let late = send(&producer, "d", "4").await;
        assert_eq!(receipt.await.unwrap_err().kind(), Denied);
        let error = producer.flush().await.unwrap_err();
        assert_eq!((error.kind(), error.stream()), (Denied, Some("s")));
        assert!(error.message().starts_with("2 records"), "{error}");
        producer.flush().await.unwrap();
        drop(late);
        let error = producer.close().await.unwrap_err();
        assert!(error.message().starts_with("a record"), "{error}");
        assert_eq!(producer.stats().failed, 4);
    }
}

#[tokio::test(start_paused = true)]
async fn flush_waits_for_what_was_sent_before_only() {
    let fake = Fake::with(FOUR, LIMITS, Duration::from_millis(10));
    let producer = fake.builder().open().await.unwrap();
    producer.flush().await.unwrap();
    drop(send(&producer, "a", "1").await);
    let mut flush = Box::pin(producer.flush());
    assert!(flush.as_mut().now_or_never().is_none());
    let stuck = send(&producer, "b", "stuck").await;
    flush.await.unwrap();
    assert_eq!(fake.stored(), ["1"]);
    drop(stuck);
    assert_eq!(producer.close().await.unwrap_err().kind(), Timeout);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_flush_makes_the_next_one_wait_no_less() {
    let fake = Fake::with(ONE, LIMITS, Duration::from_millis(10));
    let producer = fake.builder().open().await.unwrap();
    drop(send(&producer, "a", "1").await);
    assert!(producer.flush().now_or_never().is_none());
    producer.flush().await.unwrap();
    assert_eq!(fake.stored(), ["1"]);
    producer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn close_flushes_and_may_be_called_by_many() {
    for pipelining in ALL {
        let fake = Fake::with(pipelining, LIMITS, Duration::from_millis(10));
        let producer = fake.builder().in_flight_records(1).open().await.unwrap();
        let clone = producer.clone();
        let receipt = send(&producer, "a", "1").await;
        let waiting = producer.send(Record::new("2"));
        let (waiting, one, two) = tokio::join!(biased; waiting, producer.close(), clone.close());
        assert_eq!(waiting.unwrap_err().kind(), Closed, "it waited for room");
        one.unwrap();
        two.unwrap();
        receipt.await.unwrap();
        clone.close().await.unwrap();
        assert_eq!(
            clone.send(Record::new("3")).await.unwrap_err().kind(),
            Closed
        );
        producer.flush().await.unwrap();
        assert_eq!((fake.stored().len(), fake.closed()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_close_goes_on() {
    let fake = Fake::with(ONE, LIMITS, Duration::from_millis(10));
    let producer = fake.builder().open().await.unwrap();
    drop(send(&producer, "a", "1").await);
    assert!(producer.close().now_or_never().is_none());
    eventually(|| fake.closed() == 1).await;
    assert_eq!(fake.stored(), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn close_gives_up_when_its_time_is_over() {
    for pipelining in ALL {
        let fake = Fake::new(pipelining);
        fake.fail("b1", [Unavailable; 1_000]);
        let timeout = Duration::from_secs(5);
        let producer = fake.builder().close_timeout(timeout).open().await.unwrap();
        let kept = [
            send(&producer, "a", "stuck").await,
            send(&producer, "a", "a2").await,
        ];
        tokio::task::yield_now().await;
        drop(send(&producer, "b", "b1").await);
        let begun = Instant::now();
        let error = producer.close().await.unwrap_err();
        assert_eq!((error.kind(), error.stream()), (Timeout, Some("s")));
        assert!(begun.elapsed() <= timeout + Duration::from_millis(5));
        for receipt in kept {
            assert_eq!(receipt.await.unwrap_err().kind(), Timeout);
        }
        let stats = producer.stats();
        assert_eq!((stats.sent, stats.failed, stats.in_flight), (3, 3, 0));
        assert_eq!(fake.closed(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_without_close_it_sends_what_is_left() {
    for pipelining in ALL {
        let fake = Fake::with(pipelining, LIMITS, Duration::from_millis(10));
        let producer = fake.builder().open().await.unwrap();
        drop(send(&producer, "a", "1").await);
        let receipt = send(&producer, "a", "2").await;
        drop(producer);
        receipt.await.unwrap();
        eventually(|| fake.closed() == 1).await;
        assert_eq!(fake.stored(), ["1", "2"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_driver_completes_its_records_and_stops_nothing() {
    for pipelining in ALL {
        let fake = Fake::new(pipelining);
        let producer = fake.builder().open().await.unwrap();
        let panicked = send(&producer, "a", "panic").await;
        assert_eq!(panicked.await.unwrap_err().kind(), Timeout);
        assert_eq!(producer.stats().in_flight, 0);
        send(&producer, "a", "2").await.await.unwrap();
        producer.close().await.unwrap();
    }
}

#[test]
fn the_end_of_the_runtime_completes_everything() {
    for pipelining in ALL {
        let fake = Fake::new(pipelining);
        let first = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (producer, receipts) = first.block_on(async {
            let producer = fake.builder().in_flight_records(3).open().await.unwrap();
            let stuck = send(&producer, "a", "stuck").await;
            tokio::task::yield_now().await;
            let second = send(&producer, "a", "2").await;
            let third = send(&producer, "c", "3").await;
            (producer, [stuck, second, third])
        });
        drop(first);
        let second = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        second.block_on(async {
            for receipt in receipts {
                let result = receipt.await;
                assert!(result.is_err_and(|error| error.kind() == Timeout));
            }
            assert_eq!(
                producer.send(Record::new("4")).await.unwrap_err().kind(),
                Closed
            );
            producer.flush().await.unwrap();
            assert_eq!(producer.close().await.unwrap_err().kind(), Unavailable);
            assert_eq!(producer.stats().in_flight, 0);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn fast_rejections_do_not_fail_flush() {
    let fake = Fake::new(ONE);
    let producer = fake.builder().open().await.unwrap();
    let refused = producer.send(Record::new(vec![0; 2_000])).await;
    assert_eq!(refused.unwrap_err().kind(), TooLarge);
    producer.flush().await.unwrap();
    producer.close().await.unwrap();
    assert_eq!(producer.stats().sent, 0);
}

#[tokio::test(start_paused = true)]
async fn flush_reports_a_failure_to_every_clone() {
    for pipelining in ALL {
        let fake = Fake::with(pipelining, LIMITS, Duration::from_millis(10));
        fake.fail("b1", [Denied]);
        let a = fake.builder().open().await.unwrap();
        let b = a.clone();
        drop(send(&a, "a", "a1").await);
        drop(send(&b, "b", "b1").await);
        let (one, two) = tokio::join!(a.flush(), b.flush());
        assert_eq!(one.unwrap_err().kind(), Denied);
        assert_eq!(two.unwrap_err().kind(), Denied);
        let (one, two) = tokio::join!(a.flush(), b.flush());
        one.unwrap();
        two.unwrap();
        a.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_earlier_flush_takes_no_failure_from_a_clone() {
    let fake = Fake::new(ONE);
    fake.fail("b1", [Denied]);
    let a = fake.builder().open().await.unwrap();
    let b = a.clone();
    drop(send(&b, "b", "b1").await);
    assert_eq!(a.flush().await.unwrap_err().kind(), Denied);
    assert_eq!(b.flush().await.unwrap_err().kind(), Denied);
    b.clone().flush().await.unwrap();
    a.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn overlapping_flushes_of_one_handle_report_the_same() {
    let fake = Fake::with(ONE, LIMITS, Duration::from_millis(10));
    fake.fail("1", [Denied]);
    let producer = fake.builder().open().await.unwrap();
    drop(send(&producer, "a", "1").await);
    let (one, two) = tokio::join!(producer.flush(), producer.flush());
    assert_eq!(one.unwrap_err().kind(), Denied);
    assert_eq!(two.unwrap_err().kind(), Denied);
}

#[tokio::test(start_paused = true)]
async fn a_new_clone_reports_what_nobody_has_reported() {
    let fake = Fake::new(ONE);
    fake.fail("1", [Denied]);
    let producer = fake.builder().open().await.unwrap();
    drop(send(&producer, "a", "1").await);
    eventually(|| producer.stats().failed == 1).await;
    let clone = producer.clone();
    drop(producer);
    assert_eq!(clone.flush().await.unwrap_err().kind(), Denied);
    clone.clone().flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_flush_leaves_its_failures_to_the_next() {
    let fake = Fake::with(ONE, LIMITS, Duration::from_millis(10));
    fake.fail("1", [Denied]);
    let producer = fake.builder().open().await.unwrap();
    drop(send(&producer, "a", "1").await);
    assert!(producer.flush().now_or_never().is_none());
    eventually(|| producer.stats().failed == 1).await;
    assert_eq!(producer.flush().await.unwrap_err().kind(), Denied);
}

#[tokio::test(start_paused = true)]
async fn close_reports_what_no_flush_has_reported() {
    let fake = Fake::new(ONE);
    fake.fail("1", [Denied]);
    fake.fail("2", [Unauthenticated]);
    let a = fake.builder().open().await.unwrap();
    let b = a.clone();
    drop(send(&a, "a", "1").await);
    a.flush().await.unwrap_err();
    drop(send(&a, "a", "2").await);
    let error = b.close().await.unwrap_err();
    assert_eq!(error.kind(), Unauthenticated);
    assert!(error.message().starts_with("a record"), "{error}");
    assert_eq!(a.close().await.unwrap_err().kind(), Unauthenticated);
}
