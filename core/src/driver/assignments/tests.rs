use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::driver::FilteredCounter;
use crate::{ErrorKind, Headers, Start};

const BATCH: usize = 5;
const PARTITIONS: usize = 3;

fn partition(number: usize) -> Partition {
    Partition::new("s", number.to_string())
}

/// Creates an empty queue that returns about `batch_records` records at a time.
fn queue(batch_records: usize) -> Assignments<u64> {
    Assignments::new(&options(batch_records, usize::MAX))
}

fn options(batch_records: usize, batch_bytes: usize) -> JoinOptions {
    JoinOptions {
        streams: vec!["s".into()],
        start: Start::Earliest,
        member: None,
        batch_records,
        batch_bytes,
        buffer_bytes: 16 << 20,
        drain: Duration::ZERO,
        required: Vec::new(),
        filtered: FilteredCounter::default(),
    }
}

fn assigned(number: usize, epoch: u64) -> AssignedPartition {
    AssignedPartition {
        partition: partition(number),
        epoch: Epoch(epoch),
        resume_after: None,
        stream_id: None,
        revoke_within: None,
    }
}

fn records(from: u64, count: usize) -> PartitionEvent {
    let record = |offset| StoredRecord {
        position: Position::from(offset),
        timestamp: SystemTime::UNIX_EPOCH,
        key: None,
        payload: None,
        headers: Headers::new(),
    };
    PartitionEvent::Records {
        records: (from..from + count as u64).map(record).collect(),
        lag: Lag::default(),
    }
}

fn lag(records: u64) -> PartitionEvent {
    PartitionEvent::Lag(Lag {
        records: Some(records),
        time: None,
    })
}

fn take(assignments: &Assignments<u64>) -> Vec<Event> {
    let mut next = Box::pin(assignments.next());
    match next.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(events) => events.unwrap(),
        Poll::Pending => Vec::new(),
    }
}

/// Returns the runtime's view of events, in short.
fn names(events: &[Event]) -> Vec<String> {
    let several = |name: &str, partitions: &[(Partition, Epoch)]| {
        let of = partitions
            .iter()
            .map(|(p, epoch)| format!(" {}@{epoch}", p.id()));
        format!("{name}{}", of.collect::<String>())
    };
    let name = |event: &Event| match event {
        Event::Assigned {
            partition, epoch, ..
        } => format!("assigned {}@{epoch}", partition.id()),
        Event::Records {
            partition, records, ..
        } => format!("records {}x{}", partition.id(), records.len()),
        Event::Lag { partition, .. } => format!("lag {}", partition.id()),
        Event::DataLoss { partition, .. } => format!("data loss {}", partition.id()),
        Event::Ended { partition, .. } => format!("ended {}", partition.id()),
        Event::Revoking { partitions, .. } => several("revoking", partitions),
        Event::Lost { partitions } => several("lost", partitions),
    };
    events.iter().map(name).collect()
}

fn push(queue: &Assignments<u64>, number: usize, epoch: u64, event: PartitionEvent) -> bool {
    queue
        .push(&partition(number), Epoch(epoch), event, |_| ())
        .is_ok()
}

#[test]
fn a_snapshot_assigns_revokes_and_loses() {
    let queue = queue(BATCH);
    queue.reconcile([assigned(0, 1), assigned(1, 1)], |_| 0);
    assert_eq!(names(&take(&queue)), ["assigned 0@1", "assigned 1@1"]);
    let moving = AssignedPartition {
        revoke_within: Some(Duration::from_secs(3)),
        ..assigned(1, 1)
    };
    queue.reconcile([moving.clone(), assigned(2, 7)], |_| 0);
    assert_eq!(
        names(&take(&queue)),
        ["lost 0@1", "revoking 1@1", "assigned 2@7"]
    );
    queue.reconcile([moving, assigned(2, 7)], |_| 0);
    assert!(take(&queue).is_empty(), "nothing has changed");
}

