//! Rebalances: partitions that come and go.
//!
//! A rebalance event is answered when the runtime has drained what is to go, or when the progress of
//! what has come is known. Until then librdkafka fetches nothing for any partition of the member. So a
//! drain has less time where the member keeps partitions, whose records wait for it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use millstream_core::driver::Event;
use rdkafka::error::RDKafkaErrorCode;

use super::assigned::Assigned;
use super::assignment::{Assignment, Owned};
use super::effect::{Effect, Effects};
use super::epoch_claim::{EpochClaim, next_epoch};
use super::progress::{NewPartition, Progress};
use super::question::Question;
use crate::config::Protocol;
use crate::consumer::types::{FetchPosition, TopicPartition};

/// What a release may take to come here after the drain that it ends.
const GRACE: Duration = Duration::from_millis(500);

/// How soon the progress of partitions is known, where no transaction is open.
const SOON: Duration = Duration::from_millis(500);

/// What a rebalance depends on, of the settings of a member.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RebalanceSettings {
    pub(crate) protocol: Protocol,
    /// How long the runtime may drain.
    pub(crate) drain: Duration,
    /// How long it may drain for a rebalance that leaves the member other partitions.
    pub(crate) drain_beside_others: Duration,
    /// Whether the member has an `instance_id`.
    pub(crate) is_static: bool,
}

/// A rebalance event of librdkafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RebalanceEvent {
    /// The partitions are the member's. Waits for their progress.
    Assign(Vec<TopicPartition>),
    /// The partitions are not the member's any more. Waits until each of them is released, or lost.
    Revoke {
        partitions: Vec<TopicPartition>,
        /// Others may have them already, so that there is nothing to drain for.
        is_lost: bool,
    },
}

/// The rebalance events, and how far the answer to the first one is.
#[derive(Debug)]
pub(crate) struct Rebalance {
    settings: RebalanceSettings,
    /// The event that is not answered yet.
    pending: Option<RebalanceEvent>,
    /// Those that came meanwhile.
    queued: VecDeque<RebalanceEvent>,
    /// The partitions of a pending assignment that is to be claimed first.
    claim: Option<EpochClaim>,
    /// When the progress of a pending assignment is taken to wait for a transaction that the member
    /// before has left open.
    abort_earlier_at: Option<Instant>,
    /// The generation that the member was last assigned in.
    generation: i32,
    /// The last generation in which librdkafka has reported the member's part, be it only what to give
    /// up.
    reported_generation: i32,
    /// How often the member was assigned partitions.
    assignments: u64,
}

impl Rebalance {
    pub(crate) fn new(settings: RebalanceSettings) -> Self {
        Self {
            settings,
            pending: None,
            queued: VecDeque::new(),
            claim: None,
            abort_earlier_at: None,
            generation: 0,
            reported_generation: 0,
            assignments: 0,
        }
    }

    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    pub(crate) fn reported_generation(&self) -> i32 {
        self.reported_generation
    }

    pub(crate) fn assignments(&self) -> u64 {
        self.assignments
    }

    pub(crate) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether an assignment waits for the progress of its partitions.
    pub(crate) fn is_assigning(&self) -> bool {
        matches!(self.pending, Some(RebalanceEvent::Assign(_)))
    }

    /// Whether a revocation waits for a drain.
    pub(crate) fn is_revoking(&self) -> bool {
        matches!(self.pending, Some(RebalanceEvent::Revoke { .. }))
    }

    /// When the runtime must have released what it begins to drain now, outside of rebalances.
    pub(crate) fn drain_end(&self, now: Instant) -> Instant {
        now + self.settings.drain + GRACE
    }

    /// Asks the runtime to drain partitions, outside of rebalances.
    pub(crate) fn revoke(&self, partitions: Owned, effects: &mut Effects) {
        revoke(partitions, self.settings.drain, effects);
    }

