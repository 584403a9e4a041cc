//! C6: after a crash only unsettled and not-yet-checkpointed records are delivered again; the bound is a
//! setting, and takeover takes no longer than the session timeout.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::{ConsumerGroup, Delivery, Epoch, Partition, Position};
use tokio::time::Instant;

use super::cases;
use crate::checker::Rules;
use crate::fleet::{Fleet, handler_fn};
use crate::history::{Event, Outcome};
use crate::{Fault, Harness};

cases! {
    c06_checkpoint_count_bounds_the_repeats,
    c06_checkpoint_interval_bounds_the_repeats,
    c06_takeover_is_within_the_session_timeout,
    c06_crash_in_the_middle_of_a_handler,
    c06_consumer_dropped_without_close_is_a_crash,
    c06_refused_checkpoints_lose_nothing [FAIL_CHECKPOINTS],
    c06_lost_checkpoints_lose_nothing [LOSE_CHECKPOINTS],
    c06_broker_restart_keeps_records_and_progress [RESTART, DURABLE],
}

const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// Kills members that handle a steady load under these options, one after the other, until
/// something is delivered again: a checkpoint may have been in flight, and be stored after the crash. Each
/// next owner may repeat this many.
async fn crash_under_load(
    harness: Arc<dyn Harness>,
    configure: fn(ConsumerGroup) -> ConsumerGroup,
    most_repeats: u64,
) {
    // Only a slow machine needs more than a few.
    const CRASHES: usize = 20;
    let fleet = Fleet::new(harness, 1).await;
    let background_load = fleet
        .test_producer()
        .await
        .send_in_background(6, Duration::from_millis(2));
    let rules = || Rules {
        most_repeats: Some(most_repeats),
    };
    let start = async |name: &str| {
        let takes = Duration::from_millis(3);
        let member = fleet.member(name).handler_delay(takes).with(configure);
        let member = member.start().await;
        let before = fleet.acked();
        let handles = || fleet.acked() >= before + 700;
        fleet.until("records are handled", handles).await;
        member
    };
    let mut member = start("m0").await;
    for crash in 1..=CRASHES {
        // Not just after a checkpoint, or nothing would be delivered again; and not during a slow one, because
        // records that are settled meanwhile add to the repeats.
        let a_few = fleet.eventually("a few are not stored", || async {
            let stored = fleet.checkpoints().await;
            let last = stored.first().and_then(|at| at.position);
            let left = fleet.history.count(|event| {
                matches!(
                    event,
                    Event::Ended { handling, outcome: Outcome::Acked }
                        if Some(handling.position) > last
                )
            });
            (5..most_repeats - 16)
                .contains(&(left as u64))
                .then_some(())
        });
        a_few.await;
        member.crash().await;
        member = start(&format!("m{crash}")).await;
        if fleet.verdict(rules()).summary.duplicates > 0 {
            break;
        }
    }
    background_load.stop().await;
    let summary = fleet.check_with(rules()).await;
    assert!(
        summary.duplicates > 0,
        "the case shows nothing: {summary:?}"
    );
    member.close().await;
}

async fn c06_checkpoint_count_bounds_the_repeats(harness: Arc<dyn Harness>) {
    // Records that are settled while a checkpoint is in flight add to the repeats.
    let often = |group: ConsumerGroup| group.checkpoint_interval(NEVER).checkpoint_records(50);
    crash_under_load(harness, often, 50 + 16).await;
}

async fn c06_checkpoint_interval_bounds_the_repeats(harness: Arc<dyn Harness>) {
    let often = |group: ConsumerGroup| group.checkpoint_interval(Duration::from_millis(100));
    crash_under_load(harness, often, 50 + 16).await;
}

async fn c06_takeover_is_within_the_session_timeout(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 2).await;
    let background_load = fleet
        .test_producer()
        .await
        .send_in_background(8, Duration::from_millis(5));
    let a = fleet.member("a").start().await;
    let b = fleet.member("b").start().await;
    fleet
        .until("both work", || {
            a.owns() == 1 && b.owns() == 1 && fleet.acked() >= 50
        })
        .await;
    let began = Instant::now();
    a.crash().await;
    fleet.until("b has both partitions", || b.owns() == 2).await;
    let took = began.elapsed();
    assert!(
        took <= timing.session + timing.handover,
        "the takeover took {took:?}"
    );
    background_load.stop().await;
    fleet.check().await;
    b.close().await;
}

