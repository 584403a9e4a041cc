//! The state of a member of a group: its partitions, the progress of each, and what must be done next.
//!
//! It takes events and returns [`Effect`]s, and knows neither a client nor a socket. Each of its parts owns one
//! thing: [`Rebalance`] the rebalance events and their acknowledgement, [`OffsetCommitter`] the commits,
//! [`Joining`] the wait to be let in, [`Session`] the heartbeats, [`Assignment`] the partitions. The parts know the
//! assignment, and not each other. This module combines them.

mod assigned;
mod assignment;
mod checkpoints;
mod delivery;
mod effect;
mod epoch_claim;
mod failing;
mod fetch_failure;
mod initial_offsets;
mod joining;
mod lag;
mod leader_epochs;
mod offset_commit;
mod open_transaction;
mod progress;
mod question;
mod reassignment;
mod rebalance;
mod restart;
mod session;
mod stall;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_core::driver::{CheckpointUpdate, JoinOptions};
use millstream_core::{Epoch, Error, ErrorKind, Partition, Result};
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::oneshot;

use self::assigned::{Assigned, RestartPoint, Stage};
use self::assignment::{Assignment, Owned, Release};
use self::checkpoints::{fenced, offset_of, on_stored};
use self::initial_offsets::InitialOffsets;
use self::joining::Joining;
use self::offset_commit::{Commit, OffsetCommitter, Purpose};
use self::progress::NewPartition;
use self::reassignment::Reassignments;
use self::rebalance::{Rebalance, RebalanceSettings, lose};
use self::restart::Restarts;
use self::session::{HeartbeatTimer, Probed, Session};
use super::types::TopicPartition;
use crate::config::Protocol;
use crate::connection::statistics::Bounds;
use crate::error::is_gone;
use crate::native::group_offsets::StoredOffset;
use crate::native::identity::Identity;
use crate::native::messages::FetchFailure;
use crate::native::topic_ids::TopicId;
pub(crate) use delivery::Fetched;
pub(crate) use effect::{Effect, Effects};
pub(crate) use failing::Failing;
pub(crate) use offset_commit::CommitResult;
pub(crate) use progress::Progress;
pub(crate) use question::{Finding, Question, Reset, TopicIds};
pub(crate) use rebalance::RebalanceEvent;

/// How long the loop waits for an event, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The same limit while the member waits to be let in, which no event reports.
const WAIT_TO_JOIN: Duration = Duration::from_millis(20);

/// The same limit while a partition was reassigned, which no event reports either.
const WAIT_FOR_REASSIGNED: Duration = Duration::from_millis(200);

/// How often markers of transactions are looked for, while no records arrive.
const POSITIONS_EVERY: Duration = Duration::from_millis(200);

/// The settings of a state.
#[derive(Debug)]
pub(crate) struct StateSettings {
    pub(crate) group: Arc<str>,
    pub(crate) join: JoinOptions,
    pub(crate) protocol: Protocol,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) rebalance_drain_timeout: Duration,
    /// Whether the member has an `instance_id`.
    pub(crate) is_static: bool,
    /// Where the group begins in streams that it has not read before.
    pub(crate) initial_offsets: Vec<StoredOffset>,
}

/// The offsets that a transaction stores along with its records.
#[derive(Debug)]
pub(crate) struct TransactionOffsets {
    pub(crate) offsets: Vec<(TopicPartition, Progress)>,
    /// The number of assignments that the member has had.
    pub(crate) assignments: u64,
}

/// The state of a member.
#[derive(Debug)]
pub(crate) struct MemberState {
    group: Arc<str>,
    join: JoinOptions,
    assignment: Assignment,
    rebalance: Rebalance,
    commits: OffsetCommitter,
    reassignments: Reassignments,
    joining: Joining,
    session: Session,
    /// When librdkafka's positions were last compared with the delivered records.
    positions_at: Instant,
    effects: Effects,
}