#[test]
fn a_larger_epoch_is_a_loss_and_a_new_assignment() {
    let queue = queue(BATCH);
    queue.reconcile([assigned(0, 1)], |_| 0);
    assert!(push(&queue, 0, 1, records(0, 1)));
    queue.reconcile([assigned(0, 2)], |_| 0);
    assert_eq!(
        names(&take(&queue)),
        ["assigned 0@1", "lost 0@1", "assigned 0@2"]
    );
    assert!(!push(&queue, 0, 1, records(1, 1)), "a late read");
}

#[test]
fn a_late_response_brings_nothing_back() {
    let queue = queue(BATCH);
    let late = [assigned(0, 4), assigned(1, 4), assigned(2, 4)];
    queue.reconcile(late.clone(), |_| 0);
    queue.close(&partition(0), Epoch(4));
    queue.mark_lost(&partition(1), Epoch(4));
    queue.mark_all_lost();
    take(&queue);
    queue.reconcile(late, |_| 0);
    assert!(take(&queue).is_empty());
    queue.reconcile([assigned(0, 5)], |_| 0);
    assert_eq!(names(&take(&queue)), ["assigned 0@5"]);
}

#[test]
fn nothing_is_read_of_a_partition_that_leaves() {
    let queue = queue(BATCH);
    queue.assign(assigned(0, 1), 0);
    queue.assign(assigned(1, 1), 0);
    assert!(push(&queue, 0, 1, records(0, 2)));
    assert!(push(&queue, 1, 1, PartitionEvent::Ended));
    queue.revoke(&partition(0), Epoch(1), Duration::ZERO);
    for event in [records(2, 1), lag(1), PartitionEvent::Ended] {
        assert!(!push(&queue, 0, 1, event.clone()));
        assert!(!push(&queue, 1, 1, event), "it has ended");
    }
    assert!(queue.readable().is_empty());
    assert_eq!(
        names(&take(&queue)),
        ["assigned 0@1", "assigned 1@1", "revoking 0@1", "ended 1"]
    );
}

#[test]
fn a_refused_event_updates_nothing() {
    let queue = queue(BATCH);
    queue.assign(assigned(0, 2), 10);
    let advance = |offset: &mut u64| *offset += 1;
    let (current, stale) = (Epoch(2), Epoch(1));
    let partition = partition(0);
    assert_eq!(queue.push(&partition, stale, lag(3), advance), Err(lag(3)));
    assert_eq!(queue.with(&partition, current, |offset| *offset), Some(10));
    assert_eq!(queue.push(&partition, current, lag(3), advance), Ok(()));
    assert_eq!(queue.close(&partition, current), Some(11));
    assert_eq!(queue.with(&partition, current, |offset| *offset), None);
}

#[test]
fn a_pause_holds_back_what_waits_but_not_the_lag() {
    let queue = queue(2);
    queue.assign(assigned(0, 1), 0);
    take(&queue);
    assert!(push(&queue, 0, 1, records(0, 2)));
    assert!(!queue.has_room());
    queue.pause(&partition(0), Epoch(1));
    assert!(queue.has_room(), "others may read on");
    assert!(push(&queue, 0, 1, records(2, 1)), "it was on the way");
    assert!(push(&queue, 0, 1, lag(9)));
    assert_eq!(names(&take(&queue)), ["lag 0"]);
    assert!(queue.readable().is_empty());
    queue.resume(&partition(0), Epoch(1));
    assert_eq!(names(&take(&queue)), ["records 0x2"]);
    assert_eq!(names(&take(&queue)), ["records 0x1"]);
}

