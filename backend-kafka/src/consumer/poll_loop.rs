//! The thread that polls one member's client. All events of the member go through it.
//!
//! The thread never waits for the runtime, for a handler or for a broker's response. So the client is polled
//! at all times, and neither the session nor the poll interval can expire while handlers work. The
//! [`MemberState`] decides what to do. The loop passes events to it, and carries out its [`Effect`]s.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use millstream_core::driver::CheckpointUpdate;
use millstream_core::{Error, ErrorKind, Result};
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use tokio::sync::oneshot;

use super::callbacks::{CallbackEvent, ConsumerCallbacks};
use super::command::{Command, PreparedTransaction};
use super::event_queue::EventQueue;
use super::lists::{list, positions, progress};
use super::poll_waker::PollWaker;
use super::requests::Requests;
use super::state::{CommitResult, Effect, Fetched, MemberState, RebalanceEvent};
use super::types::{FetchPosition, TopicPartition};
use crate::config::Protocol;
use crate::error;
use crate::native::data_queue::DataQueue;
use crate::native::identity::identity;
use crate::native::leader_epoch;
use crate::native::messages::Taken;
use crate::transactions::TransactionalProducer;

/// How long a seek waits for librdkafka's main thread.
const TO_SEEK: Duration = Duration::from_secs(1);

/// How long a leaving member waits for its part in a rebalance, at most.
const LONGEST_TO_FINISH: Duration = Duration::from_secs(2);

/// How often a leaving member checks whether it has its part.
const LOOK_TO_FINISH: Duration = Duration::from_millis(20);

type TransactionReply = oneshot::Sender<Result<PreparedTransaction>>;

pub(super) struct PollLoop {
    pub(super) group: Arc<str>,
    pub(super) streams: Vec<Arc<str>>,
    pub(super) protocol: Protocol,
    pub(super) state: MemberState,
    pub(super) consumer: Arc<BaseConsumer<ConsumerCallbacks>>,
    pub(super) records: Arc<DataQueue<ConsumerCallbacks>>,
    pub(super) requests: Requests,
    pub(super) events: Arc<EventQueue>,
    pub(super) waker: Arc<PollWaker>,
    pub(super) producer: Arc<TransactionalProducer>,
    /// Transactions whose offsets were requested.
    pub(super) transactions: VecDeque<(Vec<CheckpointUpdate>, TransactionReply)>,
}