    /// How long partitions may drain that a rebalance takes away.
    fn drain_time(&self, partitions: &[TopicPartition], assignment: &Assignment) -> Duration {
        let keeps_others = assignment.iter().count() > partitions.len();
        match keeps_others {
            true => self.settings.drain.min(self.settings.drain_beside_others),
            false => self.settings.drain,
        }
    }

    /// Takes in an event, with the generation that the member has then.
    pub(crate) fn on_event(
        &mut self,
        event: RebalanceEvent,
        generation: Option<i32>,
        assignment: &mut Assignment,
        now: Instant,
        effects: &mut Effects,
    ) {
        if let Some(generation) = generation {
            self.reported_generation = generation;
        }
        match &event {
            RebalanceEvent::Assign(_) => self.generation = generation.unwrap_or(self.generation),
            // Also while another event waits for its answer.
            RebalanceEvent::Revoke {
                partitions,
                is_lost: true,
            } => lose(assignment.lose_named(partitions), effects),
            RebalanceEvent::Revoke { .. } => {}
        }
        self.queued.push_back(event);
        self.begin_next(assignment, now, effects);
    }

    fn begin_next(&mut self, assignment: &mut Assignment, now: Instant, effects: &mut Effects) {
        while self.pending.is_none() {
            let Some(event) = self.queued.pop_front() else {
                return;
            };
            match &event {
                RebalanceEvent::Assign(partitions) if partitions.is_empty() => {
                    self.assign(Vec::new(), assignment, effects);
                    self.after_answer(assignment, effects);
                    continue;
                }
                RebalanceEvent::Assign(partitions) => {
                    effects.push(Effect::Ask(Question::Progress(partitions.clone())));
                    self.abort_earlier_at = self.settings.is_static.then(|| now + SOON);
                }
                // Those that were only being assigned when it came.
                RebalanceEvent::Revoke {
                    partitions,
                    is_lost: true,
                } => lose(assignment.lose_named(partitions), effects),
                RebalanceEvent::Revoke { partitions, .. } => {
                    let within = self.drain_time(partitions, assignment);
                    let draining = assignment.drain(partitions, now + within + GRACE);
                    revoke(draining, within, effects);
                }
            }
            self.pending = Some(event);
        }
    }

    /// Answers a revocation when all is released, and no commit is under way.
    pub(crate) fn answer_if_released(
        &mut self,
        assignment: &mut Assignment,
        is_committing: bool,
        now: Instant,
        effects: &mut Effects,
    ) {
        let Some(RebalanceEvent::Revoke { partitions, .. }) = &self.pending else {
            return;
        };
        if is_committing || !assignment.are_released(partitions) {
            return;
        }
        assignment.remove(partitions);
        seek_suspects(assignment, effects);
        effects.push(Effect::Unassign(partitions.clone()));
        self.pending = None;
        self.after_answer(assignment, effects);
        self.begin_next(assignment, now, effects);
    }

    /// Takes note of the progress of the pending assignment.
    pub(crate) fn on_progress(
        &mut self,
        partitions: Vec<NewPartition>,
        assignment: &mut Assignment,
        now: Instant,
        effects: &mut Effects,
    ) {
        self.abort_earlier_at = None;
        self.claim = Some(EpochClaim::new(partitions, now));
        if !self.settings.is_static {
            self.take_over(assignment, now, effects);
        }
    }

    /// Returns what is to be stored before partitions are taken over.
    pub(crate) fn take_due_claim(
        &mut self,
        now: Instant,
    ) -> Option<Vec<(TopicPartition, Progress)>> {
        self.claim.as_mut()?.take_due(self.generation, now)
    }

    /// Takes note of what became of the claim.
    pub(crate) fn on_claim_stored(
        &mut self,
        code: impl Fn(&TopicPartition) -> Option<RDKafkaErrorCode>,
        assignment: &mut Assignment,
        now: Instant,
        effects: &mut Effects,
    ) {
        let claim = self.claim.as_mut();
        if claim.is_some_and(|claim| claim.on_stored(code, now)) {
            self.take_over(assignment, now, effects);
        }
    }

