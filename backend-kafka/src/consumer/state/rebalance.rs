//! Rebalances: assigned and revoked partitions.
//!
//! A rebalance event is acknowledged when the runtime has drained the revoked partitions, or when the progress of
//! the assigned ones is known. Until then librdkafka fetches nothing for any partition of the member. So a drain has
//! less time if the member keeps partitions, since their records wait for it.

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

/// The time that a release may take to arrive here after the drain that it ends.
const GRACE: Duration = Duration::from_millis(500);

/// The time within which the progress of partitions is known, if no transaction is open.
const SOON: Duration = Duration::from_millis(500);

/// The settings of a member that affect rebalances.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RebalanceSettings {
    pub(crate) protocol: Protocol,
    /// How long the runtime may drain.
    pub(crate) drain: Duration,
    /// How long the runtime may drain for a rebalance that leaves the member other partitions.
    pub(crate) drain_beside_others: Duration,
    /// Whether the member has an `instance_id`.
    pub(crate) is_static: bool,
}

/// A rebalance event of librdkafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RebalanceEvent {
    /// The partitions are assigned to the member. Waits for their progress.
    Assign(Vec<TopicPartition>),
    /// The partitions are revoked. Waits until each of them is released, or lost.
    Revoke {
        partitions: Vec<TopicPartition>,
        /// Whether others may have them already, so that there is no reason to drain.
        is_lost: bool,
    },
}

/// The rebalance events, and the progress towards acknowledging the first one.
#[derive(Debug)]
pub(crate) struct Rebalance {
    settings: RebalanceSettings,
    /// The event that is not acknowledged yet.
    pending: Option<RebalanceEvent>,
    /// Events that arrived in the meantime.
    queued: VecDeque<RebalanceEvent>,
    /// The partitions of a pending assignment that must be claimed first.
    claim: Option<EpochClaim>,
    /// When to assume that the progress of a pending assignment waits for a transaction that the previous member has
    /// left open.
    abort_earlier_at: Option<Instant>,
    /// The generation of the member's last assignment.
    generation: i32,
    /// The last generation in which librdkafka has reported the member's part, even if only a revocation.
    reported_generation: i32,
    /// The number of assignments that the member has had.
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

    /// Returns whether an assignment waits for the progress of its partitions.
    pub(crate) fn is_assigning(&self) -> bool {
        matches!(self.pending, Some(RebalanceEvent::Assign(_)))
    }

    /// Returns whether a revocation waits for a drain.
    pub(crate) fn is_revoking(&self) -> bool {
        matches!(self.pending, Some(RebalanceEvent::Revoke { .. }))
    }

    /// Returns when the runtime must have released partitions that it begins to drain now, outside of rebalances.
    pub(crate) fn drain_end(&self, now: Instant) -> Instant {
        now + self.settings.drain + GRACE
    }

    /// Asks the runtime to drain partitions, outside of rebalances.
    pub(crate) fn revoke(&self, partitions: Owned, effects: &mut Effects) {
        revoke(partitions, self.settings.drain, effects);
    }

    /// Returns how long partitions may drain that a rebalance revokes.
    fn drain_time(&self, partitions: &[TopicPartition], assignment: &Assignment) -> Duration {
        let keeps_others = assignment.iter().count() > partitions.len();
        match keeps_others {
            true => self.settings.drain.min(self.settings.drain_beside_others),
            false => self.settings.drain,
        }
    }

    /// Handles an event, with the member's generation at that time.
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
            // Also while another event waits for its acknowledgement.
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
                // Partitions that were only being assigned when the event arrived.
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

    /// Acknowledges a revocation when all partitions are released, and no commit is in flight.
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

    /// Handles the progress of the pending assignment.
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

    /// Returns the offsets to store before partitions are taken over.
    pub(crate) fn take_due_claim(
        &mut self,
        now: Instant,
    ) -> Option<Vec<(TopicPartition, Progress)>> {
        self.claim.as_mut()?.take_due(self.generation, now)
    }

    /// Handles the result of the claim's commit.
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

    /// Assigns partitions, from the group's progress in them.
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
            // A partition without progress in a group that has some was added later: it is read from
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

    /// Requests what would otherwise stall for a second: fetches of the partitions that stay, and the next rebalance.
    fn after_answer(&self, assignment: &Assignment, effects: &mut Effects) {
        let names = assignment.names();
        effects.push(Effect::Watch(names.clone()));
        if self.settings.protocol == Protocol::Cooperative {
            // First, because waking a broker makes it fetch, and the next request waits behind that fetch.
            effects.push(Effect::AllowRejoin);
        }
        effects.push(Effect::WakeLeaders(names));
    }

    /// Aborts the transaction that an earlier member of the same name has left open. Otherwise the progress of the
    /// partitions is not known until the broker has aborted it.
    pub(crate) fn on_time(&mut self, now: Instant, effects: &mut Effects) {
        if self.abort_earlier_at.take_if(|at| *at <= now).is_some() {
            effects.push(Effect::AbortEarlierTransaction);
        }
    }

    /// Returns when something is due without another event. A claim that is already due waits for another commit.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        let claim = self.claim.as_ref().and_then(EpochClaim::due);
        let claim = claim.filter(|due| *due > now);
        claim.into_iter().chain(self.abort_earlier_at).min()
    }

    /// Returns the events that are not acknowledged. A client that ends needs their acknowledgement.
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

/// Notifies the runtime that it has lost partitions.
pub(crate) fn lose(partitions: Owned, effects: &mut Effects) {
    if !partitions.is_empty() {
        effects.push(Effect::Emit(Event::Lost { partitions }));
    }
}

/// Seeks partitions with failed fetches to their own position. Must be done before librdkafka resumes them, since
/// librdkafka would continue after the record that it failed to read. It is not done at once: a seek also ends the
/// pause after a failed fetch.
fn seek_suspects(assignment: &Assignment, effects: &mut Effects) {
    let suspects = assignment
        .iter()
        .filter(|it| it.position_is_suspect && it.out_of_range.is_none());
    let positions: Vec<_> = suspects.map(Assigned::fetch_position).collect();
    if !positions.is_empty() {
        effects.push(Effect::Seek(positions));
    }
}