#[tokio::test(start_paused = true)]
async fn the_lag_of_a_pause_is_due_once_a_second() {
    let queue = queue(BATCH);
    for number in 0..2 {
        queue.assign(assigned(number, 1), 0);
    }
    assert!(queue.lag_due().is_empty(), "what is read has its lag");
    queue.pause(&partition(0), Epoch(1));
    for _ in 0..3 {
        assert_eq!(queue.lag_due(), [(partition(0), Epoch(1), 0)]);
        tokio::time::advance(Duration::from_millis(900)).await;
        assert!(queue.lag_due().is_empty());
        queue.resume(&partition(0), Epoch(1));
        queue.pause(&partition(0), Epoch(1));
        assert!(queue.lag_due().is_empty(), "another pause within a second");
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    queue.revoke(&partition(0), Epoch(1), Duration::ZERO);
    assert!(queue.lag_due().is_empty());
}

#[test]
fn a_batch_is_bounded_in_bytes() {
    let queue = Assignments::new(&options(BATCH, 10));
    queue.assign(assigned(0, 1), 0);
    take(&queue);
    for offset in 0..3 {
        let mut event = records(offset, 1);
        if let PartitionEvent::Records { records, .. } = &mut event {
            records[0].payload = Some(vec![0; 6].into());
        }
        assert!(queue.has_room());
        assert!(push(&queue, 0, 1, event));
        if offset == 1 {
            assert!(!queue.has_room(), "12 bytes wait");
            assert_eq!(names(&take(&queue)), ["records 0x1"], "one has room");
        }
    }
    for _ in 0..2 {
        assert_eq!(names(&take(&queue)), ["records 0x1"]);
    }
    assert!(take(&queue).is_empty());
}

#[test]
fn a_lag_is_delivered_once() {
    let queue = queue(BATCH);
    queue.assign(assigned(0, 1), 0);
    take(&queue);
    assert!(push(&queue, 0, 1, records(0, 0)), "the lag alone");
    assert!(push(&queue, 0, 1, PartitionEvent::Lag(Lag::default())));
    assert_eq!(names(&take(&queue)), ["lag 0"]);
    assert!(push(&queue, 0, 1, lag(3)));
    assert!(push(&queue, 0, 1, records(0, 1)), "its lag is another one");
    assert!(push(&queue, 0, 1, lag(3)));
    assert_eq!(names(&take(&queue)), ["lag 0", "records 0x1", "lag 0"]);
}

fn lags(events: &[Event]) -> Vec<Option<u64>> {
    let lag = |event: &Event| match event {
        Event::Records { lag, .. } | Event::Lag { lag, .. } => lag.records,
        event => panic!("{event:?} has no lag"),
    };
    events.iter().map(lag).collect()
}

#[test]
fn the_lag_of_a_paused_partition_counts_what_is_held() {
    let queue = queue(BATCH);
    queue.assign(assigned(0, 1), 0);
    take(&queue);
    assert!(push(&queue, 0, 1, records(0, 2)));
    queue.pause(&partition(0), Epoch(1));
    assert!(push(&queue, 0, 1, records(2, 1)));
    for left in [0, 0, 4] {
        assert!(push(&queue, 0, 1, lag(left)));
        let events = take(&queue);
        assert_eq!(lags(&events), [Some(left + 3)]);
        let Event::Lag { lag, .. } = &events[0] else {
            panic!("{events:?}");
        };
        // The records of these tests have timestamps of 1970.
        assert!(lag.time > Some(Duration::from_secs(1 << 30)), "{lag:?}");
    }
    queue.resume(&partition(0), Epoch(1));
    assert_eq!(lags(&take(&queue)), [Some(5), Some(4)]);
    assert!(push(&queue, 0, 1, lag(4)), "the runtime has it");
    assert!(take(&queue).is_empty());
    assert!(
        push(&queue, 0, 1, lag(7)),
        "told in the pause, and not since"
    );
    assert_eq!(lags(&take(&queue)), [Some(7)]);
}

#[test]
fn partitions_take_turns() {
    let queue = queue(4);
    for number in 0..3 {
        queue.assign(assigned(number, 1), 0);
    }
    take(&queue);
    for number in [0, 0, 0, 1, 2] {
        assert!(push(&queue, number, 1, records(0, 2)));
    }
    assert_eq!(names(&take(&queue)), ["records 0x2", "records 1x2"]);
    assert_eq!(names(&take(&queue)), ["records 2x2", "records 0x2"]);
    let by_age = queue.readable();
    let by_age: Vec<_> = by_age.iter().map(|(p, _, _)| p.id()).collect();
    assert_eq!(by_age, ["0", "1", "2"], "the last read of 0 is the oldest");
}

#[test]
fn an_error_follows_the_events_before_it_and_stays() {
    let queue = queue(BATCH);
    queue.assign(assigned(0, 1), 0);
    let error = |message| Error::new(ErrorKind::NotFound, "read", message);
    queue.fail(error("deleted"));
    queue.fail(error("a later one"));
    assert_eq!(names(&take(&queue)), ["assigned 0@1"]);
    for _ in 0..2 {
        let mut next = Box::pin(queue.next());
        let polled = next.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Err(error)) = polled else {
            panic!("the membership has ended: {polled:?}");
        };
        assert_eq!(error.message(), "deleted");
    }
}

