//! Random interleavings of what an application does with pulled deliveries and what happens to their
//! partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millstream_core::{Consumer, Failure, OnExhausted, PendingDelivery, Retry};
use proptest::prelude::*;
use tokio::time::{sleep, timeout};

use crate::desk::group;
use crate::fake::{Call, Script};
use crate::moving_partition::{MovingPartition, block_on};

const PARTITIONS: [&str; 2] = ["0", "1"];
const RECORDS: u64 = 24;
const KEYS: &str = "ab-";

#[derive(Debug, Clone)]
enum Step {
    Receive(usize, u64),
    Pull,
    Ack(usize),
    Nack(usize, u64),
    Reject(usize),
    Drop(usize),
    Lose(usize),
    Revoke(usize),
    Assign(usize),
    Sleep(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let of = 0..PARTITIONS.len();
    prop_oneof![
        3 => (of.clone(), 1..6_u64).prop_map(|(of, records)| Step::Receive(of, records)),
        8 => Just(Step::Pull),
        5 => any::<usize>().prop_map(Step::Ack),
        1 => (any::<usize>(), 0..3_000_u64).prop_map(|(which, delay)| Step::Nack(which, delay)),
        1 => any::<usize>().prop_map(Step::Reject),
        1 => any::<usize>().prop_map(Step::Drop),
        1 => of.clone().prop_map(Step::Lose),
        1 => of.clone().prop_map(Step::Revoke),
        2 => of.prop_map(Step::Assign),
        2 => prop_oneof![0..50_u64, 0..20_000_u64].prop_map(Step::Sleep),
    ]
}

fn key(position: u64) -> char {
    let place = (position * 5 + position / 3) as usize % KEYS.len();
    KEYS.as_bytes()[place].into()
}

/// What the driver and the application know of a partition.
#[derive(Debug)]
struct Model {
    partition: MovingPartition,
    /// What was settled by the application while it was not lost.
    settled: BTreeSet<u64>,
    /// How many positions are checkpointed.
    stored: u64,
}

struct Run {
    script: Script,
    consumer: Consumer,
    models: [Model; PARTITIONS.len()],
    held: Vec<PendingDelivery>,
    calls: usize,
}

impl Run {
    async fn new(concurrency: usize) -> Self {
        let script = Script::new();
        let retry = Retry::fixed(Duration::from_millis(500)).attempts(1_000_000);
        let consumer = group(&script)
            .concurrency(concurrency)
            .handler_timeout(Duration::from_secs(10))
            .on_failure(retry.then(OnExhausted::Skip))
            .join()
            .await
            .unwrap();
        Self {
            script,
            consumer,
            models: PARTITIONS.map(|id| Model {
                partition: MovingPartition::new(id),
                settled: BTreeSet::new(),
                stored: 0,
            }),
            held: Vec::new(),
            calls: 0,
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Receive(of, records) => self.receive(of, records),
            Step::Pull => {
                let next = self.consumer.next();
                if let Ok(next) = timeout(Duration::from_millis(1), next).await {
                    let pending = next.unwrap().unwrap();
                    self.check_order(&pending);
                    self.held.push(pending);
                }
            }
            Step::Ack(which) => self.settle(which, true, PendingDelivery::ack),
            Step::Nack(which, delay) => {
                let delay = Duration::from_millis(delay);
                self.settle(which, false, |pending| pending.nack_after(delay, "busy"));
            }
            Step::Reject(which) => self.settle(which, true, |pending| {
                pending.nack(Failure::permanent("nonsense"));
            }),
            Step::Drop(which) => self.settle(which, false, drop),
            Step::Lose(of) => self.models[of].partition.mark_lost(&self.script),
            Step::Revoke(of) => self.models[of].partition.revoke(&self.script),
            Step::Assign(of) => self.assign(of),
            Step::Sleep(millis) => sleep(Duration::from_millis(millis)).await,
        }
        sleep(Duration::from_millis(1)).await;
        self.check_calls();
    }

    fn receive(&mut self, of: usize, records: u64) {
        let partition = &mut self.models[of].partition;
        partition.receive(&self.script, records, RECORDS, key);
    }

    fn assign(&mut self, of: usize) {
        let model = &mut self.models[of];
        model.partition.assign(&self.script, model.stored);
    }

    fn settle(&mut self, which: usize, settles: bool, how: impl FnOnce(PendingDelivery)) {
        if self.held.is_empty() {
            return;
        }
        let which = which % self.held.len();
        let pending = self.held.swap_remove(which);
        if settles && !pending.is_lost() {
            let position = pending.position().offset().unwrap();
            self.model_of(&pending).settled.insert(position);
        }
        how(pending);
    }

    fn model_of(&mut self, pending: &PendingDelivery) -> &mut Model {
        let id = pending.partition().id();
        let of = PARTITIONS.iter().position(|known| *known == id);
        &mut self.models[of.unwrap()]
    }

    /// All records before it with the same key are settled.
    fn check_order(&mut self, pending: &PendingDelivery) {
        let position = pending.position().offset().unwrap();
        let settled = &self.model_of(pending).settled;
        if key(position) != '-' {
            let mut earlier = (0..position).filter(|earlier| key(*earlier) == key(position));
            assert!(
                earlier.all(|earlier| settled.contains(&earlier)),
                "{position} overtakes"
            );
        }
    }

    /// No checkpoint passes a record that is not settled, or goes back.
    fn check_calls(&mut self) {
        let calls = self.script.calls();
        for call in &calls[self.calls..] {
            let (id, stored) = match call {
                Call::Checkpoint(id, position) => (id, Some(position + 1)),
                Call::Release(id) => (id, None),
                _ => continue,
            };
            let of = PARTITIONS.iter().position(|known| known == id).unwrap();
            let model = &mut self.models[of];
            match stored {
                Some(stored) => {
                    assert!(stored > model.stored, "{id} goes back to {stored}");
                    for position in 0..stored {
                        let is_settled = model.settled.contains(&position);
                        assert!(is_settled, "{id} passes {position} at {stored}");
                    }
                    model.stored = stored;
                }
                None => model.partition.released(),
            }
        }
        self.calls = calls.len();
    }

    /// Everything that is left is delivered, and the consumer closes.
    async fn finish(mut self) {
        for _ in 0..10_000 {
            if self.models.iter().all(|model| model.stored == RECORDS) {
                break;
            }
            for of in 0..PARTITIONS.len() {
                self.assign(of);
                self.receive(of, RECORDS);
            }
            self.step(Step::Pull).await;
            self.step(Step::Ack(0)).await;
        }
        let stored: BTreeMap<_, _> = PARTITIONS
            .iter()
            .zip(self.models.iter().map(|model| model.stored))
            .collect();
        assert!(
            stored.values().all(|stored| *stored == RECORDS),
            "stalled at {stored:?} with {:?} in flight",
            self.consumer.stats().in_flight
        );
        let control = self.consumer.handle();
        self.consumer.close().await.unwrap();
        assert_eq!(control.stats().in_flight, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_record_is_settled_once_in_order_however_partitions_move(
        steps in prop::collection::vec(step(), 1..150),
        concurrency in prop_oneof![Just(1_usize), 2..8_usize],
    ) {
        block_on(async {
            let mut run = Run::new(concurrency).await;
            for step in steps {
                run.step(step).await;
            }
            run.finish().await;
        });
    }
}