impl MemberState {
    /// Creates a joining member. `joined` receives its id once it is let in, and everything that it must store as a
    /// member is stored.
    pub(crate) fn new(
        settings: StateSettings,
        joined: oneshot::Sender<Result<String>>,
        now: Instant,
    ) -> Self {
        let StateSettings {
            group,
            join,
            protocol,
            heartbeat_interval,
            rebalance_drain_timeout,
            is_static,
            initial_offsets,
        } = settings;
        Self {
            rebalance: Rebalance::new(RebalanceSettings {
                protocol,
                drain: join.drain,
                drain_beside_others: rebalance_drain_timeout,
                is_static,
            }),
            joining: Joining::new(protocol, InitialOffsets::new(initial_offsets, now), joined),
            session: Session::new(protocol, heartbeat_interval, now),
            group,
            join,
            assignment: Assignment::default(),
            commits: OffsetCommitter::default(),
            reassignments: Reassignments::default(),
            positions_at: now,
            effects: Effects::new(),
        }
    }

    /// Takes the effects of the events so far, in order.
    pub(crate) fn take_effects(&mut self) -> Effects {
        mem::take(&mut self.effects)
    }

    pub(crate) fn find(&self, topic: &str, partition: i32) -> Option<usize> {
        self.assignment.find(topic, partition)
    }

    pub(crate) fn name(&self, index: usize) -> &TopicPartition {
        &self.assignment.get(index).name
    }

    /// Returns the last generation in which librdkafka has reported the member's assignment.
    pub(crate) fn reported_generation(&self) -> i32 {
        self.rebalance.reported_generation()
    }

    /// Ends the membership with an error of the group.
    pub(crate) fn fail(&mut self, error: Error) {
        let error = error.with_group(self.group.clone());
        self.joining.fail(&error);
        self.effects.push(Effect::Fail(error));
    }

    // Rebalances.

    pub(crate) fn on_rebalance(
        &mut self,
        event: RebalanceEvent,
        generation: Option<i32>,
        now: Instant,
    ) {
        let (rebalance, assignment) = (&mut self.rebalance, &mut self.assignment);
        rebalance.on_event(event, generation, assignment, now, &mut self.effects);
    }

    /// Ends the membership with the error of an assignment that librdkafka has not accepted: its partitions would not
    /// be read. If the session is over, librdkafka reports that next, and the partitions are lost.
    pub(crate) fn on_assignment_refused(&mut self, error: Error, is_lost: bool) {
        if !is_lost {
            self.fail(error);
        }
    }

    pub(crate) fn release(&mut self, partition: &Partition, epoch: Epoch) -> Result<()> {
        match self.assignment.release(partition, epoch) {
            Release::Leaves => Ok(()),
            Release::Restarts => {
                self.commits.store_restarts();
                Ok(())
            }
            Release::Fenced => Err(fenced("release", partition)),
        }
    }

    fn on_progress(
        &mut self,
        progress: Vec<(TopicPartition, Option<Progress>)>,
        topic_ids: &TopicIds,
        now: Instant,
    ) {
        if !self.rebalance.is_assigning() {
            return;
        }
        let partitions = progress.into_iter().map(|(name, stored)| {
            let stored =
                stored.or_else(|| self.joining.initial_offsets.of(&name).map(Progress::at));
            let topic_id = topic_ids.get(&name.0).copied();
            NewPartition::new(name, stored, topic_id)
        });
        let partitions: Vec<_> = partitions.collect();
        let mut recreated = BTreeMap::new();
        for new in &partitions {
            if let (Some(earlier), Some(id)) = (new.earlier_topic, new.stream_id) {
                recreated.insert(&new.name.0, (earlier, id));
            }
        }
        for (stream, (earlier, id)) in recreated {
            restart::report_recreated(&self.group, stream, earlier, id);
        }
        let (rebalance, assignment) = (&mut self.rebalance, &mut self.assignment);
        rebalance.on_progress(partitions, assignment, now, &mut self.effects);
    }

    fn lose(&mut self, is_lost: impl Fn(&Assigned) -> bool) {
        lose(self.assignment.lose(is_lost), &mut self.effects);
    }

    fn begin_restarts(&mut self, restarts: Restarts) {
        if restarts.is_to_be_stored {
            self.commits.store_restarts();
        }
        self.rebalance.revoke(restarts.draining, &mut self.effects);
    }

    fn on_topic_ids(&mut self, topic_ids: &TopicIds, now: Instant) {
        let until = self.rebalance.drain_end(now);
        let restarts = restart::on_topic_ids(topic_ids, &mut self.assignment, until, &self.group);
        self.begin_restarts(restarts);
    }

    fn on_resets(&mut self, resets: Vec<(TopicPartition, Reset)>, now: Instant) {
        let until = self.rebalance.drain_end(now);
        let restarts = restart::on_resets(resets, &mut self.assignment, until);
        self.begin_restarts(restarts);
    }

