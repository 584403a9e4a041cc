//! C7: a member that lost its partition cannot checkpoint it, delivers no more of it, and its
//! handlers can see the loss.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use millstream_core::Delivery;
use tokio::sync::watch;
use tokio::time::sleep;

use super::cases;
use super::reader::pull;
use crate::fleet::{Fleet, HandlerFn, handler_fn};
use crate::history::{Event, Observer, Outcome};
use crate::{Fault, Harness, within_timeout};

cases! {
    c07_zombie_is_fenced [FREEZE],
    c07_zombie_cannot_move_the_checkpoint [FREEZE],
    c07_zombie_with_a_running_handler_sees_the_loss [FREEZE],
    c07_stolen_partition_is_lost_and_handled_by_another_member [STEAL],
    c07_ack_of_a_stolen_partition_settles_nothing [STEAL],
    c07_short_freeze_loses_no_partition [FREEZE],
}

fn began(fleet: &Fleet, member: &str) -> usize {
    fleet
        .history
        .count(|e| matches!(e, Event::Began(h) if &*h.by.member == member))
}

fn losses(fleet: &Fleet, member: &str) -> usize {
    fleet
        .history
        .count(|e| matches!(e, Event::Lost(by) if &*by.member == member))
}

async fn c07_zombie_is_fenced(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    let background_load = fleet
        .test_producer()
        .await
        .send_in_background(6, Duration::from_millis(5));
    let slow = Duration::from_millis(20);
    let a = fleet
        .member("a")
        .handler_delay(slow)
        .with(|group| group.checkpoint_interval(slow));
    let a = a.start().await;
    fleet.until("a handles", || began(&fleet, "a") >= 30).await;
    let b = fleet.member("b").handler_delay(slow).start().await;
    fleet
        .until("both are members", || fleet.acked() >= 100)
        .await;
    let (owner, other) = if a.owns() > 0 { ("a", "b") } else { ("b", "a") };
    fleet.freeze(owner).await;
    let before = began(&fleet, other);
    fleet
        .until("the other takes over", || {
            began(&fleet, other) > before + 20
        })
        .await;
    // It may have detected the loss by itself. Its checkpoint requests arrive now. The checker verifies that the
    // other member's progress remains.
    fleet.thaw(owner).await;
    fleet
        .until("the zombie sees the loss", || losses(&fleet, owner) >= 1)
        .await;
    sleep(timing.handover).await;
    let handled = fleet.acked();
    fleet
        .until("the other continues", || fleet.acked() >= handled + 100)
        .await;
    background_load.stop().await;
    fleet.check().await;
    fleet.caught_up().await;
    let zombie = if owner == "a" { &a } else { &b };
    assert!(
        zombie.handle().stats().lost >= 1,
        "the zombie has lost its partition: {:?}",
        zombie.handle().stats()
    );
    assert!(!zombie.has_ended(), "it is a member still, or again");
    a.close().await;
    b.close().await;
}

/// Returns a handler whose first `quick` records take a moment, and all later ones wait until the sender opens them.
fn waits_after(quick: usize, moment: Duration) -> (watch::Sender<bool>, HandlerFn) {
    let (open, gate) = watch::channel(false);
    let begun = AtomicUsize::new(0);
    let handler = handler_fn(move |_| {
        let waits = begun.fetch_add(1, Relaxed) >= quick;
        let mut gate = gate.clone();
        async move {
            if waits {
                gate.wait_for(|open| *open).await.map(|_| ())?;
            }
            sleep(moment).await;
            Ok(())
        }
    });
    (open, handler)
}

async fn c07_zombie_cannot_move_the_checkpoint(harness: Arc<dyn Harness>) {
    const KEYS: usize = 2;
    const BEFORE: usize = 40;
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(KEYS, 100).await;
    let quick = timing.session / 500;
    let (go_on, handler) = waits_after(BEFORE, quick);
    let a = fleet
        .member("a")
        .handler(handler)
        .with(|group| group.checkpoint_interval(quick * 5));
    let a = a.start().await;
    fleet
        .until("progress is stored, and a record of each key waits", || {
            began(&fleet, "a") >= BEFORE + KEYS && a.handle().stats().checkpoints >= 1
        })
        .await;
    let handled = fleet.acked();
    fleet.freeze("a").await;
    // It continues to handle the records it has received, and sends checkpoints for them. The responses wait until
    // it wakes. On a busy machine it may detect its loss before that.
    go_on.send(true).expect("a runs");
    fleet
        .until("the zombie has handled more, or knows its loss", || {
            fleet.acked() > handled || losses(&fleet, "a") >= 1
        })
        .await;
    let (open, waits) = waits_after(0, Duration::ZERO);
    let b = fleet.member("b").handler(waits).start().await;
    fleet
        .until("b takes over", || began(&fleet, "b") >= 1)
        .await;
    let stored = async || {
        let checkpoint = fleet.checkpoints().await.into_iter().next();
        checkpoint.map(|at| (at.position, at.epoch))
    };
    let before = stored().await;
    fleet.thaw("a").await;
    fleet
        .until("the zombie sees the loss", || losses(&fleet, "a") >= 1)
        .await;
    sleep(timing.handover).await;
    assert_eq!(stored().await, before, "b has settled nothing yet");
    open.send(true).expect("b runs");
    fleet
        .until("b handles all from there", || {
            b.handle().stats().settled >= 100
        })
        .await;
    a.close().await;
    fleet.caught_up().await;
    fleet.check().await;
    b.close().await;
}

