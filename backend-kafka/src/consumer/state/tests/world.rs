//! A model of the broker, of librdkafka and of the runtime around a member.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use millstream_core::driver::{
    CheckpointUpdate, Event, FilteredCounter, JoinOptions, StoredRecord,
};
use millstream_core::{Epoch, Headers, Partition, Position, Result, Start};
use proptest::prelude::*;
use proptest::sample::select;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::oneshot;

use crate::consumer::state::*;
use crate::consumer::types::FetchPosition;

const PARTITIONS: i32 = 3;
pub(super) const DRAIN: Duration = Duration::from_secs(30);

/// An event.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A rebalance assigns partitions that the member does not have.
    Assign(BTreeSet<i32>),
    /// A rebalance revokes partitions that the member has.
    Revoke(BTreeSet<i32>),
    /// The session is over: all partitions are lost.
    LoseSession,
    /// The open questions get their results.
    Answer,
    /// Records are fetched.
    Fetch(i32, u8),
    /// librdkafka has read past markers of transactions.
    Markers(i32),
    /// A fetch fails, and librdkafka's position is beyond what was read.
    FailFetch(i32),
    /// librdkafka fetches some records again.
    FetchAgain(i32, u8),
    /// The runtime settles some of its records, and wants that stored.
    Checkpoint(i32, u8),
    /// The runtime ends a drain.
    Release(i32),
    Pause(i32),
    Resume(i32),
    /// The response to the commit in flight arrives.
    Committed(Commit),
    /// An administrator resets the group.
    Reset(i32, u8),
    /// A seek finds that fetching has ended.
    RefuseSeek(i32),
    Wait(u16),
}

/// The outcome of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commit {
    Stored,
    /// The broker has not stored it.
    Refused(RDKafkaErrorCode),
    /// The broker has stored it, and its response was lost.
    StoredUnheard,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let partition = || 0..PARTITIONS;
    let partitions = || proptest::collection::btree_set(0..PARTITIONS, 0..=PARTITIONS as usize);
    let commit = select(vec![
        Commit::Stored,
        Commit::Stored,
        Commit::Stored,
        Commit::StoredUnheard,
        Commit::Refused(RDKafkaErrorCode::IllegalGeneration),
        Commit::Refused(RDKafkaErrorCode::RequestTimedOut),
        Commit::Refused(RDKafkaErrorCode::UnknownMemberId),
    ]);
    prop_oneof![
        2 => partitions().prop_map(Step::Assign),
        2 => partitions().prop_map(Step::Revoke),
        1 => Just(Step::LoseSession),
        4 => Just(Step::Answer),
        6 => (partition(), 1u8..5).prop_map(|(p, n)| Step::Fetch(p, n)),
        2 => partition().prop_map(Step::Markers),
        2 => partition().prop_map(Step::FailFetch),
        1 => (partition(), 1u8..5).prop_map(|(p, n)| Step::FetchAgain(p, n)),
        5 => (partition(), any::<u8>()).prop_map(|(p, n)| Step::Checkpoint(p, n)),
        4 => partition().prop_map(Step::Release),
        1 => partition().prop_map(Step::Pause),
        1 => partition().prop_map(Step::Resume),
        6 => commit.prop_map(Step::Committed),
        1 => (partition(), 0u8..20).prop_map(|(p, to)| Step::Reset(p, to)),
        1 => partition().prop_map(Step::RefuseSeek),
        2 => (0u16..2_000).prop_map(Step::Wait),
    ]
}

pub(super) fn name(partition: i32) -> TopicPartition {
    ("s".into(), partition)
}

fn number(partition: &Partition) -> i32 {
    partition.id().parse().unwrap()
}

/// A partition that the runtime has.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) epoch: Epoch,
    /// The next offset of what was delivered.
    pub(super) delivered: i64,
    /// The next offset of what is settled.
    settled: i64,
    pub(super) is_draining: bool,
}