#[test]
fn a_member_that_leaves_forgets_all_but_the_epochs() {
    let queue = queue(BATCH);
    queue.assign(assigned(0, 1), 0);
    queue.close_all();
    assert!(take(&queue).is_empty());
    queue.reconcile([assigned(0, 1)], |_| 0);
    assert!(take(&queue).is_empty());
}

/// One step of an interleaving. Numbers select a partition.
#[derive(Debug, Clone)]
enum Step {
    Assign(usize),
    /// The store's response: per partition nothing, the current epoch, a new one, or an outdated one.
    Reconcile([u8; PARTITIONS]),
    Revoke(usize),
    Lose(usize),
    LoseAll,
    Close(usize),
    Pause(usize),
    Resume(usize),
    Records(usize, usize),
    Lag(usize),
    End(usize),
    /// Polls the waiting call of `next`, or a new one.
    Poll,
    /// Drops the waiting call.
    DropNext,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = 0..PARTITIONS;
    let step = prop_oneof![
        2 => number.clone().prop_map(Step::Assign),
        3 => any::<[u8; PARTITIONS]>().prop_map(Step::Reconcile),
        1 => number.clone().prop_map(Step::Revoke),
        1 => number.clone().prop_map(Step::Lose),
        1 => Just(Step::LoseAll),
        1 => number.clone().prop_map(Step::Close),
        2 => number.clone().prop_map(Step::Pause),
        2 => number.clone().prop_map(Step::Resume),
        8 => (number.clone(), 0..4_usize).prop_map(|(n, count)| Step::Records(n, count)),
        1 => number.clone().prop_map(Step::Lag),
        1 => number.prop_map(Step::End),
        6 => Just(Step::Poll),
        3 => Just(Step::DropNext),
    ];
    prop::collection::vec(step, 1..80)
}

/// Counts how often a waiting call was woken.
#[derive(Debug, Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// The expected state of one partition.
#[derive(Debug, Default)]
struct Expected {
    /// The last epoch that the queue was given.
    epoch: u64,
    is_live: bool,
    leaves: bool,
    ended: bool,
    paused: bool,
    /// The next offset to push, and the offsets that were accepted.
    pushed: u64,
    /// The state that the runtime has seen.
    seen_epoch: u64,
    seen_end: bool,
    seen_offset: u64,
    seen_ended: bool,
}

impl Expected {
    fn begin(&mut self, epoch: u64) {
        *self = Self {
            epoch,
            is_live: true,
            seen_epoch: self.seen_epoch,
            seen_end: self.seen_end,
            seen_offset: self.seen_offset,
            seen_ended: self.seen_ended,
            ..Self::default()
        };
    }

    fn is_readable(&self) -> bool {
        self.is_live && !self.leaves && !self.ended
    }
}

type Next = Pin<Box<dyn Future<Output = Result<Vec<Event>>>>>;

struct Interleaving {
    queue: Arc<Assignments<u64>>,
    expected: BTreeMap<usize, Expected>,
    waiting: Option<Next>,
    wakes: Arc<Wakes>,
}

impl Interleaving {
    fn run(steps: Vec<Step>) {
        let mut run = Self {
            queue: Arc::new(queue(BATCH)),
            expected: (0..PARTITIONS).map(|n| (n, Expected::default())).collect(),
            waiting: None,
            wakes: Arc::default(),
        };
        for step in steps {
            run.step(step);
            run.check_wake();
        }
        run.finish();
    }

    fn expected(&mut self, number: usize) -> &mut Expected {
        self.expected.get_mut(&number).unwrap()
    }

