//! The producers of the fleet.

use fastrand::Rng;
use millstream::{ErrorKind, Receipt};
use tokio::sync::mpsc;

use super::script::ProducerPlan;
use super::world::World;
use crate::history::{Event, Load};

/// Sends what is planned, and waits for all answers.
pub(super) async fn send_all(world: World, plan: ProducerPlan, number: u64, seed: u64) {
    let opened = world
        .client
        .producer(&*plan.stream)
        .in_flight_records(plan.in_flight)
        .timeout(plan.timeout)
        .open();
    let Some(producer) = world.expect("open producer", opened.await) else {
        return;
    };
    let (hand_in, receipts) = mpsc::unbounded_channel();
    let answers = tokio::spawn(answers(world.clone(), receipts));
    let mut load = Load::new(&world.history, &plan.stream, (number + 1) * 1_000_000);
    let mut dice = Rng::with_seed(seed ^ (number + 1));
    let mut left = plan.records;
    while left > 0 {
        let gap = plan.gap.mul_f64(2.0 * dice.f64());
        tokio::time::sleep(gap).await;
        let burst = dice.u64(1..=plan.burst).min(left);
        left -= burst;
        for _ in 0..burst {
            let key = key(&plan, number, &mut dice);
            let (id, record) = load.next(key.as_deref());
            match producer.send(record).await {
                Ok(receipt) => {
                    // Its reader lives until the sender is gone.
                    let _ = hand_in.send((id, receipt));
                }
                Err(error) => world.complain(format!("send of record {id}: {error:?}")),
            }
        }
    }
    drop(hand_in);
    if let Err(error) = answers.await {
        world.complain(format!("reading receipts: {error}"));
    }
    world.expect("close producer", producer.close().await);
}

fn key(plan: &ProducerPlan, number: u64, dice: &mut Rng) -> Option<String> {
    if dice.f64() < plan.keyless {
        return None;
    }
    let mut key = dice.usize(..plan.keys);
    if plan.skewed {
        key = dice.usize(..=key);
    }
    Some(format!("key-{number}-{key}"))
}

/// Records what the receipts tell.
async fn answers(world: World, mut receipts: mpsc::UnboundedReceiver<(u64, Receipt)>) {
    while let Some((id, receipt)) = receipts.recv().await {
        let answer = match receipt.await {
            Ok(placed) => Event::Acknowledged {
                id,
                partition: placed.partition,
                position: placed.position,
            },
            Err(error) if error.kind() == ErrorKind::Timeout => Event::Unknown { id },
            Err(error) if error.is_retryable() => Event::Failed { id },
            Err(error) => {
                world.complain(format!("receipt of record {id}: {error:?}"));
                Event::Unknown { id }
            }
        };
        world.record(answer);
    }
}
