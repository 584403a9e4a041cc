//! C4: acks may come in any order; the stored checkpoint never passes an unsettled record.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::{Delivery, Position};
use tokio::sync::watch;

use super::cases;
use super::reader::pull;
use crate::Harness;
use crate::fleet::{Fleet, handler_fn};
use crate::history::{Observer, Outcome};

cases! {
    c04_acks_in_any_order,
    c04_a_stuck_record_holds_the_checkpoint,
    c04_slow_and_quick_keys,
}

/// Returns the checkpoint in a stream of one partition.
async fn position(fleet: &Fleet) -> Option<Position> {
    let checkpoints = fleet.checkpoints().await;
    checkpoints.first().and_then(|stored| stored.position)
}

async fn c04_acks_in_any_order(harness: Arc<dyn Harness>) {
    let timing = harness.timing();
    let fleet = Fleet::new(harness, 1).await;
    fleet.send(9, 1).await;
    let observer = Observer::new(&fleet.history, &fleet.group, "puller");
    let group = fleet.handle().await.concurrency(9);
    let group = group.checkpoint_interval(Duration::from_millis(1));
    let mut consumer = group.join().await.expect("the puller joins");
    let mut held = Vec::new();
    for _ in 0..9 {
        let delivery = pull(timing, &mut consumer).await;
        held.push(Some((observer.begin(&delivery), delivery)));
    }
    let positions: Vec<_> = held.iter().flatten().map(|(_, d)| d.position()).collect();
    for index in [8, 3, 1, 0, 5, 2, 4, 7, 6] {
        let (open, delivery) = held[index].take().expect("each is acked once");
        open.end(Outcome::Acked);
        delivery.ack();
        let unsettled = held.iter().position(Option::is_some).unwrap_or(9);
        let expected = unsettled.checked_sub(1).map(|last| positions[last]);
        let follows = fleet.eventually("the checkpoint follows the acks", || async {
            let stored = position(&fleet).await;
            assert!(stored <= expected, "{stored:?} passes {expected:?}");
            (stored == expected || expected.is_none()).then_some(())
        });
        follows.await;
    }
    fleet.check().await;
    consumer.close().await.expect("the puller closes");
    observer.left();
}

/// Handles `stuck` only when the gate is open.
fn gated(gate: &watch::Receiver<bool>) -> crate::fleet::HandlerFn {
    let gate = gate.clone();
    handler_fn(move |delivery: Delivery| {
        let mut gate = gate.clone();
        async move {
            if delivery.key().is_some_and(|key| key == "stuck") {
                gate.wait_for(|open| *open).await?;
            }
            Ok(())
        }
    })
}

async fn c04_a_stuck_record_holds_the_checkpoint(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 1).await;
    let mut test_producer = fleet.test_producer().await;
    test_producer.send(3, 5).await;
    test_producer.send_one(Some("stuck")).await;
    let stuck = test_producer.receipts().await[0].1.position;
    test_producer.send(3, 40).await;
    test_producer.close().await;
    let (open, gate) = watch::channel(false);
    let member = fleet.member("a").handler(gated(&gate));
    let member = member.with(|group| group.checkpoint_interval(Duration::from_millis(1)));
    let member = member.start().await;
    fleet
        .until("the other keys are handled", || fleet.unsettled() == 1)
        .await;
    let comes_up = fleet.eventually("the checkpoint comes up to it", || async {
        let stored = position(&fleet).await;
        assert!(stored < Some(stuck), "{stored:?} passes {stuck}");
        let settled = member
            .handle()
            .partitions()
            .values()
            .next()
            .and_then(|p| p.settled);
        (stored.is_some() && stored == settled).then_some(())
    });
    comes_up.await;
    open.send(true).expect("the member runs");
    fleet.check().await;
    fleet.caught_up().await;
    member.close().await;
}

async fn c04_slow_and_quick_keys(harness: Arc<dyn Harness>) {
    let fleet = Fleet::new(harness, 2).await;
    fleet.send(10, 20).await;
    let uneven = handler_fn(|delivery: Delivery| async move {
        let last = delivery
            .key()
            .and_then(|key| key.last().copied())
            .unwrap_or(b'0');
        tokio::time::sleep(Duration::from_millis(u64::from(last - b'0') * 4)).await;
        Ok(())
    });
    let member = fleet.member("a").handler(uneven).with(|group| {
        group
            .checkpoint_interval(Duration::from_millis(1))
            .checkpoint_records(1)
    });
    let member = member.start().await;
    // The checker verifies the checkpoints that were read meanwhile.
    fleet.check().await;
    fleet.caught_up().await;
    member.close().await;
}