    /// Restarts a partition whose new position is stored.
    fn restart(&mut self, index: usize, at: RestartPoint, now: Instant) {
        let it = self.assignment.get_mut(index);
        let has_ended = it.out_of_range.is_some();
        let is_hard_paused = it.pause.is_some_and(|pause| pause.is_hard);
        it.restart(at);
        let (name, assigned, position) = (it.name.clone(), it.assigned(), it.fetch_position());
        if is_hard_paused {
            self.effects.push(Effect::Resume(name.clone()));
        }
        self.effects.push(Effect::Forward(name.clone()));
        match has_ended {
            true => self.reassign(index, now),
            false => self.effects.push(Effect::SeekOrReassign(position)),
        }
        self.effects.push(Effect::Emit(assigned));
        self.effects.push(Effect::WakeLeaders(vec![name]));
    }

    // Commits.

    pub(crate) fn checkpoint(
        &mut self,
        marks: Vec<CheckpointUpdate>,
        reply: oneshot::Sender<Vec<Result<()>>>,
    ) {
        self.commits.checkpoints.push(marks, reply);
    }

    /// Begins the next commit, if none is in flight. Must be called after transactions had their turn.
    pub(crate) fn commit(&mut self, now: Instant) {
        while !self.commits.is_in_flight() {
            let Some(Commit { offsets, purpose }) = self.next_commit(now) else {
                return;
            };
            self.commits.begin(purpose);
            match offsets.is_empty() {
                true => self.on_committed(&CommitResult::Each([].into()), now),
                false => self.effects.push(Effect::Commit(offsets)),
            }
        }
    }

    fn next_commit(&mut self, now: Instant) -> Option<Commit> {
        let generation = self.rebalance.reported_generation();
        if let Some(commit) = self.commits.next(&self.assignment, generation, now) {
            return Some(commit);
        }
        if let Some(offsets) = self.rebalance.take_due_claim(now) {
            let purpose = Purpose::Claim;
            return Some(Commit { offsets, purpose });
        }
        if let Some(offsets) = self.joining.initial_offsets.take_to_store() {
            let purpose = Purpose::InitialOffsets;
            return Some(Commit { offsets, purpose });
        }
        self.commits.next_minor(&self.assignment)
    }

    /// Handles the response to the commit that is in flight.
    pub(crate) fn on_committed(&mut self, result: &CommitResult, now: Instant) {
        let code = |name: &TopicPartition| result.code(name);
        match self.commits.take_in_flight() {
            Some(Purpose::Checkpoint(sent)) => {
                let checkpoints = &mut self.commits.checkpoints;
                let settled = checkpoints.settle(sent, code, &mut self.assignment, now);
                let topics = settled.unknown_topics.into_iter();
                let questions = topics.map(|topic| Effect::Ask(Question::Topic(topic)));
                self.effects.extend(questions);
                if settled.is_gone {
                    self.lose(|_| true);
                }
            }
            Some(Purpose::Restarts(restarts)) => self.on_restarts_stored(restarts, code, now),
            Some(Purpose::Claim) => {
                let (rebalance, assignment) = (&mut self.rebalance, &mut self.assignment);
                rebalance.on_claim_stored(code, assignment, now, &mut self.effects);
            }
            Some(Purpose::InitialOffsets) => {
                self.joining
                    .initial_offsets
                    .on_stored(now, |name| code(name).is_none());
            }
            Some(Purpose::Passed(passed)) => {
                for (name, next) in passed {
                    let index = self.assignment.find(&name.0, name.1);
                    if let (Some(index), None) = (index, code(&name)) {
                        self.assignment.get_mut(index).on_committed(next);
                    }
                }
            }
            Some(Purpose::Probe(name)) if code(&name).is_some_and(is_gone) => self.lose(|_| true),
            // The member is still known; or this is a late response, and no commit is in flight.
            Some(Purpose::Probe(_)) | None => {}
        }
    }

    fn on_restarts_stored(
        &mut self,
        restarts: Vec<(TopicPartition, RestartPoint)>,
        code: impl Fn(&TopicPartition) -> Option<RDKafkaErrorCode>,
        now: Instant,
    ) {
        for (name, at) in restarts {
            let index = self.assignment.find(&name.0, name.1);
            // Another position may be wanted in the meantime. It is stored next.
            let index =
                index.filter(|index| self.assignment.get(*index).stage == Stage::Restarting(at));
            match (index, code(&name)) {
                (None, _) => {}
                (Some(index), None) => self.restart(index, at, now),
                (Some(_), Some(code)) if is_gone(code) => return self.lose(|_| true),
                (Some(_), Some(_)) => self.commits.store_restarts_again(now),
            }
        }
    }