/// The checkpoint that is in flight.
type Waiting = (Vec<CheckpointUpdate>, oneshot::Receiver<Vec<Result<()>>>);

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) state: MemberState,
    _joined: oneshot::Receiver<Result<String>>,
    generation: i32,
    // librdkafka.
    pub(super) assigned: BTreeSet<i32>,
    pub(super) unanswered: VecDeque<RebalanceEvent>,
    /// The next offset to read.
    position: BTreeMap<i32, i64>,
    /// Partitions whose last fetch has failed: librdkafka continues after the record when it resumes them.
    failed: BTreeSet<i32>,
    pub(super) in_flight: Option<Vec<(TopicPartition, Progress)>>,
    questions: Vec<Question>,
    /// How often partitions were reassigned.
    pub(super) reassigned: u32,
    // The broker.
    pub(super) stored: BTreeMap<i32, Progress>,
    /// Markers of transactions, by partition and offset.
    markers: BTreeSet<(i32, i64)>,
    /// The ends of the logs.
    written: BTreeMap<i32, i64>,
    /// All resets, by their ids, with their partitions.
    resets: BTreeMap<u64, (i32, Reset)>,
    // The runtime.
    pub(super) held: BTreeMap<i32, Held>,
    epochs: BTreeMap<i32, Epoch>,
    pub(super) checkpoints: Vec<Waiting>,
    pub(super) is_failed: bool,
}

impl World {
    pub(super) fn new(is_static: bool) -> Self {
        let now = Instant::now();
        let (joined, id) = oneshot::channel();
        let settings = StateSettings {
            group: "g".into(),
            join: JoinOptions {
                streams: vec!["s".into()],
                start: Start::Earliest,
                member: None,
                batch_records: 100,
                batch_bytes: 1 << 20,
                buffer_bytes: 16 << 20,
                drain: DRAIN,
                required: Vec::new(),
                filtered: FilteredCounter::default(),
            },
            protocol: Protocol::Cooperative,
            heartbeat_interval: Duration::from_secs(1),
            rebalance_drain_timeout: DRAIN / 2,
            is_static,
            initial_offsets: Vec::new(),
        };
        Self {
            now,
            state: MemberState::new(settings, joined, now),
            _joined: id,
            generation: 1,
            assigned: BTreeSet::new(),
            unanswered: VecDeque::new(),
            position: BTreeMap::new(),
            failed: BTreeSet::new(),
            in_flight: None,
            questions: Vec::new(),
            reassigned: 0,
            stored: BTreeMap::new(),
            markers: BTreeSet::new(),
            written: (0..PARTITIONS).map(|partition| (partition, 0)).collect(),
            resets: BTreeMap::new(),
            held: BTreeMap::new(),
            epochs: BTreeMap::new(),
            checkpoints: Vec::new(),
            is_failed: false,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Assign(partitions) if self.unanswered.is_empty() => {
                let new = partitions.difference(&self.assigned).copied().map(name);
                let event = RebalanceEvent::Assign(new.collect());
                self.generation += 1;
                self.rebalance(event);
            }
            Step::Revoke(partitions) if self.unanswered.is_empty() => {
                let partitions = partitions.intersection(&self.assigned).copied().map(name);
                let event = RebalanceEvent::Revoke {
                    partitions: partitions.collect(),
                    is_lost: false,
                };
                self.rebalance(event);
            }
            // librdkafka reports no loss while a revocation waits.
            Step::LoseSession if !self.is_revoking() => {
                let mut partitions: Vec<_> = self.assigned.iter().copied().map(name).collect();
                if let Some(RebalanceEvent::Assign(more)) = self.unanswered.front() {
                    partitions.extend(more.iter().cloned());
                }
                let event = RebalanceEvent::Revoke {
                    partitions,
                    is_lost: true,
                };
                self.rebalance(event);
                self.carry_out();
                assert!(
                    self.held.is_empty(),
                    "others may have them: {:?}",
                    self.held
                );
            }
            // The loss waits for the acknowledgement.
            Step::Assign(_) | Step::Revoke(_) | Step::LoseSession => {}
            Step::Answer => self.answer(),
            Step::Fetch(partition, count) => self.fetch(partition, i64::from(count)),
            Step::Markers(partition) => {
                let offset = self.position.get(&partition).copied();
                // Only a marker may be at that offset, no matter who reads it when.
                let is_new = |offset: &i64| self.written[&partition] == *offset;
                if let (Some(offset), true) = (offset.filter(is_new), self.is_fetched(partition)) {
                    self.markers.insert((partition, offset));
                    self.write(partition, offset + 1);
                    self.read_to(partition, offset + 1);
                    self.look_at_positions();
                }
            }
            Step::FetchAgain(partition, records) => {
                if let Some(position) = self.position.get_mut(&partition) {
                    *position = (*position - i64::from(records)).max(0);
                }
            }
            Step::FailFetch(partition) => {
                if let (Some(index), true) =
                    (self.state.find("s", partition), self.is_fetched(partition))
                {
                    let offset = self.position[&partition];
                    let failure = FetchFailure {
                        // The broker is not available.
                        code: 8,
                        offset,
                        reason: String::new(),
                    };
                    self.state.on_fetch_failed(index, failure, self.now);
                    self.carry_out();
                    self.failed.insert(partition);
                    // As librdkafka behaves, see `fetch_failure`.
                    let positions = [("s", partition, offset + 1, None)];
                    self.state.on_positions(positions, |_| None);
                }
            }
            Step::Checkpoint(partition, more) => {
                let Some(held) = self.held.get_mut(&partition) else {
                    return;
                };
                let left = held.delivered - held.settled;
                held.settled += left.min(i64::from(more) % 5);
                let Some(position) = crate::offsets::settled(held.settled) else {
                    return;
                };
                let mark = CheckpointUpdate {
                    partition: Partition::new("s", partition.to_string()),
                    epoch: held.epoch,
                    position,
                };
                let (reply, replied) = oneshot::channel();
                self.state.checkpoint(vec![mark.clone()], reply);
                self.checkpoints.push((vec![mark], replied));
            }
            Step::Release(partition) => {
                let held = self.held.get(&partition);
                let Some(held) = held.filter(|held| held.is_draining) else {
                    return;
                };
                let id = Partition::new("s", partition.to_string());
                self.state.release(&id, held.epoch).unwrap();
                self.held.remove(&partition);
            }
            Step::Pause(partition) => {
                if let Some(held) = self.held.get(&partition) {
                    let id = Partition::new("s", partition.to_string());
                    self.state.pause(&id, held.epoch, self.now);
                }
            }
            Step::Resume(partition) => {
                if let Some(held) = self.held.get(&partition) {
                    let id = Partition::new("s", partition.to_string());
                    self.state.resume(&id, held.epoch);
                }
            }
            Step::Committed(commit) => self.commit(commit),
            Step::Reset(partition, to) => {
                let id = self.resets.len() as u64 + 1;
                let offset = i64::from(to);
                self.resets.insert(id, (partition, Reset { id, offset }));
                self.look_for_resets();
            }
            Step::RefuseSeek(partition) => {
                self.state.on_seek_refused(&name(partition), self.now);
            }
            Step::Wait(millis) => {
                self.now += Duration::from_millis(u64::from(millis));
                self.look_for_resets();
            }
        }
    }