async fn c06_crash_in_the_middle_of_a_handler(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(4, 5).await;
    let hangs = handler_fn(|delivery: Delivery| async move {
        if delivery.key().is_some_and(|key| key == "key-2") {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    let a = fleet.member("a").handler(hangs).start().await;
    fleet
        .until("all but the stuck key is handled", || {
            fleet.unsettled() == 5
        })
        .await;
    a.crash().await;
    let b = fleet.member("b").start().await;
    fleet.check().await;
    fleet.caught_up().await;
    b.close().await;
}

async fn c06_consumer_dropped_without_close_is_a_crash(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(3, 4).await;
    let observer = crate::history::Observer::new(&fleet.history, &fleet.group, "puller");
    let group = fleet.handle().await.checkpoint_interval(NEVER);
    let mut consumer = group.join().await.expect("the puller joins");
    for _ in 0..4 {
        let delivery = super::reader::pull(timing, &mut consumer).await;
        observer
            .begin(&delivery)
            .end(crate::history::Outcome::Acked);
        delivery.ack();
    }
    observer.crashed();
    let began = Instant::now();
    drop(consumer);
    assert!(began.elapsed() < timing.handover, "dropping does not block");
    let b = fleet.member("b").start().await;
    fleet.check().await;
    fleet.caught_up().await;
    b.close().await;
}

async fn c06_refused_checkpoints_lose_nothing(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    let background_load = fleet
        .test_producer()
        .await
        .send_in_background(6, Duration::from_millis(2));
    let a = fleet
        .member("a")
        .with(|group| group.checkpoint_interval(Duration::from_millis(20)));
    let a = a.start().await;
    fleet
        .until("records are handled", || fleet.acked() >= 50)
        .await;
    let fault = Fault::FailCheckpoints {
        group: fleet.group.clone(),
        times: 5,
    };
    fleet.inject(fault).await;
    // On a busy machine all these records may be handled before the next checkpoint is sent.
    fleet
        .until("records are handled, and a checkpoint is refused", || {
            fleet.acked() >= 300 && fleet.harness.hits(&fleet.group) >= 1
        })
        .await;
    fleet.history.record(Event::Healed {
        group: fleet.group.as_str().into(),
    });
    a.close().await;
    let b = fleet.member("b").start().await;
    background_load.stop().await;
    let summary = fleet.check().await;
    assert_eq!(summary.duplicates, 0, "{summary:?}");
    fleet.caught_up().await;
    b.close().await;
}

async fn c06_lost_checkpoints_lose_nothing(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    let background_load = fleet
        .test_producer()
        .await
        .send_in_background(6, Duration::from_millis(2));
    let a = fleet
        .member("a")
        .with(|group| group.checkpoint_interval(Duration::from_millis(20)));
    let a = a.start().await;
    fleet
        .until("records are handled", || fleet.acked() >= 50)
        .await;
    let fault = Fault::LoseCheckpoints {
        group: fleet.group.clone(),
        times: 1_000,
    };
    fleet.inject(fault).await;
    // A checkpoint in flight may still be stored.
    fleet
        .until("checkpoints are lost", || {
            fleet.harness.hits(&fleet.group) >= 1
        })
        .await;
    let before = fleet.acked();
    fleet
        .until("records are handled", || fleet.acked() >= before + 100)
        .await;
    a.crash().await;
    let b = fleet.member("b").start().await;
    // The first member's checkpoint requests may arrive after its end, and must be lost, too.
    let began = |e: &Event| matches!(e, Event::Began(h) if &*h.by.member == "b");
    fleet
        .until("b handles", || fleet.history.count(began) >= 1)
        .await;
    let fault = Fault::LoseCheckpoints {
        group: fleet.group.clone(),
        times: 0,
    };
    fleet.inject(fault).await;
    background_load.stop().await;
    let summary = fleet.check().await;
    assert!(
        summary.duplicates >= 50,
        "what was not stored is delivered again: {summary:?}"
    );
    fleet.caught_up().await;
    b.close().await;
}

/// Returns the progress without its lag, which grows with time.
async fn places(fleet: &Fleet) -> Vec<(Partition, Option<Position>, Option<Epoch>)> {
    let checkpoints = fleet.checkpoints().await.into_iter();
    checkpoints
        .map(|at| (at.partition, at.position, at.epoch))
        .collect()
}

async fn c06_broker_restart_keeps_records_and_progress(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness.clone(), 2).await;
    fleet.send(5, 20).await;
    let a = fleet.member("a").start().await;
    fleet.caught_up().await;
    a.close().await;
    let mut more =
        crate::fleet::TestProducer::open(&fleet.client, &fleet.stream, &fleet.history, 1_000).await;
    for turn in 0..50 {
        more.send_one(Some(&format!("other-{}", turn % 5))).await;
    }
    more.close().await;
    let before = places(&fleet).await;
    let down = fleet.end();
    harness.inject(Fault::Restart).await;
    let fleet = down.resume(harness).await;
    assert_eq!(places(&fleet).await, before, "the checkpoint is as it was");
    let b = fleet.member("b").start().await;
    let summary = fleet.check().await;
    assert_eq!(
        (summary.handled, summary.duplicates),
        (150, 0),
        "{summary:?}"
    );
    fleet.caught_up().await;
    b.close().await;
}
