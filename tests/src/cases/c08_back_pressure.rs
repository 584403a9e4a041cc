//! C8: memory is bounded by settings; a slow or stuck handler stops neither heartbeats nor other
//! keys; a full producer makes `send` wait.

use std::sync::Arc;

use millstream_core::{Delivery, Record};
use tokio::sync::watch;

use super::cases;
use crate::fleet::{Fleet, HandlerFn, handler_fn, joined};
use crate::{Fault, Harness};

cases! {
    c08_stuck_handler_keeps_its_membership_and_other_keys_flow,
    c08_all_handlers_stuck_for_longer_than_the_session_timeout,
    c08_window_bounds_unsettled_records,
    c08_buffer_bytes_bound_the_memory,
    c08_concurrency_bounds_the_handlers,
    c08_full_producer_makes_send_wait [DELAY_SENDS],
    c08_producer_bounds_bytes [DELAY_SENDS],
}

/// Handles the records of keys that `stuck` selects only when the gate is open.
fn gated(gate: &watch::Receiver<bool>, stuck: fn(&[u8]) -> bool) -> HandlerFn {
    let gate = gate.clone();
    handler_fn(move |delivery: Delivery| {
        let mut gate = gate.clone();
        async move {
            if delivery.key().is_some_and(|key| stuck(key)) {
                gate.wait_for(|open| *open).await?;
            }
            Ok(())
        }
    })
}

async fn c08_stuck_handler_keeps_its_membership_and_other_keys_flow(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 2).await;
    let (open, gate) = watch::channel(false);
    let stuck = gated(&gate, |key| key == b"key-3");
    let a = fleet.member("a").handler(stuck.clone()).start().await;
    let b = fleet.member("b").handler(stuck).start().await;
    // Before any handler is stuck: the end of a drain with a stuck handler is another case.
    fleet
        .until("both work", || a.owns() == 1 && b.owns() == 1)
        .await;
    let background_load = fleet
        .test_producer()
        .await
        .send_in_background(10, timing.session / 200);
    fleet
        .until("records are handled", || fleet.acked() > 0)
        .await;
    // The stimulus: a handler that is stuck for three session timeouts.
    let handled = fleet.acked();
    tokio::time::sleep(timing.session * 3).await;
    // It is still stuck, however long a busy machine takes for these.
    fleet
        .until("records of other keys are handled meanwhile", || {
            fleet.acked() >= handled + 400
        })
        .await;
    for member in [&a, &b] {
        assert_eq!(
            (member.owns(), member.handle().stats().lost),
            (1, 0),
            "{} keeps its partition: {:?}",
            member.name(),
            member.handle().stats()
        );
    }
    open.send(true).expect("the members run");
    background_load.stop().await;
    let summary = fleet.check().await;
    assert_eq!(summary.duplicates, 0, "{summary:?}");
    a.close().await;
    b.close().await;
}

async fn c08_all_handlers_stuck_for_longer_than_the_session_timeout(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(20, 5).await;
    let (open, gate) = watch::channel(false);
    let stuck = gated(&gate, |_| true);
    let a = fleet
        .member("a")
        .handler(stuck.clone())
        .with(|group| group.concurrency(4));
    let a = a.start().await;
    fleet
        .until("its handlers are stuck", || {
            a.handle().stats().in_flight == 4
        })
        .await;
    let b = fleet.member("b").handler(stuck).start().await;
    tokio::time::sleep(timing.session * 3).await;
    let in_flight = a.handle().stats().in_flight + b.handle().stats().in_flight;
    assert!(in_flight >= 4, "{in_flight}");
    assert_eq!(
        a.handle().stats().lost + b.handle().stats().lost,
        0,
        "no member loses a partition"
    );
    open.send(true).expect("the members run");
    let summary = fleet.check().await;
    assert_eq!(summary.duplicates, 0, "{summary:?}");
    a.close().await;
    b.close().await;
}

async fn c08_window_bounds_unsettled_records(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    let mut test_producer = fleet.test_producer().await;
    test_producer.send_one(Some("stuck")).await;
    test_producer.receipts().await;
    test_producer.send(10, 50).await;
    test_producer.close().await;
    let (open, gate) = watch::channel(false);
    let member = fleet
        .member("a")
        .handler(gated(&gate, |key| key == b"stuck"));
    let member = member
        .with(|group| group.max_unsettled_per_partition(60).max_poll_records(20))
        .start()
        .await;
    fleet
        .until("the window is full", || {
            member.handle().stats().received >= 60
        })
        .await;
    // The stimulus: nothing more is received, however long it lasts.
    tokio::time::sleep(fleet.harness.timing().session).await;
    let stats = member.handle().stats();
    assert!(
        stats.received <= 60 + 20,
        "{} were taken in, the window is 60",
        stats.received
    );
    assert!(
        fleet.acked() <= 60 + 20,
        "{} ran ahead of the stuck one",
        fleet.acked()
    );
    open.send(true).expect("the member runs");
    fleet.check().await;
    member.close().await;
}

