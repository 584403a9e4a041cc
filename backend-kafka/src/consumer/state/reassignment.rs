//! Reassigns partitions whose fetching has ended with an error: seeks no longer have an effect on them.

use std::mem;
use std::time::{Duration, Instant};

use super::assigned::Assigned;
use super::assignment::Assignment;
use super::effect::{Effect, Effects};
use super::question::Question;
use crate::consumer::types::TopicPartition;

/// How long the forward of such a partition is repeated, until a record arrives. librdkafka ends the earlier
/// forward within milliseconds.
const FORWARD_FOR: Duration = Duration::from_secs(10);

/// The partitions that wait to be reassigned.
#[derive(Debug, Default)]
pub(crate) struct Reassignments(Vec<TopicPartition>);

impl Reassignments {
    /// Reassigns a partition at its position. Deferred while a rebalance event waits for its acknowledgement: to
    /// librdkafka it would look like the acknowledgement.
    pub(crate) fn reassign(
        &mut self,
        it: &mut Assigned,
        is_rebalancing: bool,
        now: Instant,
        effects: &mut Effects,
    ) {
        it.forward_until = Some(now + FORWARD_FOR);
        match is_rebalancing {
            true => self.defer(it.name.clone()),
            false => effects.push(Effect::Reassign(it.fetch_position())),
        }
    }

    /// Requests the bounds of a partition again when no rebalance event waits.
    pub(crate) fn defer(&mut self, name: TopicPartition) {
        self.0.push(name);
    }

    /// Requests the bounds of the partitions that have waited. Must be called when no rebalance event waits.
    pub(crate) fn ask_again(&mut self, effects: &mut Effects) {
        let names = mem::take(&mut self.0).into_iter();
        effects.extend(names.map(|name| Effect::Ask(Question::Bounds(name))));
    }
}

/// Forwards the records of reassigned partitions to our queue again.
pub(crate) fn forward(assignment: &mut Assignment, now: Instant, effects: &mut Effects) {
    for it in assignment.iter_mut() {
        it.forward_until.take_if(|until| *until <= now);
        if it.forward_until.is_some() && it.pause.is_none() {
            effects.push(Effect::Forward(it.name.clone()));
        }
    }
}
