//! C12: `close` flushes producers and drains consumers within a deadline; `Drop` never blocks and
//! never loses silently.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::{ErrorKind, Record};
use tokio::time::Instant;

use super::cases;
use super::reader::{nothing_comes, pull, read};
use crate::fleet::{Fleet, handler_fn, joined};
use crate::history::{Event, Outcome};
use crate::{Fault, Harness, within_timeout};

cases! {
    c12_close_flushes,
    c12_close_twice,
    c12_closed_producer_refuses,
    c12_close_gives_up_at_its_deadline [DELAY_SENDS],
    c12_producer_dropped_without_close_delivers,
    c12_flush_reports_failures_of_dropped_receipts [FAIL_SENDS_BY_KEY],
    c12_failure_seen_by_a_receipt_is_not_reported_again [FAIL_SENDS],
    c12_shutdown_twice,
    c12_shutdown_by_handle,
    c12_stuck_handler_is_cut_off_at_the_drain_deadline,
    c12_closed_consumer_ends_without_error,
    c12_close_waits_for_held_deliveries,
}

async fn c12_close_flushes(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    let producer = fleet.client.producer(fleet.stream.as_str()).open().await;
    let producer = producer.expect("the producer opens");
    assert_eq!(
        producer.stream(),
        fleet.stream,
        "the producer knows its stream"
    );
    for id in 1..=100 {
        let record = crate::history::record(id, Some("key"));
        drop(producer.send(record).await.expect("there is room"));
    }
    producer.close().await.expect("all are stored");
    assert_eq!(
        (producer.stats().stored, producer.stats().in_flight),
        (100, 0),
        "close returns when all are stored: {:?}",
        producer.stats()
    );
    let read = read(&*fleet.harness, &fleet.stream, 100).await;
    let ids = super::reader::ids_by_key(&read).into_values().next();
    assert_eq!(
        ids,
        Some((1..=100).collect()),
        "all records of the key are stored, in their order"
    );
}

async fn c12_close_twice(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    let producer = fleet.client.producer(fleet.stream.as_str()).open().await;
    let producer = producer.expect("the producer opens");
    drop(
        producer
            .send(Record::new("x"))
            .await
            .expect("there is room"),
    );
    let other = producer.clone();
    let (one, two) = tokio::join!(producer.close(), other.close());
    one.expect("it closes");
    two.expect("it is closed by the other");
    producer.close().await.expect("it is closed");
    producer.flush().await.expect("there is nothing to flush");
    assert_eq!(producer.stats().stored, 1, "{:?}", producer.stats());
}

async fn c12_closed_producer_refuses(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    let producer = fleet.client.producer(fleet.stream.as_str()).open().await;
    let producer = producer.expect("the producer opens");
    producer.close().await.expect("it closes");
    let refused = producer
        .send(Record::new("x"))
        .await
        .expect_err("it is closed");
    assert_eq!(refused.kind(), ErrorKind::Closed, "{refused:?}");
    assert_eq!(refused.stream(), Some(fleet.stream.as_str()), "{refused:?}");
}

async fn c12_close_gives_up_at_its_deadline(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    let fault = Fault::DelaySends {
        stream: fleet.stream.clone(),
        by: timing.session * 5,
    };
    fleet.inject(fault).await;
    let producer = fleet
        .client
        .producer(fleet.stream.as_str())
        .close_timeout(timing.handover);
    let producer = producer.open().await.expect("the producer opens");
    let receipt = producer
        .send(Record::new("x"))
        .await
        .expect("there is room");
    let began = Instant::now();
    let error = producer.close().await.expect_err("it cannot flush in time");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(
        began.elapsed() <= timing.handover * 2,
        "it took {:?}",
        began.elapsed()
    );
    let result = within_timeout(timing, "the receipt resolves", receipt).await;
    assert!(
        began.elapsed() <= timing.handover * 3,
        "the receipt resolved after {:?}",
        began.elapsed()
    );
    assert_eq!(
        result.expect_err("it is not known").kind(),
        ErrorKind::Timeout,
        "whether it is stored is not known"
    );
}

async fn c12_producer_dropped_without_close_delivers(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    let producer = fleet.client.producer(fleet.stream.as_str()).open().await;
    let producer = producer.expect("the producer opens");
    for id in 1..=20 {
        let record = crate::history::record(id, Some("key"));
        drop(producer.send(record).await.expect("there is room"));
    }
    drop(producer);
    read(&*fleet.harness, &fleet.stream, 20).await;
}

/// Returns a producer with a short timeout, unless its driver has its own setting for that, to a stream
/// whose key `bad` cannot be stored.
async fn failing(fleet: &Fleet) -> millstream_core::Producer {
    let fault = Fault::FailSends {
        stream: fleet.stream.clone(),
        key: Some("bad".into()),
        times: u32::MAX,
    };
    fleet.inject(fault).await;
    let client = fleet.harness.impatient_client().await;
    let producer = client.producer(fleet.stream.as_str());
    let producer = producer.timeout(Duration::from_millis(300)).open().await;
    producer.expect("the producer opens")
}

