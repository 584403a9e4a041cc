//! Members that pull.

use std::time::Duration;

use millstream_core::{Epoch, Failure, OnExhausted, Position, Retry};

use crate::desk::{checkpoint, group};
use crate::fake::{Call, Script, partition, until};
use crate::live::LivePayloads;

#[tokio::test(start_paused = true)]
async fn pulled_deliveries_are_settled_in_any_order() {
    let script = Script::new();
    let mut consumer = group(&script).join().await.unwrap();
    script.assign("0", 1);
    script.records("0", 1, 0, "aba");
    let first = consumer.next().await.unwrap().unwrap();
    let second = consumer.next().await.unwrap().unwrap();
    assert_eq!(
        (first.position(), second.position()),
        (Position::from(0), Position::from(1))
    );
    second.ack();
    assert!(
        tokio::time::timeout(Duration::from_secs(5), consumer.next())
            .await
            .is_err()
    );
    assert_eq!(script.calls(), []);
    first.ack();
    consumer.next().await.unwrap().unwrap().ack();
    consumer.close().await.unwrap();
    assert_eq!(
        script.calls().last_chunk(),
        Some(&[checkpoint("0", 2), Call::Leave])
    );
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_was_lost_before_it_was_pulled_is_not_handed_out() {
    let script = Script::new();
    let mut consumer = group(&script).join().await.unwrap();
    let control = consumer.handle();
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    until(|| control.stats().in_flight == 2).await;
    script.mark_lost("0", 1);
    script.assign("0", 2);
    script.records("0", 2, 0, "ab");
    until(|| control.stats().assigned == 2 && control.stats().in_flight == 2).await;
    for position in 0..2 {
        let delivery = consumer.next().await.unwrap().unwrap();
        assert_eq!(
            (delivery.epoch(), delivery.position()),
            (Epoch(2), Position::from(position))
        );
        delivery.ack();
    }
    consumer.close().await.unwrap();
}

/// The application is busy while the partition is assigned and lost again and again.
#[tokio::test(start_paused = true)]
async fn what_was_not_pulled_of_a_lost_partition_takes_no_memory() {
    let (script, live) = (Script::new(), LivePayloads::default());
    let mut consumer = group(&script).join().await.unwrap();
    let control = consumer.handle();
    for epoch in 1..4 {
        script.assign("0", epoch);
        script.record("0", epoch, live.record(0, "a"));
        until(|| control.stats().in_flight == 1).await;
        script.mark_lost("0", epoch);
        until(|| control.stats().lost == epoch).await;
        assert_eq!(live.count(), 0);
    }
    script.assign("0", 4);
    script.record("0", 4, live.record(0, "a"));
    consumer.next().await.unwrap().unwrap().ack();
    consumer.close().await.unwrap();
    assert_eq!(script.steps(), [checkpoint("0", 0), Call::Leave]);
}

#[tokio::test(start_paused = true)]
async fn a_pulled_delivery_that_is_dropped_comes_again() {
    let script = Script::new();
    let mut consumer = group(&script).join().await.unwrap();
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    drop(consumer.next().await.unwrap().unwrap());
    let again = consumer.next().await.unwrap().unwrap();
    assert_eq!((again.position(), again.attempt()), (Position::from(0), 2));
    again.nack("and once more");
    let again = consumer.next().await.unwrap().unwrap();
    assert_eq!(again.attempt(), 3);
    again.ack();
    consumer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn deliveries_that_were_never_pulled_do_not_hold_up_a_close() {
    let script = Script::new();
    let mut consumer = group(&script).join().await.unwrap();
    script.assign("0", 1);
    script.records("0", 1, 0, "abcd");
    consumer.next().await.unwrap().unwrap().ack();
    let asked = tokio::time::Instant::now();
    consumer.close().await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(1));
    assert_eq!(script.steps(), [checkpoint("0", 0), Call::Leave]);
}

/// Their next attempt could not be pulled any more.
#[tokio::test(start_paused = true)]
async fn retries_do_not_hold_up_a_close() {
    let script = Script::new();
    let mut consumer = group(&script).join().await.unwrap();
    script.assign("0", 1);
    script.records("0", 1, 0, "abc");
    let delay = Duration::from_secs(5);
    consumer.next().await.unwrap().unwrap().ack();
    let waits = consumer.next().await.unwrap().unwrap();
    waits.nack_after(delay, "busy");
    let held = consumer.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = tokio::time::Instant::now();
    let close = tokio::spawn(consumer.close());
    tokio::time::sleep(Duration::from_millis(10)).await;
    held.nack_after(delay, "busy too");
    close.await.unwrap().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(1));
    assert_eq!(script.steps(), [checkpoint("0", 0), Call::Leave]);
}

#[tokio::test(start_paused = true)]
async fn a_shut_down_consumer_may_be_pulled_until_none() {
    let script = Script::new();
    let mut consumer = group(&script).concurrency(2).join().await.unwrap();
    script.assign("0", 1);
    script.records("0", 1, 0, "abcd");
    consumer.next().await.unwrap().unwrap().ack();
    consumer.handle().shutdown();
    while let Some(delivery) = consumer.next().await.unwrap() {
        delivery.ack();
    }
    assert_eq!(script.calls().last(), Some(&Call::Leave));
}