    pub(super) fn step(&mut self, step: Step) {
        self.take(step);
        self.carry_out();
        self.state.on_time(self.now);
        self.carry_out();
        self.state.commit(self.now);
        self.carry_out();
        self.check_replies();
    }

    fn rebalance(&mut self, event: RebalanceEvent) {
        self.unanswered.push_back(event.clone());
        let generation = Some(self.generation);
        self.state.on_rebalance(event, generation, self.now);
    }

    fn is_fetched(&self, partition: i32) -> bool {
        // While an event waits, nothing is fetched.
        self.unanswered.is_empty() && self.position.contains_key(&partition)
    }

    fn fetch(&mut self, partition: i32, count: i64) {
        let Some(index) = self.state.find("s", partition) else {
            return;
        };
        if !self.is_fetched(partition) {
            return;
        }
        let first = self.position[&partition];
        let is_record = |offset: &i64| !self.markers.contains(&(partition, *offset));
        let record = |offset: i64| StoredRecord {
            position: Position::from(u64::try_from(offset).unwrap()),
            timestamp: UNIX_EPOCH,
            key: None,
            payload: Some(Bytes::new()),
            headers: Headers::new(),
        };
        let records: Vec<_> = (first..first + count)
            .filter(is_record)
            .map(record)
            .collect();
        self.write(partition, first + count);
        self.read_to(partition, first + count);
        if records.is_empty() {
            return;
        }
        let fetched = Fetched {
            records,
            leader_epoch: None,
            end: None,
        };
        self.state.on_fetched(index, fetched);
    }

    /// Returns whether a revocation waits for its acknowledgement.
    fn is_revoking(&self) -> bool {
        let mut unanswered = self.unanswered.iter();
        unanswered.any(|event| matches!(event, RebalanceEvent::Revoke { .. }))
    }

    /// Extends the log of a partition to at least this offset.
    fn write(&mut self, partition: i32, end: i64) {
        let written = self.written.entry(partition).or_default();
        *written = end.max(*written);
    }