    fn step(&mut self, step: Step) {
        let queue = self.queue.clone();
        match step {
            Step::Assign(number) => {
                let expected = self.expected(number);
                let epoch = expected.epoch + 1;
                expected.begin(epoch);
                queue.assign(assigned(number, epoch), 0);
            }
            Step::Reconcile(responses) => self.reconcile(responses),
            Step::Revoke(number) => {
                let expected = self.expected(number);
                expected.leaves |= expected.is_live;
                let epoch = Epoch(expected.epoch);
                queue.revoke(&partition(number), epoch, Duration::ZERO);
            }
            Step::Lose(number) => {
                let expected = self.expected(number);
                expected.is_live = false;
                let epoch = Epoch(expected.epoch);
                queue.mark_lost(&partition(number), epoch);
            }
            Step::LoseAll => {
                self.expected.values_mut().for_each(|e| e.is_live = false);
                queue.mark_all_lost();
            }
            // The runtime releases partitions that it has seen leaving, and completes those that it has seen ending.
            Step::Close(number) => {
                let expected = self.expected(number);
                let may = expected.seen_end || expected.seen_ended;
                if may && expected.is_live && expected.seen_epoch == expected.epoch {
                    expected.is_live = false;
                    expected.seen_end = true;
                    let epoch = Epoch(expected.epoch);
                    assert!(queue.close(&partition(number), epoch).is_some());
                }
            }
            Step::Pause(number) => {
                let expected = self.expected(number);
                expected.paused |= expected.is_live;
                queue.pause(&partition(number), Epoch(expected.epoch));
            }
            Step::Resume(number) => {
                let expected = self.expected(number);
                expected.paused = false;
                queue.resume(&partition(number), Epoch(expected.epoch));
            }
            Step::Records(number, count) => {
                let expected = self.expected(number);
                let event = records(expected.pushed, count);
                if self.push(number, event) {
                    self.expected(number).pushed += count as u64;
                }
            }
            Step::Lag(number) => {
                self.push(number, lag(1));
            }
            Step::End(number) => {
                let accepted = self.push(number, PartitionEvent::Ended);
                self.expected(number).ended |= accepted;
            }
            Step::Poll => {
                self.poll();
            }
            Step::DropNext => self.waiting = None,
        }
    }

    /// Pushes in the last epoch, and checks that an outdated read is refused.
    fn push(&mut self, number: usize, event: PartitionEvent) -> bool {
        let (partition, expected) = (partition(number), &self.expected[&number]);
        let outdated = Epoch(expected.epoch.wrapping_sub(1));
        let late = self.queue.push(&partition, outdated, event.clone(), |_| ());
        assert!(late.is_err(), "a late read is refused");
        let pushed = self
            .queue
            .push(&partition, Epoch(expected.epoch), event, |_| ());
        assert_eq!(pushed.is_ok(), expected.is_readable(), "{expected:?}");
        pushed.is_ok()
    }

    fn reconcile(&mut self, responses: [u8; PARTITIONS]) {
        let mut listed = Vec::new();
        for (number, response) in responses.into_iter().enumerate() {
            let expected = self.expected(number);
            let last = expected.epoch;
            let epoch = match response % 8 {
                0 => None,
                1 => Some(last + 1),
                // For an assignment that has ended, this is a late response.
                2..=6 => Some(last).filter(|last| *last > 0),
                _ => Some(last).filter(|last| *last > 0 && !expected.is_live),
            };
            match epoch {
                None => expected.is_live = false,
                Some(epoch) if epoch > last => expected.begin(epoch),
                Some(_) => {}
            }
            let revoke = epoch.is_some() && response & 128 != 0;
            expected.leaves |= revoke && expected.is_live;
            listed.extend(epoch.map(|epoch| AssignedPartition {
                revoke_within: revoke.then_some(Duration::ZERO),
                ..assigned(number, epoch)
            }));
        }
        self.queue.reconcile(listed, |_| 0);
    }