#[tokio::test(start_paused = true)]
async fn a_closing_consumer_checkpoints_when_nothing_is_held_any_more() {
    let script = Script::new();
    let mut consumer = group(&script).join().await.unwrap();
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    let first = consumer.next().await.unwrap().unwrap();
    let second = consumer.next().await.unwrap().unwrap();
    consumer.handle().shutdown();
    tokio::time::sleep(Duration::from_millis(100)).await;
    first.ack();
    tokio::time::sleep(Duration::from_millis(100)).await;
    second.ack();
    assert!(consumer.next().await.unwrap().is_none());
    assert_eq!(script.steps(), [checkpoint("0", 1), Call::Leave]);
}

#[tokio::test(start_paused = true)]
async fn a_nack_says_when_to_try_again_and_a_rejection_that_nothing_helps() {
    let script = Script::new();
    let skips = group(&script).on_failure(Retry::exponential().then(OnExhausted::Skip));
    let mut consumer = skips.join().await.unwrap();
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    let hour = Duration::from_secs(3_600);
    let asked = tokio::time::Instant::now();
    consumer
        .next()
        .await
        .unwrap()
        .unwrap()
        .nack_after(hour, "busy");
    let again = consumer.next().await.unwrap().unwrap();
    assert_eq!(again.attempt(), 2);
    assert!((hour..hour + Duration::from_secs(1)).contains(&asked.elapsed()));
    again.nack(Failure::unavailable("down"));
    let again = consumer.next().await.unwrap().unwrap();
    assert_eq!(again.attempt(), 2, "an outage is no attempt");
    again.reject("nonsense");
    script.until_called(checkpoint("0", 0)).await;
    assert_eq!(consumer.stats().skipped, 1);
    consumer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_revocation_takes_back_what_was_not_pulled() {
    let script = Script::new();
    let mut consumer = group(&script).join().await.unwrap();
    let control = consumer.handle();
    script.assign("0", 1);
    script.assign("1", 1);
    script.records("0", 1, 0, "abcdefgh");
    script.records("1", 1, 0, "xy");
    until(|| control.stats().in_flight == 10).await;
    let held = consumer.next().await.unwrap().unwrap();
    let asked = tokio::time::Instant::now();
    script.revoke("0", 1, Duration::from_secs(10));
    until(|| control.stats().in_flight == 3).await;
    held.ack();
    script.until_called(Call::Release("0".into())).await;
    assert!(asked.elapsed() < Duration::from_secs(1));
    for _ in 0..2 {
        let delivery = consumer.next().await.unwrap().unwrap();
        assert_eq!(delivery.partition().id(), "1");
        delivery.ack();
    }
    consumer.close().await.unwrap();
    assert!(script.calls().contains(&checkpoint("0", 0)));
}

/// Position 3 is settled: 1 and 2 go on, or all three come again.
#[tokio::test(start_paused = true)]
async fn a_revocation_leaves_what_lies_before_a_settled_delivery() {
    let script = Script::new();
    let mut consumer = group(&script).join().await.unwrap();
    let control = consumer.handle();
    script.assign("0", 1);
    script.records("0", 1, 0, "aaab");
    let first = consumer.next().await.unwrap().unwrap();
    consumer.next().await.unwrap().unwrap().ack();
    first.ack();
    until(|| control.stats().settled == 2 && control.stats().in_flight == 1).await;
    script.records("0", 1, 4, "cde");
    until(|| control.stats().in_flight == 4).await;
    script.revoke("0", 1, Duration::from_secs(10));
    until(|| control.stats().in_flight == 1).await;
    for position in 1..3 {
        let delivery = consumer.next().await.unwrap().unwrap();
        assert_eq!(delivery.position(), Position::from(position));
        delivery.ack();
    }
    script.until_called(Call::Release("0".into())).await;
    assert_eq!(
        script.steps(),
        [checkpoint("0", 3), Call::Release("0".into())]
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_settled_after_its_time_is_not_taken_for_the_next_attempt() {
    let script = Script::new();
    let limited = group(&script)
        .handler_timeout(Duration::from_secs(30))
        .on_failure(Retry::fixed(Duration::from_secs(1)));
    let mut consumer = limited.join().await.unwrap();
    let control = consumer.handle();
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    let late = consumer.next().await.unwrap().unwrap();
    late.lost().await;
    let again = consumer.next().await.unwrap().unwrap();
    assert_eq!((again.position(), again.attempt()), (Position::from(0), 2));
    late.ack();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((control.stats().failures, control.stats().settled), (1, 0));
    assert_eq!(control.stats().in_flight, 1);
    again.ack();
    consumer.close().await.unwrap();
    assert_eq!(script.steps(), [checkpoint("0", 0), Call::Leave]);
}

#[tokio::test(start_paused = true)]
async fn what_is_settled_in_time_does_not_time_out() {
    let script = Script::new();
    let limited = group(&script)
        .handler_timeout(Duration::from_secs(30))
        .on_failure(Retry::none());
    let mut consumer = limited.join().await.unwrap();
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    let first = consumer.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    first.ack();
    consumer.next().await.unwrap().unwrap().ack();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(consumer.stats().failures, 0);
    consumer.close().await.unwrap();
}

/// The application is busy elsewhere. What it never saw must not use up its attempts and be skipped.
#[tokio::test(start_paused = true)]
async fn what_was_not_pulled_does_not_time_out() {
    let script = Script::new();
    let limited = group(&script)
        .handler_timeout(Duration::from_secs(30))
        .on_failure(Retry::none().then(OnExhausted::Skip));
    let mut consumer = limited.join().await.unwrap();
    let control = consumer.handle();
    script.assign("0", 1);
    script.records("0", 1, 0, "abc");
    until(|| control.stats().in_flight == 3).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    let stats = control.stats();
    assert_eq!((stats.failures, stats.skipped), (0, 0));
    let first = consumer.next().await.unwrap().unwrap();
    assert_eq!((first.position(), first.attempt()), (Position::from(0), 1));
    tokio::time::sleep(Duration::from_secs(29)).await;
    first.ack();
    let second = consumer.next().await.unwrap().unwrap();
    let pulled = tokio::time::Instant::now();
    second.lost().await;
    let took = pulled.elapsed();
    assert!((30..31).contains(&took.as_secs()), "{took:?}");
    consumer.next().await.unwrap().unwrap().ack();
    consumer.close().await.unwrap();
    assert_eq!(control.stats().skipped, 1);
    assert_eq!(script.steps().pop(), Some(Call::Leave));
    assert!(script.steps().contains(&checkpoint("0", 2)));
}

/// The same record is delivered again when the lost delivery of it is settled.
#[tokio::test(start_paused = true)]
async fn what_is_settled_after_a_loss_settles_nothing_of_the_next_assignment() {
    let script = Script::new();
    let mut consumer = group(&script).join().await.unwrap();
    let control = consumer.handle();
    script.assign("0", 1);
    script.records("0", 1, 0, "a");
    let lost = consumer.next().await.unwrap().unwrap();
    script.mark_lost("0", 1);
    until(|| control.stats().lost == 1).await;
    assert_eq!(control.stats().in_flight, 0);
    assert!(lost.is_lost());
    script.assign("0", 2);
    script.records("0", 2, 0, "a");
    let owned = consumer.next().await.unwrap().unwrap();
    lost.ack();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(control.stats().settled, 0);
    owned.ack();
    consumer.close().await.unwrap();
    assert_eq!(script.steps(), [checkpoint("0", 0), Call::Leave]);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_is_held_beyond_the_drain_is_lost() {
    let script = Script::new();
    let mut consumer = group(&script).join().await.unwrap();
    let control = consumer.handle();
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    consumer.next().await.unwrap().unwrap().ack();
    let held = consumer.next().await.unwrap().unwrap();
    script.revoke("0", 1, Duration::from_secs(10));
    script.until_called(Call::Release("0".into())).await;
    assert!(held.is_lost());
    held.ack();
    until(|| control.stats().released == 1).await;
    let stats = control.stats();
    assert_eq!((stats.abandoned, stats.in_flight, stats.settled), (1, 0, 1));
    consumer.close().await.unwrap();
    assert_eq!(
        script.steps(),
        [checkpoint("0", 0), Call::Release("0".into()), Call::Leave]
    );
}

#[tokio::test(start_paused = true)]
async fn no_more_deliveries_are_outstanding_than_may_be() {
    let script = Script::new();
    let mut consumer = group(&script).concurrency(2).join().await.unwrap();
    let control = consumer.handle();
    script.assign("0", 1);
    script.records("0", 1, 0, "abcdefgh");
    for _ in 0..4 {
        let first = consumer.next().await.unwrap().unwrap();
        let second = consumer.next().await.unwrap().unwrap();
        let third = tokio::time::timeout(Duration::from_secs(5), consumer.next());
        assert!(third.await.is_err());
        assert_eq!(control.stats().in_flight, 2);
        second.ack();
        first.ack();
    }
    consumer.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_held_delivery_is_what_its_partition_waits_for() {
    let script = Script::new();
    let mut consumer = group(&script).join().await.unwrap();
    let control = consumer.handle();
    script.assign("0", 1);
    script.records("0", 1, 0, "ab");
    let held = consumer.next().await.unwrap().unwrap();
    consumer.next().await.unwrap().unwrap().ack();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let partitions = control.partitions();
    let oldest = partitions[&partition("0")].oldest_unsettled.clone();
    let oldest = oldest.expect("it was looked up");
    assert_eq!((oldest.position, oldest.attempt), (Position::from(0), 1));
    assert!(oldest.age().unwrap() >= Duration::from_secs(10));
    held.ack();
    consumer.close().await.unwrap();
}