    // Transactions.

    /// Returns whether a transaction may begin: not while offsets are in flight outside of transactions. librdkafka
    /// delays those while the coordinator moves, so they could arrive after the transaction and undo it. No offsets
    /// are sent for a partition while one of its transactions is open, since nothing is settled there beyond what is
    /// stored.
    pub(crate) fn may_begin_transaction(&self) -> bool {
        !self.commits.is_in_flight()
    }

    /// Returns the offsets that a transaction stores, if the member owns their partitions.
    pub(crate) fn offsets_of_transaction(
        &self,
        marks: &[CheckpointUpdate],
    ) -> Result<TransactionOffsets> {
        let offsets = marks.iter();
        let offsets = offsets.map(|mark| offset_of("publish", mark, &self.assignment));
        match offsets.collect() {
            Ok(offsets) => Ok(TransactionOffsets {
                offsets,
                assignments: self.rebalance.assignments(),
            }),
            Err(error) => {
                // The runtime was notified of the lost partitions, and retries with the others.
                let message = "some of the partitions are not this member's any more";
                Err(Error::new(ErrorKind::Unavailable, "publish", message).with_source(error))
            }
        }
    }

    /// Records that a transaction was stored.
    pub(crate) fn on_transaction_stored(&mut self, marks: &[CheckpointUpdate]) {
        for mark in marks {
            on_stored(&mut self.assignment, mark);
        }
    }

    /// Handles a report that the broker did not know the member, which had had this many assignments. The member may
    /// have joined again since.
    pub(crate) fn on_gone(&mut self, assignments: u64) {
        self.lose(|it| it.assignment <= assignments);
    }

    // Records.

    /// Delivers records that were fetched from a partition, in parts of no more bytes than one collection may have, or
    /// of one record.
    pub(crate) fn on_fetched(&mut self, index: usize, fetched: Fetched) {
        let Fetched {
            records,
            leader_epoch,
            end,
        } = fetched;
        for records in delivery::cut(records, self.join.batch_bytes) {
            let part = Fetched {
                records,
                leader_epoch,
                end,
            };
            let delivered = delivery::deliver(self.assignment.get_mut(index), part, &self.group);
            self.effects.extend(delivered.map(Effect::Emit));
        }
    }

    pub(crate) fn on_fetch_failed(&mut self, index: usize, failure: FetchFailure, now: Instant) {
        let it = self.assignment.get_mut(index);
        match fetch_failure::on_failed(it, failure, &self.group, now) {
            Ok(question) => self.effects.extend(question.map(Effect::Ask)),
            Err(error) => self.fail(error),
        }
    }

    /// Returns whether librdkafka's positions must be checked, while no records arrive.
    pub(crate) fn wants_positions(&mut self, now: Instant) -> bool {
        let is_due = now >= self.positions_at + POSITIONS_EVERY;
        if is_due {
            self.positions_at = now;
        }
        is_due
    }

    /// Handles librdkafka's positions: partition, next offset, and the leader epoch before it. `end` returns the known
    /// end of a partition.
    pub(crate) fn on_positions<'a>(
        &mut self,
        positions: impl IntoIterator<Item = (&'a str, i32, i64, Option<i32>)>,
        end: impl Fn(&TopicPartition) -> Option<u64>,
    ) {
        for (topic, partition, position, leader_epoch) in positions {
            let Some(index) = self.assignment.find(topic, partition) else {
                continue;
            };
            let it = self.assignment.get_mut(index);
            if delivery::pass(it, position, leader_epoch) {
                let end = end(&it.name);
                self.effects.push(Effect::Emit(it.lag_event(end)));
            }
        }
        if self.assignment.iter().any(Assigned::is_passed) {
            self.commits.store_passed();
        }
    }

    pub(crate) fn pause(&mut self, partition: &Partition, epoch: Epoch, now: Instant) {
        if let Some(index) = self.assignment.find_in_epoch(partition, epoch) {
            delivery::pause(self.assignment.get_mut(index), now, &mut self.effects);
        }
    }