    fn poll(&mut self) -> bool {
        let queue = self.queue.clone();
        let next = self
            .waiting
            .get_or_insert_with(|| Box::pin(async move { queue.next().await }));
        self.wakes.0.store(0, Relaxed);
        let waker = Waker::from(self.wakes.clone());
        let Poll::Ready(events) = next.as_mut().poll(&mut Context::from_waker(&waker)) else {
            return false;
        };
        self.waiting = None;
        let events = events.unwrap();
        assert!(!events.is_empty(), "at least one event");
        let before = events.len();
        let records: usize = events.iter().map(count).sum();
        assert!(
            records < BATCH + 4,
            "{before} events with {records} records"
        );
        events.into_iter().for_each(|event| self.see(event));
        true
    }

    /// Checks the runtime's view against the order that `Event` requires.
    fn see(&mut self, event: Event) {
        match event {
            Event::Assigned {
                partition, epoch, ..
            } => {
                let seen = self.expected(partition.id().parse().unwrap());
                assert!(epoch.0 > seen.seen_epoch, "epochs never go back");
                seen.seen_epoch = epoch.0;
                (seen.seen_offset, seen.seen_end, seen.seen_ended) = (0, false, false);
            }
            Event::Records {
                partition,
                epoch,
                records,
                ..
            } => {
                let seen = self.seen(&partition, epoch);
                assert!(!seen.paused, "a pause takes effect at once");
                for record in records {
                    assert_eq!(record.position, Position::from(seen.seen_offset), "a gap");
                    seen.seen_offset += 1;
                }
            }
            Event::Ended { partition, epoch } => {
                let seen = self.seen(&partition, epoch);
                assert_eq!(seen.seen_offset, seen.pushed, "after its last record");
                seen.seen_ended = true;
            }
            Event::Lag {
                partition, epoch, ..
            }
            | Event::DataLoss {
                partition, epoch, ..
            } => {
                self.seen(&partition, epoch);
            }
            Event::Revoking { partitions, .. } => {
                for (partition, epoch) in partitions {
                    let seen = self.expected(partition.id().parse().unwrap());
                    assert_eq!((epoch.0, seen.seen_end), (seen.seen_epoch, false));
                    seen.seen_end = true;
                }
            }
            Event::Lost { partitions } => {
                for (partition, epoch) in partitions {
                    let seen = self.expected(partition.id().parse().unwrap());
                    assert_eq!(epoch.0, seen.seen_epoch);
                    seen.seen_end = true;
                }
            }
        }
    }

    /// Returns a partition from which an event was read.
    fn seen(&mut self, partition: &Partition, epoch: Epoch) -> &mut Expected {
        let seen = self.expected(partition.id().parse().unwrap());
        assert_eq!(epoch.0, seen.seen_epoch, "of the assignment that was seen");
        assert!(
            !seen.seen_end,
            "nothing follows Revoking, Lost or a release"
        );
        assert!(!seen.seen_ended, "nothing is read after the end");
        seen
    }

    /// Checks that a waiting call was woken if there are events for it.
    fn check_wake(&mut self) {
        if self.waiting.is_none() || self.wakes.0.load(Relaxed) > 0 {
            return;
        }
        assert!(
            !self.queue.lock().has_events(),
            "a call waits and is not woken"
        );
    }

    /// Checks that everything that was accepted and is still owned arrives.
    fn finish(&mut self) {
        for number in 0..PARTITIONS {
            self.step(Step::Resume(number));
            self.check_wake();
        }
        while self.poll() {}
        assert_eq!(self.queue.lock().waiting, Load::default());
        for expected in self.expected.values() {
            assert_eq!(expected.seen_epoch, expected.epoch, "{expected:?}");
            if expected.is_live && !expected.leaves {
                assert!(!expected.seen_end);
                assert_eq!(expected.seen_offset, expected.pushed, "{expected:?}");
                assert_eq!(expected.seen_ended, expected.ended);
            } else {
                assert!(expected.seen_end || expected.epoch == 0, "{expected:?}");
            }
        }
    }
}

fn count(event: &Event) -> usize {
    match event {
        Event::Records { records, .. } => records.len(),
        _ => 0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_interleaving_keeps_order_and_loses_nothing(steps in steps()) {
        Interleaving::run(steps);
    }
}
