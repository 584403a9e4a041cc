//! Compares the queue with a plain model: every record in one list, in the order of `push`.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::time::Instant;

use super::*;

const MOST: BatchLimits = BatchLimits {
    records: 4,
    bytes: 100,
};
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A new record of this key.
    Push(Option<u64>),
    /// One more call.
    Take,
    /// The end of one of the calls in flight. Two bits for each record are its outcome.
    Done { call: usize, fates: u32 },
    /// Time passes.
    Wait(u64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum RecordState {
    Waits,
    InCall(usize),
    Settled,
}

struct Model {
    queue: KeyOrderedQueue<usize>,
    now: Instant,
    records: Vec<(Option<u64>, RecordState)>,
    calls: Vec<(usize, ItemBatch<usize>)>,
    named: usize,
    /// The failed records that wait for a retry: the first one of each key, and those without a key.
    failed: Vec<usize>,
}

impl Model {
    fn new() -> Self {
        Self {
            queue: KeyOrderedQueue::new(),
            now: Instant::now(),
            records: Vec::new(),
            calls: Vec::new(),
            named: 0,
            failed: Vec::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Push(key) => self.push(key),
            Step::Take => _ = self.take(),
            Step::Done { .. } if self.calls.is_empty() => {}
            Step::Done { call, fates } => self.done(call % self.calls.len(), fates),
            Step::Wait(millis) => self.now += Duration::from_millis(millis),
        }
    }

    fn push(&mut self, key: Option<u64>) {
        let load = self.records.len();
        self.records.push((key, RecordState::Waits));
        self.queue.push(Item {
            key,
            bytes: 1 + load % 40,
            deadline: self.now + TIMEOUT,
            attempts: 0,
            unclear: false,
            load,
        });
    }

    fn take(&mut self) -> bool {
        let Some(batch) = self.queue.take(self.now, MOST) else {
            self.check_that_only_bound_keys_wait();
            return false;
        };
        self.named += 1;
        let bytes: usize = batch.items.iter().map(|item| item.bytes).sum();
        assert!(batch.items.len() <= MOST.records && bytes <= MOST.bytes);
        for item in &batch.items {
            let earlier = &self.records[..item.load];
            let overtaken = earlier.iter().find(|(key, state)| {
                let done = [RecordState::Settled, RecordState::InCall(self.named)].contains(state);
                item.key.is_some() && *key == item.key && !done
            });
            assert_eq!(overtaken, None, "record {} overtakes", item.load);
            let (_, state) = &mut self.records[item.load];
            assert_eq!(
                *state,
                RecordState::Waits,
                "record {} goes twice",
                item.load
            );
            *state = RecordState::InCall(self.named);
            self.failed.retain(|failed| *failed != item.load);
        }
        self.calls.push((self.named, batch));
        true
    }

    /// Checks that, if no record may be sent, every waiting record has failed itself, or its key is in a call,
    /// or a record of its key has failed.
    fn check_that_only_bound_keys_wait(&self) {
        let bound: BTreeSet<_> = self
            .records
            .iter()
            .enumerate()
            .filter(|(load, (_, state))| {
                matches!(state, RecordState::InCall(_)) || self.failed.contains(load)
            })
            .filter_map(|(_, (key, _))| *key)
            .collect();
        for (load, (key, state)) in self.records.iter().enumerate() {
            let free = key.is_none_or(|key| !bound.contains(&key)) && !self.failed.contains(&load);
            assert!(
                !free || *state != RecordState::Waits,
                "record {load} waits for nothing"
            );
        }
    }

    /// Ends a call as a driver may: after a failed record, the later ones of its key are
    /// returned.
    fn done(&mut self, call: usize, fates: u32) {
        let (_, batch) = self.calls.remove(call);
        let (mut failed, mut again) = (Vec::new(), Vec::new());
        let mut failed_keys = BTreeSet::new();
        for (index, item) in batch.items.into_iter().enumerate() {
            let after = item.key.is_some_and(|key| failed_keys.contains(&key));
            let fate = if after { 3 } else { fates >> (2 * index) & 3 };
            let (_, state) = &mut self.records[item.load];
            *state = if fate == 3 {
                RecordState::Waits
            } else {
                RecordState::Settled
            };
            if fate < 2 {
                continue;
            }
            failed_keys.extend(item.key);
            if fate == 2 {
                failed.extend(item.key);
                continue;
            }
            if !after {
                self.failed.push(item.load);
            }
            again.push(item);
        }
        self.queue.done(batch.keys, failed, again, self.now);
    }

    /// Ends all calls that are left, each with success.
    fn finish(&mut self) {
        loop {
            while !self.calls.is_empty() {
                self.done(0, 0);
            }
            if !self.take() {
                match self.queue.next_due() {
                    Some(due) => self.now = self.now.max(due),
                    None => break,
                }
            }
        }
        let lost = self
            .records
            .iter()
            .position(|(_, state)| *state != RecordState::Settled);
        assert_eq!(lost, None, "a record is lost");
        assert!(self.queue.is_empty(), "a key stays bound");
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop_oneof![1 => Just(None), 4 => (0..4u64).prop_map(Some)].prop_map(Step::Push),
        4 => Just(Step::Take),
        3 => (0..4usize, any::<u32>()).prop_map(|(call, fates)| Step::Done { call, fates }),
        1 => (0..200u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn no_record_overtakes_or_is_lost_or_waits_for_nothing(steps in vec(step(), 1..200)) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
        }
        model.finish();
    }
}

fn item(key: u64, load: u32, now: Instant) -> Item<u32> {
    Item {
        key: Some(key),
        bytes: 1,
        deadline: now + TIMEOUT,
        attempts: 0,
        unclear: false,
        load,
    }
}

#[test]
fn delays_grow_and_end_at_the_deadline() {
    let mut now = Instant::now();
    let end = now + TIMEOUT;
    let mut queue = KeyOrderedQueue::new();
    queue.push(item(1, 1, now));
    let mut waits = Vec::new();
    while now < end {
        let batch = queue.take(now, MOST).unwrap();
        queue.done(batch.keys, Vec::new(), batch.items, now);
        let due = queue.next_due().unwrap();
        waits.push(due - now);
        now = due;
    }
    assert_eq!(now, end, "the last attempt is at the deadline");
    assert!((FIRST_DELAY..2 * FIRST_DELAY).contains(&waits[0]));
    let last = waits.pop().unwrap();
    assert!(last <= 2 * LONGEST_DELAY && waits.iter().all(|wait| *wait <= 2 * LONGEST_DELAY));
    assert!((10..20).contains(&waits.len()), "{waits:?}");
}

/// The sender also reports failures of a call that was not taken from the queue: a whole batch.
#[test]
fn failures_of_a_whole_batch_bind_their_keys() {
    let now = Instant::now();
    let mut queue = KeyOrderedQueue::new();
    let again = vec![item(1, 10, now), item(2, 21, now), item(1, 11, now)];
    queue.done(Vec::new(), vec![2], again, now);
    queue.push(item(1, 12, now));
    queue.push(item(3, 30, now));
    let batch = queue.take(now, MOST).unwrap();
    let loads: Vec<_> = batch.items.iter().map(|item| item.load).collect();
    assert_eq!(
        loads,
        [21, 30],
        "what stood behind a final failure goes on at once"
    );
    queue.done(batch.keys, Vec::new(), Vec::new(), now);
    assert!(queue.take(now, MOST).is_none());
    let due = queue.next_due().unwrap();
    let batch = queue.take(due, MOST).unwrap();
    let loads: Vec<_> = batch.items.iter().map(|item| item.load).collect();
    assert_eq!(loads, [10, 11, 12]);
    queue.done(batch.keys, Vec::new(), Vec::new(), due);
    assert!(queue.is_empty());
}