async fn c07_zombie_with_a_running_handler_sees_the_loss(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(4, 5).await;
    let (seen, mut asked) = watch::channel(0_u32);
    let seen = Arc::new(seen);
    let hangs = handler_fn(move |delivery: Delivery| {
        let seen = seen.clone();
        async move {
            // Work that was spawned elsewhere sees the loss through the delivery.
            let elsewhere = delivery.clone();
            tokio::spawn(async move {
                elsewhere.lost().await;
                assert!(
                    elsewhere.is_lost(),
                    "the clone of the delivery knows of the loss"
                );
                seen.send_modify(|seen| *seen += 1);
            });
            std::future::pending::<()>().await;
            Ok(())
        }
    });
    let a = fleet.member("a").handler(hangs).start().await;
    fleet
        .until("its handlers hang", || began(&fleet, "a") == 4)
        .await;
    let b = fleet.member("b").start().await;
    fleet.freeze("a").await;
    fleet
        .until("b handles all", || fleet.unsettled() == 0)
        .await;
    fleet.thaw("a").await;
    let all_seen = asked.wait_for(|seen| *seen >= 4);
    let all_seen = within_timeout(timing, "the handlers see the loss", all_seen).await;
    all_seen.expect("the handlers live");
    let cut = |e: &Event| {
        matches!(
            e,
            Event::Ended {
                outcome: Outcome::Dropped,
                ..
            }
        )
    };
    fleet
        .until("its handlers are dropped", || fleet.history.count(cut) >= 4)
        .await;
    fleet.check().await;
    a.crash().await;
    b.close().await;
}

async fn c07_stolen_partition_is_lost_and_handled_by_another_member(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    let background_load = fleet
        .test_producer()
        .await
        .send_in_background(10, Duration::from_millis(3));
    let takes = Duration::from_millis(15);
    let a = fleet.member("a").handler_delay(takes).start().await;
    let b = fleet.member("b").handler_delay(takes).start().await;
    fleet
        .until("both work", || a.owns() == 1 && b.owns() == 1)
        .await;
    for _ in 0..3 {
        let partitions = a.handle().partitions();
        let Some((partition, stats)) = partitions.into_iter().next() else {
            break;
        };
        let steal = Fault::Steal {
            group: fleet.group.clone(),
            partition: partition.clone(),
        };
        let lost = a.handle().stats().lost;
        fleet.inject(steal).await;
        fleet
            .until("a sees the loss", || a.handle().stats().lost > lost)
            .await;
        let next = || {
            let owners = [&a, &b].map(|member| member.handle().partitions());
            owners
                .iter()
                .any(|own| own.get(&partition).is_some_and(|p| p.epoch > stats.epoch))
        };
        fleet.until("the next owner has a larger epoch", next).await;
        let handled = fleet.acked();
        fleet
            .until("they continue", || fleet.acked() > handled + 50)
            .await;
    }
    background_load.stop().await;
    fleet.check().await;
    fleet.caught_up().await;
    a.close().await;
    b.close().await;
}

async fn c07_ack_of_a_stolen_partition_settles_nothing(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(1, 3).await;
    let observer = Observer::new(&fleet.history, &fleet.group, "puller");
    let group = fleet
        .handle()
        .await
        .checkpoint_interval(Duration::from_millis(1));
    let mut consumer = group.join().await.expect("the puller joins");
    let held = pull(timing, &mut consumer).await;
    let open = observer.begin(&held);
    assert!(!held.is_lost(), "it is not lost yet");
    let partition = held.partition().clone();
    let steal = Fault::Steal {
        group: fleet.group.clone(),
        partition: partition.clone(),
    };
    fleet.inject(steal).await;
    // Pulling drives the member.
    let seen = async {
        tokio::select! {
            biased;
            () = held.lost() => {}
            next = consumer.next() => panic!("no other record of the key may come: {next:?}"),
        }
    };
    within_timeout(timing, "the puller sees the loss", seen).await;
    assert!(held.is_lost(), "the delivery knows of the loss");
    observer.lost(&held);
    open.end(Outcome::Dropped);
    held.ack();
    observer.crashed();
    drop(consumer);
    // Its ack had no effect: the record is delivered again.
    let b = fleet.member("b").start().await;
    let summary = fleet.check().await;
    assert_eq!(summary.handled, 3, "{summary:?}");
    b.close().await;
}

async fn c07_short_freeze_loses_no_partition(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    let background_load = fleet
        .test_producer()
        .await
        .send_in_background(6, Duration::from_millis(5));
    let a = fleet.member("a").start().await;
    fleet.until("a handles", || fleet.acked() >= 30).await;
    fleet
        .inject(fleet.freeze_for("a", timing.session / 3))
        .await;
    let handled = fleet.acked();
    fleet
        .until("a continues", || fleet.acked() >= handled + 300)
        .await;
    background_load.stop().await;
    let summary = fleet.check().await;
    let lost = a.handle().stats().lost;
    assert_eq!(
        lost, 0,
        "a was cut off for less than a session, and lost {lost} partitions: {summary:?}"
    );
    assert_eq!(summary.duplicates, 0, "{summary:?}");
    a.close().await;
}
