//! Random interleavings of outages, refused results and moving partitions in an exactly-once pipeline.

use std::collections::BTreeSet;
use std::time::Duration;

use millstream_core::{
    ConsumerHandle, DeadLetter, Delivery, ErrorKind, OnExhausted, Record, Retry,
};
use proptest::prelude::*;
use tokio::time::sleep;

use crate::desk::group;
use crate::fake::{Call, Script};
use crate::moving_partition::{MovingPartition, block_on};

const PARTITIONS: [&str; 3] = ["0", "1", "2"];
const RECORDS: u64 = 40;

#[derive(Debug, Clone)]
enum Step {
    Receive(usize, u64),
    Lose(usize),
    Revoke(usize),
    Assign(usize),
    /// So many publications fail.
    Outage(usize),
    /// No call of `publish` returns for so many milliseconds.
    Hold(u64),
    /// A dead letter takes so many milliseconds from now on.
    Letters(u64),
    Sleep(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let of = 0..PARTITIONS.len();
    prop_oneof![
        6 => (of.clone(), 1..15_u64).prop_map(|(of, records)| Step::Receive(of, records)),
        1 => of.clone().prop_map(Step::Lose),
        1 => of.clone().prop_map(Step::Revoke),
        3 => of.prop_map(Step::Assign),
        1 => (1..4_usize).prop_map(Step::Outage),
        2 => (1..400_u64).prop_map(Step::Hold),
        1 => prop_oneof![Just(0), 0..30_000_u64].prop_map(Step::Letters),
        4 => prop_oneof![0..50_u64, 0..5_000_u64].prop_map(Step::Sleep),
    ]
}

/// What becomes of a record: a digit says how many results it has, a letter `x` that the broker refuses
/// its result, `f` that its handler fails once.
fn kind(position: u64) -> u8 {
    b"11x02f1x11210xx1f"[(position * 7 + position / 5) as usize % 17]
}

fn results(of: &str, position: u64) -> Vec<String> {
    match kind(position) {
        b'x' => vec![format!("{of}x{position}")],
        b'0' => vec![],
        b'2' => ["a", "b"]
            .map(|name| format!("{of}{name}{position}"))
            .to_vec(),
        _ => vec![format!("{of}a{position}")],
    }
}

async fn handle(delivery: Delivery) -> Result<Vec<Record>, String> {
    let position = delivery.position().offset().unwrap();
    // Deliveries end in another order than they begin, and some of them at once.
    match position * 13 % 7 {
        0 | 1 => {}
        slow => sleep(Duration::from_millis(slow * 30)).await,
    }
    if kind(position) == b'f' && delivery.attempt() == 1 {
        return Err("not yet".into());
    }
    let results = results(delivery.partition().id(), position);
    Ok(results.into_iter().map(Record::new).collect())
}

struct Run {
    script: Script,
    control: ConsumerHandle,
    partitions: [MovingPartition; PARTITIONS.len()],
    calls: usize,
    has_letters: bool,
}

impl Run {
    async fn new(checkpoint_records: u64, concurrency: usize, has_letters: bool) -> Self {
        let script = Script::new();
        let refused: Vec<String> = PARTITIONS
            .iter()
            .flat_map(|of| (0..RECORDS).flat_map(|position| results(of, position)))
            .filter(|result| result.contains('x'))
            .collect();
        let refused: Vec<&str> = refused.iter().map(String::as_str).collect();
        script.refuse_results(&refused, ErrorKind::TooLarge);
        let producer = script.client.producer("results").open().await.unwrap();
        let retry = Retry::fixed(Duration::from_millis(100));
        let retry = match has_letters {
            true => retry.then(DeadLetter::stream("dead")),
            false => retry.then(OnExhausted::Skip),
        };
        let run = group(&script)
            .checkpoint_records(checkpoint_records)
            .concurrency(concurrency)
            .on_failure(retry)
            .transform_to(&producer, handle, std::future::pending());
        let control = run.handle();
        tokio::spawn(run);
        Self {
            script,
            control,
            partitions: PARTITIONS.map(MovingPartition::new),
            calls: 0,
            has_letters,
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Receive(of, records) => self.receive(of, records),
            Step::Lose(of) => self.partitions[of].mark_lost(&self.script),
            Step::Revoke(of) => self.partitions[of].revoke(&self.script),
            Step::Assign(of) => self.assign(of),
            Step::Outage(times) => {
                let kinds = [ErrorKind::Unavailable, ErrorKind::Timeout];
                let kinds: Vec<_> = kinds.into_iter().cycle().take(times).collect();
                self.script.refuse_updates(&kinds);
            }
            Step::Hold(millis) => {
                let _held = self.script.hold_publications().await;
                sleep(Duration::from_millis(millis)).await;
            }
            Step::Letters(millis) => {
                *self.script.letters().latency.lock().unwrap() = Duration::from_millis(millis);
            }
            Step::Sleep(millis) => sleep(Duration::from_millis(millis)).await,
        }
        sleep(Duration::from_millis(1)).await;
        self.check();
    }