    /// Records that librdkafka has read a partition up to an offset.
    fn read_to(&mut self, partition: i32, next: i64) {
        self.position.insert(partition, next);
        self.failed.remove(&partition);
    }

    /// Resumes all partitions, as librdkafka does when a rebalance event is acknowledged.
    fn resume_all(&mut self) {
        for partition in std::mem::take(&mut self.failed) {
            if let Some(position) = self.position.get_mut(&partition) {
                *position += 1;
            }
        }
    }

    fn look_at_positions(&mut self) {
        let positions: Vec<_> = self.position.iter().map(|(p, next)| (*p, *next)).collect();
        let positions = positions.iter().map(|(p, next)| ("s", *p, *next, None));
        self.state.on_positions(positions, |_| None);
    }

    fn look_for_resets(&mut self) {
        // The last reset of each partition applies.
        let resets: BTreeMap<i32, Reset> = self.resets.values().copied().collect();
        let resets = resets
            .into_iter()
            .map(|(partition, reset)| (name(partition), reset));
        self.state
            .on_finding(Finding::Resets(resets.collect()), self.now);
    }

    fn answer(&mut self) {
        for question in std::mem::take(&mut self.questions) {
            let finding = match question {
                Question::Progress(names) => {
                    let progress = |name: TopicPartition| {
                        let stored = self.stored.get(&name.1).copied();
                        (name, stored)
                    };
                    Finding::Progress {
                        progress: names.into_iter().map(progress).collect(),
                        topic_ids: TopicIds::new(),
                    }
                }
                Question::Bounds(partition) => Finding::Bounds {
                    partition,
                    low: 0,
                    high: 1_000_000,
                    topic_id: None,
                },
                _ => continue,
            };
            self.state.on_finding(finding, self.now);
            self.carry_out();
        }
    }

    fn commit(&mut self, commit: Commit) {
        let Some(offsets) = self.in_flight.take() else {
            return;
        };
        if matches!(commit, Commit::Stored | Commit::StoredUnheard) {
            for ((_, partition), progress) in &offsets {
                self.stored.insert(*partition, *progress);
            }
        }
        let result = match commit {
            Commit::Stored => {
                let each = offsets.into_iter().map(|(name, _)| (name, None));
                CommitResult::Each(each.collect())
            }
            Commit::StoredUnheard => CommitResult::Failed(RDKafkaErrorCode::RequestTimedOut),
            Commit::Refused(code) => CommitResult::Failed(code),
        };
        self.state.on_committed(&result, self.now);
    }