    pub(crate) fn resume(&mut self, partition: &Partition, epoch: Epoch) {
        if let Some(index) = self.assignment.find_in_epoch(partition, epoch) {
            delivery::resume(self.assignment.get_mut(index), &mut self.effects);
        }
    }

    /// Handles the refusal of a seek, for example of a partition whose fetching has ended.
    pub(crate) fn on_seek_refused(&mut self, name: &TopicPartition, now: Instant) {
        if let Some(index) = self.assignment.find(&name.0, name.1) {
            self.reassign(index, now);
        }
    }

    /// Records that a partition could not be reassigned because a rebalance event has arrived.
    pub(crate) fn on_reassign_deferred(&mut self, name: TopicPartition) {
        self.reassignments.defer(name);
    }

    fn reassign(&mut self, index: usize, now: Instant) {
        let (it, is_rebalancing) = (self.assignment.get_mut(index), self.rebalance.is_pending());
        self.reassignments
            .reassign(it, is_rebalancing, now, &mut self.effects);
    }

    fn on_bounds(
        &mut self,
        name: &TopicPartition,
        bounds: (i64, i64),
        topic_id: Option<TopicId>,
        now: Instant,
    ) {
        let Some(index) = self.assignment.find(&name.0, name.1) else {
            return;
        };
        if self.rebalance.is_pending() {
            self.reassignments.defer(name.clone());
            return;
        }
        let it = self.assignment.get_mut(index);
        let known = it.topic_id;
        if let Some(id) = topic_id.filter(|id| known.is_some_and(|known| known != *id)) {
            // Its offsets mean nothing there. The partition is reassigned at the beginning.
            self.on_topic_ids(&TopicIds::from([(name.0.clone(), id)]), now);
            return;
        }
        match fetch_failure::on_bounds(it, bounds) {
            Ok(event) => {
                self.effects.extend(event.map(Effect::Emit));
                self.reassign(index, now);
            }
            Err(error) => self.fail(error),
        }
    }

    /// Handles the leaders of partitions. A partition without a leader is fetched as soon as it has one.
    pub(crate) fn on_leaders(
        &mut self,
        leaders: &HashMap<TopicPartition, Option<i32>>,
        now: Instant,
    ) {
        for ((topic, partition), leader) in leaders {
            let Some(index) = self.assignment.find(topic, *partition) else {
                continue;
            };
            let it = self.assignment.get_mut(index);
            let (stall, group) = (&mut it.missing_leader, &*self.group);
            match leader {
                Some(_) => stall.on_success(&it.partition, group),
                None => {
                    let error = || "the partition has no leader".to_owned();
                    stall.on_failure(&it.partition, group, now, error);
                }
            }
        }
    }

    // Lag.

    pub(crate) fn on_statistics(
        &mut self,
        partitions: Vec<(TopicPartition, Bounds)>,
        now: Instant,
    ) {
        let mut not_fetched = Vec::new();
        for (name, bounds) in partitions {
            let Some(index) = self.assignment.find(&name.0, name.1) else {
                continue;
            };
            let it = self.assignment.get_mut(index);
            it.lagging.low = bounds.low;
            match it.pause {
                Some(pause) if pause.is_hard => not_fetched.push(name),
                _ => {
                    let (open, at) = (&mut it.open_transaction, it.position);
                    let end = open.end(bounds, at, &it.partition, &self.group, now);
                    self.on_end(index, end);
                }
            }
        }
        if !not_fetched.is_empty() {
            self.effects.push(Effect::Ask(Question::Ends(not_fetched)));
        }
    }

    fn on_ends(&mut self, ends: Vec<(TopicPartition, i64)>) {
        for ((topic, partition), end) in ends {
            if let Some(index) = self.assignment.find(&topic, partition) {
                self.on_end(index, end);
            }
        }
    }

    fn on_end(&mut self, index: usize, end: i64) {
        let it = self.assignment.get_mut(index);
        // An end before the position was read before the last records arrived, which are newer.
        if it.stage == Stage::Owned && end >= it.position {
            let end = u64::try_from(end).ok();
            self.effects.push(Effect::Emit(it.lag_event(end)));
        }
    }

    // Responses of the cluster.