    fn receive(&mut self, of: usize, records: u64) {
        let key = |position: u64| char::from(b"abc-"[position as usize % 4]);
        self.partitions[of].receive(&self.script, records, RECORDS, key);
    }

    fn assign(&mut self, of: usize) {
        let stored = self.stored(of);
        self.partitions[of].assign(&self.script, stored);
    }

    /// How many positions of a partition are checkpointed.
    fn stored(&self, of: usize) -> u64 {
        let partition = &self.partitions[of];
        let epochs = 1..=partition.epoch();
        let positions = epochs.filter_map(|epoch| self.script.progress(partition.id(), epoch));
        positions.max().map_or(0, |position| position + 1)
    }

    /// Exactly the results below each checkpoint are published, in order, and what is refused below it is
    /// dead-lettered.
    fn check(&mut self) {
        let calls = self.script.calls();
        for call in &calls[self.calls..] {
            if let Call::Release(id) = call {
                let of = PARTITIONS.iter().position(|known| known == id).unwrap();
                self.partitions[of].released();
            }
        }
        self.calls = calls.len();
        let published = self.script.stored();
        let header = |letter: &Record, name| letter.headers.get_str(name).unwrap().to_owned();
        let letters = self.script.letters().records();
        let letters: BTreeSet<(String, String)> = letters
            .iter()
            .map(|letter| {
                let of = header(letter, "millstream-dead-partition");
                (of, header(letter, "millstream-dead-position"))
            })
            .collect();
        for (index, of) in PARTITIONS.iter().enumerate() {
            let stored = self.stored(index);
            let due = (0..stored).flat_map(|position| results(of, position));
            let due: Vec<_> = due.filter(|result| !result.contains('x')).collect();
            let own: Vec<_> = published
                .iter()
                .filter(|result| result.starts_with(of))
                .cloned()
                .collect();
            assert_eq!(own, due, "partition {of} at {stored}");
            let refused = (0..stored).filter(|position| kind(*position) == b'x');
            for position in refused.filter(|_| self.has_letters) {
                let letter = ((*of).to_owned(), position.to_string());
                assert!(
                    letters.contains(&letter),
                    "partition {of} passes {position} at {stored}"
                );
            }
        }
    }

    async fn finish(mut self) {
        self.step(Step::Letters(0)).await;
        for _ in 0..300 {
            if (0..PARTITIONS.len()).all(|of| self.stored(of) == RECORDS) {
                break;
            }
            for of in 0..PARTITIONS.len() {
                self.assign(of);
                self.receive(of, RECORDS);
            }
            self.step(Step::Sleep(300)).await;
        }
        let stored: Vec<_> = (0..PARTITIONS.len()).map(|of| self.stored(of)).collect();
        let in_flight = self.control.stats().in_flight;
        assert_eq!(
            stored,
            [RECORDS; PARTITIONS.len()],
            "stalled with {in_flight} in flight"
        );
        assert_eq!((in_flight, self.control.stats().buffered_bytes), (0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn each_result_is_published_once_in_order_however_partitions_move(
        steps in prop::collection::vec(step(), 1..120),
        checkpoint_records in prop_oneof![1..20_u64, Just(10_000)],
        concurrency in 1..8_usize,
        has_letters in any::<bool>(),
    ) {
        block_on(async {
            let mut run = Run::new(checkpoint_records, concurrency, has_letters).await;
            for step in steps {
                run.step(step).await;
            }
            run.finish().await;
        });
    }
}