    pub(super) fn carry_out(&mut self) {
        loop {
            let effects = self.state.take_effects();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                self.carry_out_one(effect);
            }
        }
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::Emit(event) => self.on_event(event),
            Effect::Fail(error) => {
                assert!(!self.is_failed, "{error}");
                self.is_failed = true;
            }
            Effect::Assign(from) => {
                let names: Vec<_> = from.iter().map(|it| it.partition.clone()).collect();
                let answered = self.unanswered.pop_front();
                assert_eq!(answered, Some(RebalanceEvent::Assign(names)));
                self.resume_all();
                for it in from {
                    self.assigned.insert(it.partition.1);
                    self.position.insert(it.partition.1, it.offset.unwrap_or(0));
                }
            }
            Effect::Unassign(names) => {
                let answered = self.unanswered.pop_front();
                let Some(RebalanceEvent::Revoke { partitions, .. }) = answered else {
                    panic!("{answered:?} is answered by an unassignment");
                };
                assert_eq!(names, partitions);
                self.resume_all();
                for (_, partition) in names {
                    assert!(
                        !self.held.contains_key(&partition),
                        "the runtime still has partition {partition}"
                    );
                    self.assigned.remove(&partition);
                    self.position.remove(&partition);
                }
                assert!(
                    self.in_flight.is_none(),
                    "a commit could meet the next owner's"
                );
            }
            Effect::Seek(to) => to.iter().for_each(|it| self.seek(it)),
            Effect::SeekOrReassign(to) => self.seek(&to),
            Effect::Reassign(to) => {
                assert_eq!(
                    self.unanswered,
                    VecDeque::new(),
                    "librdkafka would take it for the answer"
                );
                self.seek(&to);
                self.reassigned += 1;
            }
            Effect::Commit(offsets) => {
                assert!(self.in_flight.is_none(), "one at a time");
                offsets
                    .iter()
                    .for_each(|(name, it)| self.check_offset(name, it));
                self.in_flight = Some(offsets);
            }
            Effect::Ask(question) => self.questions.push(question),
            Effect::Heartbeat => self.state.on_heartbeat_sent(self.now),
            Effect::Identify => {
                let identity = Identity {
                    generation: self.generation,
                    member: "m".into(),
                };
                self.state.on_identity(Some(identity), self.now);
            }
            _ => {}
        }
    }

    fn seek(&mut self, to: &FetchPosition) {
        if self.position.contains_key(&to.partition.1) {
            self.read_to(to.partition.1, to.offset.unwrap_or(0));
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Assigned {
                partition,
                epoch,
                resume_after,
                ..
            } => {
                let partition = number(&partition);
                let earlier = self.epochs.insert(partition, epoch);
                assert!(earlier < Some(epoch), "epochs go back");
                let next = resume_after.map_or(0, |last| crate::offsets::next(last).unwrap());
                let held = Held {
                    epoch,
                    delivered: next,
                    settled: next,
                    is_draining: false,
                };
                let had = self.held.insert(partition, held);
                assert!(
                    had.is_none(),
                    "the runtime has partition {partition} already"
                );
            }
            Event::Records {
                partition,
                epoch,
                records,
                ..
            } => {
                let held = self
                    .held
                    .get_mut(&number(&partition))
                    .expect("it is assigned");
                assert_eq!((held.epoch, held.is_draining), (epoch, false));
                for record in records {
                    let next = crate::offsets::next(record.position).unwrap();
                    assert!(next > held.delivered, "offsets go back");
                    let passed = held.delivered..next - 1;
                    for offset in passed {
                        let marker = (number(&partition), offset);
                        assert!(
                            self.markers.contains(&marker),
                            "{marker:?} is not delivered"
                        );
                    }
                    held.delivered = next;
                }
            }
            Event::Revoking { partitions, .. } => {
                for (partition, epoch) in partitions {
                    let held = self
                        .held
                        .get_mut(&number(&partition))
                        .expect("it is assigned");
                    assert_eq!((held.epoch, held.is_draining), (epoch, false));
                    held.is_draining = true;
                }
            }
            Event::Lost { partitions } => {
                for (partition, epoch) in partitions {
                    let held = self
                        .held
                        .remove(&number(&partition))
                        .expect("it is assigned");
                    assert_eq!(held.epoch, epoch);
                }
            }
            _ => {}
        }
    }

    /// Checks that no offset is beyond the settled records, unless nothing is left for readers.
    fn check_offset(&self, (_, partition): &TopicPartition, progress: &Progress) {
        let stored = self.stored.get(partition);
        let is_stored = stored.is_some_and(|stored| stored.next == progress.next);
        let reset = progress.note.reset.and_then(|id| self.resets.get(&id));
        let is_reset =
            reset.is_some_and(|(of, reset)| of == partition && reset.offset == progress.next);
        let is_settled = self.held.get(partition).is_some_and(|held| {
            let mut passed = held.settled..progress.next;
            let markers_alone = held.settled == held.delivered
                && passed.all(|offset| self.markers.contains(&(*partition, offset)));
            progress.next <= held.settled || markers_alone
        });
        assert!(
            is_stored || is_reset || is_settled,
            "{progress:?} of partition {partition}: stored {stored:?}, reset {reset:?}, {:?}",
            self.held.get(partition)
        );
    }

    /// Checks that updates which are reported as stored are stored.
    fn check_replies(&mut self) {
        let checkpoints = std::mem::take(&mut self.checkpoints);
        for (marks, mut replied) in checkpoints {
            let Ok(results) = replied.try_recv() else {
                self.checkpoints.push((marks, replied));
                continue;
            };
            for (mark, result) in marks.iter().zip(results) {
                let stored = self.stored.get(&number(&mark.partition));
                let next = crate::offsets::next(mark.position).unwrap();
                if result.is_ok() {
                    let stored = stored.expect("something is stored");
                    let is_in_epoch = stored.note.epoch == Some(mark.epoch);
                    assert!(!is_in_epoch || stored.next >= next, "{mark:?}: {stored:?}");
                }
            }
        }
    }

    /// Runs everything to completion.
    pub(super) fn settle(&mut self) {
        for _ in 0..20 {
            self.step(Step::Committed(Commit::Stored));
            self.step(Step::Answer);
            for partition in 0..PARTITIONS {
                self.step(Step::Release(partition));
            }
            self.step(Step::Wait(2_000));
        }
    }
}