    pub(crate) fn on_finding(&mut self, finding: Finding, now: Instant) {
        match finding {
            Finding::Progress {
                progress,
                topic_ids,
            } => self.on_progress(progress, &topic_ids, now),
            Finding::Unstored(names) => self.joining.initial_offsets.on_unstored(&names),
            Finding::TopicIds(ids) => self.on_topic_ids(&ids, now),
            Finding::Bounds {
                partition,
                low,
                high,
                topic_id,
            } => self.on_bounds(&partition, (low, high), topic_id, now),
            Finding::Ends(ends) => self.on_ends(ends),
            Finding::Resets(resets) => self.on_resets(resets, now),
            Finding::NoTopic(topic) => {
                let message = "the topic is gone, it was deleted while it was read";
                self.fail(Error::new(ErrorKind::NotFound, "read", message).with_stream(topic));
            }
            Finding::Failed(error) => self.fail(error),
        }
    }

    /// Asks whether the topics of the member still exist, one of which may be gone.
    pub(crate) fn on_topic_missing(&mut self) {
        let topics = self.join.streams.iter().cloned();
        let questions = topics.map(|topic| Effect::Ask(Question::Topic(topic)));
        self.effects.extend(questions);
    }

    // The session.

    /// Handles the member's identity in its group.
    pub(crate) fn on_identity(&mut self, identity: Option<Identity>, now: Instant) {
        match self.session.on_identity(identity.as_ref()) {
            Some(Probed::Lost) => self.lose(|_| true),
            Some(Probed::AskBroker) => self.commits.probe(),
            None => {}
        }
        let generation = self.rebalance.generation();
        let question = self.joining.on_identity(identity, generation, now);
        self.effects.extend(question.map(Effect::Ask));
    }

    pub(crate) fn on_heartbeat_sent(&mut self, now: Instant) {
        if let Some(heartbeat) = &mut self.session.heartbeat {
            heartbeat.on_sent(now);
        }
    }

    // Time.

    /// Does everything that is due, and everything that has become possible. Must be called after each batch of
    /// events.
    pub(crate) fn on_time(&mut self, now: Instant) {
        let (lost, restarts) = self.assignment.end_overdue_drains(now);
        self.end_drains(lost, restarts);
        let heartbeat = self.session.heartbeat.as_mut();
        if heartbeat.is_some_and(|heartbeat| heartbeat.is_due(now)) {
            self.effects.push(Effect::Heartbeat);
        }
        let is_to_probe = self.rebalance.is_revoking() && self.session.probe.is_due(now);
        let generation = self.rebalance.generation();
        if is_to_probe || self.joining.may_be_let_in(generation) {
            self.effects.push(Effect::Identify);
        }
        delivery::harden_pauses(&mut self.assignment, now, &mut self.effects);
        reassignment::forward(&mut self.assignment, now, &mut self.effects);
        self.rebalance.on_time(now, &mut self.effects);
        let is_committing = self.commits.is_committing();
        let (rebalance, assignment) = (&mut self.rebalance, &mut self.assignment);
        rebalance.answer_if_released(assignment, is_committing, now, &mut self.effects);
        if !self.rebalance.is_pending() {
            self.reassignments.ask_again(&mut self.effects);
        }
    }

    fn end_drains(&mut self, lost: Owned, restarts: bool) {
        lose(lost, &mut self.effects);
        if restarts {
            self.commits.store_restarts();
        }
    }

    /// Returns how long nothing is due.
    pub(crate) fn may_wait(&self, now: Instant) -> Duration {
        let longest = match self.joining.is_waiting() {
            true => WAIT_TO_JOIN,
            false if self.assignment.iter().any(Assigned::is_reassigned) => WAIT_FOR_REASSIGNED,
            false => LONGEST_WAIT,
        };
        let probe = self
            .rebalance
            .is_revoking()
            .then(|| self.session.probe.next());
        let due = self
            .assignment
            .next_drain_end()
            .into_iter()
            .chain(delivery::next_hardening(&self.assignment))
            .chain(self.rebalance.next_due(now))
            .chain(self.commits.next_due())
            .chain(
                self.session
                    .heartbeat
                    .as_ref()
                    .and_then(HeartbeatTimer::next),
            )
            .chain(probe);
        due.map(|due| due.saturating_duration_since(now))
            .fold(longest, Duration::min)
    }

    /// Closes the state. Returns the rebalance events that are not acknowledged: a client with such an event would
    /// never end. A caller that waits for a commit sees the dropped reply.
    pub(crate) fn close(mut self) -> Vec<RebalanceEvent> {
        self.rebalance.take_unanswered()
    }
}