async fn c08_buffer_bytes_bound_the_memory(harness: Arc<dyn Harness>) {
    const RECORD: usize = 10_000;
    let fleet = Fleet::new(harness, 2).await;
    let producer = fleet.client.producer(fleet.stream.as_str()).open().await;
    let producer = producer.expect("the producer opens");
    for index in 0..200 {
        let record = Record::new(vec![7_u8; RECORD]).key(format!("key-{index}"));
        drop(producer.send(record).await.expect("the record is taken"));
    }
    producer.close().await.expect("all are stored");
    let (open, gate) = watch::channel(false);
    let group = fleet
        .handle()
        .await
        .concurrency(3)
        .buffer_bytes(10 * RECORD)
        .max_poll_records(5);
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    let handler = move |_: Delivery| {
        let mut gate = gate.clone();
        async move { gate.wait_for(|open| *open).await.map(|_| ()) }
    };
    let run = group.run(handler, async move {
        end.await.ok();
    });
    let control = run.handle();
    let task = tokio::spawn(run);
    // It may be exceeded by one batch per partition.
    let most = (10 * RECORD + 2 * 5 * (RECORD + 10)) as u64;
    let full = || control.stats().buffered_bytes >= 10 * RECORD as u64 / 2;
    fleet.until("the buffer fills", full).await;
    tokio::time::sleep(fleet.harness.timing().session).await;
    let held = control.stats().buffered_bytes;
    assert!(held <= most, "{held} bytes are held, at most {most}");
    open.send(true).expect("the member runs");
    let drained = || {
        let stats = control.stats();
        assert!(
            stats.buffered_bytes <= most,
            "{} bytes are held",
            stats.buffered_bytes
        );
        stats.settled == 200
    };
    fleet.until("all are handled", drained).await;
    fleet
        .until("nothing is held", || control.stats().buffered_bytes == 0)
        .await;
    ended.send(()).expect("the member runs");
    joined(task).await.expect("the member closes");
}

async fn c08_concurrency_bounds_the_handlers(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    fleet.send(30, 2).await;
    let (open, gate) = watch::channel(false);
    let member = fleet.member("a").handler(gated(&gate, |_| true));
    let member = member.with(|group| group.concurrency(7)).start().await;
    fleet
        .until("handlers are at work", || {
            member.handle().stats().in_flight == 7
        })
        .await;
    tokio::time::sleep(fleet.harness.timing().handover).await;
    assert_eq!(
        member.handle().stats().in_flight,
        7,
        "all handlers are at work, and no more: {:?}",
        member.handle().stats()
    );
    open.send(true).expect("the member runs");
    fleet.check().await;
    assert_eq!(
        member.handle().stats().in_flight,
        0,
        "all handlers have ended: {:?}",
        member.handle().stats()
    );
    member.close().await;
}

async fn slow_sends(harness: Arc<dyn Harness>) -> Fleet {
    let by = harness.timing().handover;
    let fleet = Fleet::new(harness, 1).await;
    let fault = Fault::DelaySends {
        stream: fleet.stream.clone(),
        by,
    };
    fleet.inject(fault).await;
    fleet
}

async fn c08_full_producer_makes_send_wait(harness: Arc<dyn Harness>) {
    let fleet = slow_sends(harness).await;
    let producer = fleet
        .client
        .producer(fleet.stream.as_str())
        .in_flight_records(10)
        .open()
        .await;
    let producer = producer.expect("the producer opens");
    for index in 0..10 {
        let sent = producer
            .send(Record::new("x").key(format!("{index}")))
            .await;
        drop(sent.expect("there is room"));
    }
    assert_eq!(
        (producer.stats().in_flight, producer.stats().waited),
        (10, 0),
        "there is room for 10 records: {:?}",
        producer.stats()
    );
    let mut send = Box::pin(producer.send(Record::new("x").key("next")));
    let now = futures_util::FutureExt::now_or_never(&mut send);
    assert!(now.is_none(), "there is no room");
    drop(send.await.expect("there is room again"));
    for index in 0..20 {
        let sent = producer
            .send(Record::new("x").key(format!("{index}")))
            .await;
        drop(sent.expect("there is room again"));
        assert!(
            producer.stats().in_flight <= 10,
            "at most 10 records are in flight: {:?}",
            producer.stats()
        );
    }
    producer.flush().await.expect("all are stored");
    let stats = producer.stats();
    assert_eq!(
        (stats.sent, stats.stored, stats.in_flight),
        (31, 31, 0),
        "all records are stored: {stats:?}"
    );
    assert!(stats.waited >= 1, "{stats:?}");
    producer.close().await.expect("it closes");
}

async fn c08_producer_bounds_bytes(harness: Arc<dyn Harness>) {
    let fleet = slow_sends(harness).await;
    let producer = fleet
        .client
        .producer(fleet.stream.as_str())
        .in_flight_bytes(1_000)
        .open()
        .await;
    let producer = producer.expect("the producer opens");
    for _ in 0..20 {
        drop(
            producer
                .send(Record::new(vec![0_u8; 300]))
                .await
                .expect("there is room"),
        );
        assert!(
            producer.stats().in_flight_bytes <= 1_000,
            "at most 1,000 bytes are in flight: {:?}",
            producer.stats()
        );
    }
    // A record that is larger than the bound is sent alone.
    let large = producer
        .send(Record::new(vec![0_u8; 5_000]))
        .await
        .expect("it goes alone");
    assert!(
        producer.stats().in_flight <= 1,
        "a record larger than the bound goes alone: {:?}",
        producer.stats()
    );
    large.await.expect("it is stored");
    assert!(producer.stats().waited >= 1, "{:?}", producer.stats());
    producer.close().await.expect("it closes");
}