async fn c12_flush_reports_failures_of_dropped_receipts(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    let producer = failing(&fleet).await;
    for key in ["good", "bad", "good", "bad", "good"] {
        drop(
            producer
                .send(Record::new("x").key(key))
                .await
                .expect("there is room"),
        );
    }
    let error = producer.flush().await.expect_err("two have failed");
    assert!(error.is_retryable(), "{error:?}");
    assert!(error.message().contains('2'), "it says how many: {error}");
    producer.flush().await.expect("it is reported once");
    let stats = producer.stats();
    assert_eq!(
        (stats.sent, stats.stored, stats.failed),
        (5, 3, 2),
        "{stats:?}"
    );
    drop(
        producer
            .send(Record::new("x").key("bad"))
            .await
            .expect("there is room"),
    );
    producer.close().await.expect_err("close reports it, too");
}

async fn c12_failure_seen_by_a_receipt_is_not_reported_again(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    let producer = failing(&fleet).await;
    let receipt = producer
        .send(Record::new("x").key("bad"))
        .await
        .expect("there is room");
    receipt.await.expect_err("it cannot be stored");
    producer.flush().await.expect("its receipt has resolved");
    producer.close().await.expect("its receipt has resolved");
}

async fn c12_shutdown_twice(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(4, 5).await;
    let member = fleet
        .member("a")
        .handler_delay(Duration::from_millis(50))
        .start()
        .await;
    fleet
        .until("handlers are at work", || {
            member.handle().stats().in_flight > 0
        })
        .await;
    member.handle().shutdown();
    member.handle().shutdown();
    let (control, result) = member.shut_down().await;
    result.expect("it closes cleanly");
    control.shutdown();
    let member = fleet.member("b").start().await;
    let summary = fleet.check().await;
    assert_eq!(summary.duplicates, 0, "{summary:?}");
    member.close().await;
}

async fn c12_shutdown_by_handle(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(2, 2).await;
    let member = fleet.member("a").start().await;
    fleet.settled().await;
    member.handle().shutdown();
    fleet.until("it ends", || member.has_ended()).await;
    member.ended(timing).await.expect("it closes cleanly");
    fleet.caught_up().await;
}

async fn c12_stuck_handler_is_cut_off_at_the_drain_deadline(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(3, 2).await;
    let hangs = handler_fn(|_| async {
        std::future::pending::<()>().await;
        Ok(())
    });
    let drain = timing.handover * 3;
    let member = fleet
        .member("a")
        .handler(hangs)
        .with(|group| group.drain_timeout(drain));
    let member = member.start().await;
    fleet
        .until("its handlers hang", || {
            member.handle().stats().in_flight == 3
        })
        .await;
    let began = Instant::now();
    // Whether or not this is reported as an error, it ends in time, and the records are delivered again.
    let (_, _) = member.shut_down().await;
    let took = began.elapsed();
    assert!(
        took >= drain && took <= drain + timing.handover * 2,
        "it took {took:?}"
    );
    let cut = |e: &Event| {
        matches!(
            e,
            Event::Ended {
                outcome: Outcome::Dropped,
                ..
            }
        )
    };
    assert_eq!(
        fleet.history.count(cut),
        3,
        "the hanging handlers are dropped"
    );
    let member = fleet.member("b").start().await;
    let summary = fleet.check().await;
    assert_eq!((summary.handled, summary.duplicates), (6, 0), "{summary:?}");
    member.close().await;
}

async fn c12_closed_consumer_ends_without_error(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(1, 2).await;
    let mut consumer = fleet.handle().await.join().await.expect("the puller joins");
    for _ in 0..2 {
        pull(timing, &mut consumer).await.ack();
    }
    assert!(
        nothing_comes(timing, &mut consumer).await,
        "there are no more records"
    );
    consumer.handle().shutdown();
    let end = within_timeout(timing, "the puller ends", consumer.next()).await;
    let end = end.expect("it ends cleanly");
    assert!(end.is_none(), "a closed consumer has no more deliveries");
    consumer.close().await.expect("it closes");
    fleet.caught_up().await;
}

async fn c12_close_waits_for_held_deliveries(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(1, 1).await;
    let mut consumer = fleet.handle().await.join().await.expect("the puller joins");
    let held = pull(timing, &mut consumer).await;
    let close = tokio::spawn(consumer.close());
    tokio::time::sleep(timing.handover).await;
    assert!(!close.is_finished(), "a delivery is held still");
    held.ack();
    joined(close).await.expect("it closes");
    fleet.caught_up().await;
}