impl PollLoop {
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        let producer = self.producer.clone();
        self.subscribe();
        let left = loop {
            self.poll_callbacks();
            if let Some(left) = self.obey(commands) {
                break left;
            }
            let now = Instant::now();
            for finding in self.requests.poll(now) {
                self.state.on_finding(finding, now);
                self.carry_out();
            }
            self.state.on_time(now);
            self.carry_out();
            self.consumer
                .context()
                .base
                .keep_connected(self.consumer.client());
            self.prepare_transactions();
            self.state.commit(now);
            self.carry_out();
            self.fetch(now);
        };
        self.leave();
        if let Some(left) = left {
            // The caller may be gone.
            let _ = left.send(());
        }
        // A transaction in progress ends first. No one needs to wait for that.
        producer.close();
    }

    /// Joins the group. From here on rebalances must be acknowledged, so nothing that can fail comes between this and
    /// the first poll.
    fn subscribe(&mut self) {
        self.waker.attach(self.records.clone());
        let streams: Vec<&str> = self.streams.iter().map(|it| &**it).collect();
        if let Err(error) = self.consumer.subscribe(&streams) {
            self.fail(error::from("join", error));
        }
    }

    fn poll_callbacks(&mut self) {
        let consumer = self.consumer.clone();
        // At least once: each poll shows librdkafka that the member is alive.
        let mut is_first = true;
        while std::mem::take(&mut is_first) || self.records.has_events() {
            // The context receives other errors, with their reason.
            if let Some(Err(KafkaError::MessageConsumptionFatal(code))) =
                consumer.poll(Duration::ZERO)
            {
                self.fail(error::from_code("read", code));
            }
        }
        let now = Instant::now();
        for event in self.consumer.context().take_events() {
            match event {
                CallbackEvent::Rebalance { event, generation } => {
                    self.state.on_rebalance(event, generation, now);
                }
                CallbackEvent::Committed(result) => self.state.on_committed(&result, now),
                CallbackEvent::Statistics { bounds, leaders } => {
                    self.state.on_statistics(bounds, now);
                    self.state.on_leaders(&leaders, now);
                    self.requests.set_leaders(leaders);
                }
                CallbackEvent::TopicMissing => self.state.on_topic_missing(),
            }
            self.carry_out();
        }
        if let Some(fatal_error) = self.consumer.context().base.fatal_error.first() {
            self.fail(fatal_error);
        }
    }

    /// Handles the runtime's commands. Returns the sender to notify when the member must leave.
    fn obey(&mut self, commands: &Receiver<Command>) -> Option<Option<oneshot::Sender<()>>> {
        for command in commands.try_iter() {
            let now = Instant::now();
            match command {
                Command::Checkpoint { marks, reply } => self.state.checkpoint(marks, reply),
                Command::Release {
                    partition,
                    epoch,
                    reply,
                } => {
                    let released = self.state.release(&partition, epoch);
                    // The partition is released even if the call was dropped.
                    let _ = reply.send(released);
                }
                Command::PrepareTransaction { marks, reply } => {
                    self.transactions.push_back((marks, reply));
                }
                Command::TransactionStored(marks) => self.state.on_transaction_stored(&marks),
                Command::Gone { assignments } => self.state.on_gone(assignments),
                Command::Pause(partition, epoch) => self.state.pause(&partition, epoch, now),
                Command::Resume(partition, epoch) => self.state.resume(&partition, epoch),
                Command::Leave(reply) => return Some(reply),
                #[cfg(test)]
                Command::Panic => panic!("as the test wants it"),
            }
            self.carry_out();
        }
        None
    }

    fn fail(&mut self, error: Error) {
        self.state.fail(error);
        self.carry_out();
    }

    // Effects.

    /// Carries out the effects of the state, including effects that result from them.
    fn carry_out(&mut self) {
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
        let now = Instant::now();
        match effect {
            Effect::Emit(event) => self.events.push(event),
            Effect::Fail(error) => self.events.fail(error),
            Effect::Assign(from) => self.assign(&from),
            Effect::Unassign(partitions) => {
                if let Err(error) = self.consumer.incremental_unassign(&list(&partitions)) {
                    // The client has lost its session in the meantime, and reports that next.
                    tracing::debug!(target: "librdkafka", %error, "the revocation was not taken");
                }
            }
            Effect::Seek(to) => {
                self.seek(&to);
            }
            Effect::SeekOrReassign(to) => {
                if !self.seek([&to]) {
                    self.state.on_seek_refused(&to.partition, now);
                }
            }
            Effect::Reassign(from) => self.reassign(from),
            Effect::Pause(partitions) => {
                if let Err(error) = self.consumer.pause(&list(&partitions)) {
                    tracing::debug!(target: "librdkafka", %error, "a pause was not taken");
                }
            }
            Effect::Resume(partition) => {
                // This only fails for a partition that is no longer assigned.
                if let Err(error) = self.consumer.resume(&list([&partition])) {
                    tracing::debug!(target: "librdkafka", %error, "a resume was not taken");
                }
            }
            Effect::HoldBack((topic, partition)) => self.records.hold_back(&topic, partition),
            Effect::Forward((topic, partition)) => self.records.forward(&topic, partition),
            Effect::Commit(offsets) => {
                if let Err(code) = self.records.commit(&progress(&offsets)) {
                    self.state.on_committed(&CommitResult::Failed(code), now);
                }
            }
            Effect::Ask(question) => self.requests.ask(question, now),
            Effect::Watch(partitions) => self.requests.watch(partitions),
            Effect::WakeLeaders(partitions) => self.requests.wake_leaders(partitions, now),
            Effect::AllowRejoin => {
                if let Some(topic) = self.streams.first() {
                    self.requests.allow_rejoin(topic);
                }
            }
            Effect::Heartbeat => {
                // The result is not needed, only that the main thread wakes up.
                let _ = identity(&*self.consumer);
                self.state.on_heartbeat_sent(Instant::now());
            }
            Effect::Identify => self.state.on_identity(identity(&*self.consumer), now),
            Effect::AbortEarlierTransaction => self.abort_earlier_transaction(),
        }
    }

    fn assign(&mut self, from: &[FetchPosition]) {
        for position in from {
            let (topic, partition) = &position.partition;
            self.records.forward(topic, *partition);
        }
        let assigned = positions(from);
        let taken = self.consumer.incremental_assign(&assigned);
        // A pause survives an unassignment: without this, a partition that was paused when it was revoked
        // would never be fetched again.
        let taken = taken.and_then(|()| self.consumer.resume(&assigned));
        if let (Err(error), false) = (taken, from.is_empty()) {
            tracing::debug!(target: "librdkafka", %error, "the assignment was not taken");
            let is_lost = self.consumer.assignment_lost();
            let error = error::from("join", error);
            self.state.on_assignment_refused(error, is_lost);
        }
        self.validate(from);
    }

    /// Makes librdkafka ask the leaders whether the log before these offsets was truncated since it was read.
    /// librdkafka (2.12) does so for a seek, and when a leader changes, but not for an assignment.
    fn validate(&self, assigned: &[FetchPosition]) {
        self.seek(assigned.iter().filter(|it| it.leader_epoch.is_some()));
    }

    /// Seeks assigned partitions to these positions. librdkafka first asks the leaders whether the logs before them
    /// were truncated since they were read. Waits until librdkafka has accepted the seek, which needs no broker.
    /// Returns whether it has: it does not for partitions whose fetching has ended.
    fn seek<'a>(&self, to: impl IntoIterator<Item = &'a FetchPosition>) -> bool {
        let to = positions(to);
        if to.count() == 0 {
            return true;
        }
        let sought = self.consumer.seek_partitions(to, TO_SEEK);
        let taken = sought.and_then(|each| each.elements().iter().try_for_each(|it| it.error()));
        if let Err(error) = &taken {
            tracing::debug!(target: "librdkafka", %error, "a seek was not taken");
        }
        taken.is_ok()
    }

    fn reassign(&mut self, from: FetchPosition) {
        // To librdkafka it would look as if the event was acknowledged.
        if self.records.has_events() {
            self.state.on_reassign_deferred(from.partition);
            return;
        }
        let unassigned = self.consumer.incremental_unassign(&list([&from.partition]));
        let assigned =
            unassigned.and_then(|()| self.consumer.incremental_assign(&positions([&from])));
        match assigned {
            Ok(()) => self.validate(&[from]),
            Err(error) => {
                tracing::debug!(target: "librdkafka", %error, "a new place was not taken");
            }
        }
    }

    fn abort_earlier_transaction(&self) {
        let producer = self.producer.clone();
        let thread = thread::Builder::new().name("kafka-abort".into());
        if let Err(error) = thread.spawn(move || producer.abort_earlier()) {
            tracing::warn!(
                target: "librdkafka", %error,
                "cannot start a thread to abort an earlier transaction"
            );
        }
    }

    // Transactions.

    fn prepare_transactions(&mut self) {
        while self.state.may_begin_transaction() {
            let Some((marks, reply)) = self.transactions.pop_front() else {
                return;
            };
            // If the call is dropped, nothing is stored.
            let _ = reply.send(self.prepare_transaction(&marks));
        }
    }

    /// Prepares a transaction. The identity of the member is read first. So a transaction that was allowed in one
    /// generation is sent with that generation or an older one, and never with one in which others own the partition.
    fn prepare_transaction(&self, marks: &[CheckpointUpdate]) -> Result<PreparedTransaction> {
        let member = self.identified();
        let prepared = self.state.offsets_of_transaction(marks)?;
        let member = member.ok_or_else(|| {
            let message = "the member is in no group at the moment";
            Error::new(ErrorKind::Unavailable, "publish", message)
        })?;
        Ok(PreparedTransaction {
            offsets: progress(&prepared.offsets),
            member,
            assignments: prepared.assignments,
        })
    }

    /// Returns the member's identity, if brokers can check it. Brokers store a transaction with neither a member id nor
    /// a generation without checking who owns its partitions (KIP-447, for older clients). librdkafka has neither
    /// between a refused heartbeat and the next join.
    fn identified(&self) -> Option<ConsumerGroupMetadata> {
        let before = identity(&*self.consumer)?;
        let member = self.consumer.group_metadata()?;
        // Generations and ids are never reused, so the identity was the same between the two reads.
        (before.is_member() && identity(&*self.consumer)? == before).then_some(member)
    }

    // Records.

    /// Delivers the available records, or waits for records as long as nothing else is due.
    fn fetch(&mut self, now: Instant) {
        let wait = self.may_wait(now);
        let room = self.events.room();
        if room == 0 {
            self.waker.wait(wait);
            return;
        }
        let state = &self.state;
        let mut taken = self
            .records
            .take(room, |topic, partition| state.find(topic, partition));
        // A wake-up before this line is seen here. A wake-up after it makes the wait return at once.
        if taken.is_empty() && !self.waker.take_woken() {
            taken = self
                .records
                .take_one(wait, |topic, partition| state.find(topic, partition));
        }
        if taken.is_empty() {
            self.look_at_positions(now);
        }
        for taken in taken {
            match taken {
                Taken::Records {
                    slot: index,
                    records,
                    leader_epoch,
                } => {
                    let end = self.known_end(self.state.name(index));
                    let fetched = Fetched {
                        records,
                        leader_epoch,
                        end,
                    };
                    self.state.on_fetched(index, fetched);
                }
                Taken::Failed {
                    slot: index,
                    failure,
                } => self.state.on_fetch_failed(index, failure, now),
            }
            self.carry_out();
        }
    }

    fn may_wait(&self, now: Instant) -> Duration {
        let requests = self.requests.next_due().saturating_duration_since(now);
        self.state.may_wait(now).min(requests)
    }

    fn look_at_positions(&mut self, now: Instant) {
        if !self.state.wants_positions(now) {
            return;
        }
        let Ok(found) = self.consumer.position() else {
            return;
        };
        let elements = found.elements();
        let each = elements.iter().zip(leader_epoch::all(&found));
        let positions = each.filter_map(|(element, leader_epoch)| match element.offset() {
            Offset::Offset(next) => {
                Some((element.topic(), element.partition(), next, leader_epoch))
            }
            _ => None,
        });
        let records = &self.records;
        self.state.on_positions(positions, |(topic, partition)| {
            records.known_end(topic, *partition)
        });
        self.carry_out();
    }

    fn known_end(&self, (topic, partition): &TopicPartition) -> Option<u64> {
        self.records.known_end(topic, *partition)
    }

    // Leaving.

    /// Waits until the member is not in the middle of a rebalance.
    ///
    /// A client that ends after the group has started a new generation, and before it knows its part in it, does not
    /// send a leave request (librdkafka 2.12, join state `wait-sync`): the group would wait for it until its session
    /// times out. In that state its generation is ahead of the last event.
    fn finish_rebalance(&mut self) {
        let until = Instant::now() + LONGEST_TO_FINISH;
        while self.protocol == Protocol::Cooperative && Instant::now() < until {
            self.poll_callbacks();
            let reported = self.state.reported_generation();
            if identity(&*self.consumer).is_none_or(|it| it.generation <= reported) {
                return;
            }
            self.waker.wait(LOOK_TO_FINISH);
        }
    }

    /// Releases everything in the order in which the client can end: first its events are acknowledged, then its queues
    /// are destroyed, then the client itself, which leaves the group.
    fn leave(mut self) {
        self.finish_rebalance();
        self.consumer.context().close();
        for event in self.state.close() {
            // Refused if the client has already moved past the event.
            let _ = match &event {
                RebalanceEvent::Assign(partitions) => {
                    self.consumer.incremental_assign(&list(partitions))
                }
                RebalanceEvent::Revoke { partitions, .. } => {
                    self.consumer.incremental_unassign(&list(partitions))
                }
            };
        }
        self.requests.close();
        self.waker.detach();
    }
}