    fn take_over(&mut self, assignment: &mut Assignment, now: Instant, effects: &mut Effects) {
        if let Some(claim) = self.claim.take() {
            self.pending = None;
            self.assign(claim.partitions, assignment, effects);
            self.after_answer(assignment, effects);
            self.begin_next(assignment, now, effects);
        }
    }

    /// Takes partitions over, from the group's progress in them.
    fn assign(
        &mut self,
        partitions: Vec<NewPartition>,
        assignment: &mut Assignment,
        effects: &mut Effects,
    ) {
        self.assignments += 1;
        seek_suspects(assignment, effects);
        let position = |new: &NewPartition| FetchPosition {
            partition: new.name.clone(),
            // A partition without progress in a group that has some was added since: it is read from
            // its beginning.
            offset: new.progress.map(|progress| progress.next),
            leader_epoch: new.progress.and_then(|progress| progress.leader_epoch),
        };
        effects.push(Effect::Assign(partitions.iter().map(position).collect()));
        for new in partitions {
            let note = new.progress.map(|progress| progress.note);
            let epoch = next_epoch(self.generation, note.unwrap_or_default());
            let assigned = Assigned::new(new, epoch, self.assignments);
            effects.push(Effect::Emit(assigned.assigned()));
            assignment.insert(assigned);
        }
    }

    /// Wants what would stand still for a second otherwise: what stays, and what moves next.
    fn after_answer(&self, assignment: &Assignment, effects: &mut Effects) {
        let names = assignment.names();
        effects.push(Effect::Watch(names.clone()));
        if self.settings.protocol == Protocol::Cooperative {
            // First, for what wakes a broker has it fetch, and the next request waits behind that.
            effects.push(Effect::AllowRejoin);
        }
        effects.push(Effect::WakeLeaders(names));
    }

    /// Takes back what an earlier member of the same name has left open. Otherwise the progress of the
    /// partitions is known only when the broker has ended that.
    pub(crate) fn on_time(&mut self, now: Instant, effects: &mut Effects) {
        if self.abort_earlier_at.take_if(|at| *at <= now).is_some() {
            effects.push(Effect::AbortEarlierTransaction);
        }
    }

    /// When time alone makes something due. A claim that is due waits for another commit.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        let claim = self.claim.as_ref().and_then(EpochClaim::due);
        let claim = claim.filter(|due| *due > now);
        claim.into_iter().chain(self.abort_earlier_at).min()
    }

    /// Returns the events that are not answered, which a client that ends wants answered.
    pub(crate) fn take_unanswered(&mut self) -> Vec<RebalanceEvent> {
        let pending = self.pending.take().into_iter();
        pending.chain(self.queued.drain(..)).collect()
    }
}

/// Asks the runtime to drain partitions.
fn revoke(partitions: Owned, within: Duration, effects: &mut Effects) {
    if !partitions.is_empty() {
        effects.push(Effect::Emit(Event::Revoking { partitions, within }));
    }
}

/// Tells the runtime that it has lost partitions.
pub(crate) fn lose(partitions: Owned, effects: &mut Effects) {
    if !partitions.is_empty() {
        effects.push(Effect::Emit(Event::Lost { partitions }));
    }
}

/// Has partitions read from their own place whose fetches have failed. To be done before librdkafka
/// resumes them, for it would go on behind the record that it failed to read. Not at once: a seek ends
/// the pause after a failed fetch, too.
fn seek_suspects(assignment: &Assignment, effects: &mut Effects) {
    let suspects = assignment
        .iter()
        .filter(|it| it.position_is_suspect && it.out_of_range.is_none());
    let positions: Vec<_> = suspects.map(Assigned::fetch_position).collect();
    if !positions.is_empty() {
        effects.push(Effect::Seek(positions));
    }
}
