use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millstream_core::{
    ConsumerGroup, ConsumerStats, DeadLetter, OnExhausted, Result, Retry, Start,
};
use tokio::task::JoinHandle;

use super::behavior::HandlerBehavior;
use super::member::MemberSlot;
use super::memberships::Memberships;
use super::pipeline::{Pipeline, PipelineState};
use super::script::{Backoff, FinalAction, GroupPlan, Script, Style};
use super::world::{World, lock};
use crate::history::Event;

/// The members of a group, and their shared state.
#[derive(Debug)]
pub(super) struct SimGroup {
    pub(super) plan: GroupPlan,
    pub(super) world: World,
    pub(super) group: ConsumerGroup,
    pub(super) behavior: HandlerBehavior,
    pub(super) pipeline: Option<Pipeline>,
    pub(super) memberships: Memberships,
    /// The current members, in the order in which they joined.
    slots: Mutex<Vec<(Arc<MemberSlot>, JoinHandle<()>)>>,
    names: AtomicU64,
    /// The number of data losses that members that have left had reported.
    data_losses: AtomicU64,
    /// The number of dead letters that members that have left had counted.
    dead_letters: AtomicU64,
    /// The number of members that are frozen now.
    frozen: AtomicUsize,
}

/// The state of a group that survives a restart.
#[derive(Debug, Default)]
pub(super) struct GroupState {
    names: u64,
    data_losses: u64,
    dead_letters: u64,
    pipeline_state: Option<PipelineState>,
}

impl SimGroup {
    /// Creates a group without members, which continues the state `before`.
    pub(super) async fn new(
        world: &World,
        script: &Script,
        plan: &GroupPlan,
        before: Option<GroupState>,
    ) -> Result<Self> {
        let GroupState {
            names,
            data_losses,
            dead_letters,
            pipeline_state,
        } = before.unwrap_or_default();
        let pipeline = match &plan.style {
            Style::Pipeline { to, once } => {
                let client = match once {
                    true => &world.client,
                    false => &world.other_client,
                };
                // It never times out: otherwise a handler that had succeeded would have failed after all.
                let producer = client.producer(&**to).timeout(A_DAY).open().await?;
                Some(Pipeline::new(world, producer, *once, pipeline_state))
            }
            Style::Each | Style::Batches(_) | Style::Pull(_) => None,
        };
        Ok(Self {
            plan: plan.clone(),
            world: world.clone(),
            group: group(world, plan),
            behavior: HandlerBehavior::new(
                plan.handler.clone(),
                script.seed,
                script.session_timeout,
            ),
            pipeline,
            memberships: Memberships::default(),
            slots: Mutex::default(),
            names: AtomicU64::new(names),
            data_losses: AtomicU64::new(data_losses),
            dead_letters: AtomicU64::new(dead_letters),
            frozen: AtomicUsize::new(0),
        })
    }

    /// Closes it after all members have left.
    pub(super) async fn close(&self) -> GroupState {
        GroupState {
            names: self.names.load(Relaxed),
            data_losses: self.data_losses(),
            dead_letters: self.dead_letters(),
            pipeline_state: match &self.pipeline {
                Some(pipeline) => Some(pipeline.close(&self.world).await),
                None => None,
            },
        }
    }

    /// Moves the group to the oldest available record, after a member stopped at a data loss.
    pub(super) async fn reset_after_data_loss(&self, stream: Option<&str>) {
        let stream = stream.unwrap_or_default();
        self.world.record(Event::Reset {
            group: self.plan.name.as_str().into(),
            stream: stream.into(),
            skips: false,
        });
        let moved = self.group.reset(stream, Start::Earliest).await;
        self.world.expect("continue after a gap", moved);
    }

    /// Returns a name that no member of any group had before.
    pub(super) fn name(&self) -> String {
        let number = self.names.fetch_add(1, Relaxed) + 1;
        format!("{}-{number}", self.plan.name)
    }

    /// Adds a member.
    pub(super) fn add_member(self: &Arc<Self>) {
        let slot = Arc::new(MemberSlot::new(self.clone()));
        let task = tokio::spawn(slot.clone().run());
        lock(&self.slots).push((slot, task));
    }

    /// Adds the planned number of members.
    pub(super) fn add_planned_members(self: &Arc<Self>) {
        for _ in 0..self.plan.members {
            self.add_member();
        }
    }

    pub(super) fn size(&self) -> usize {
        lock(&self.slots).len()
    }

    pub(super) fn slot(&self, pick: usize) -> Option<Arc<MemberSlot>> {
        let slots = lock(&self.slots);
        let place = pick.checked_rem(slots.len())?;
        Some(slots[place].0.clone())
    }

    /// Makes a member leave cleanly, and returns its task.
    pub(super) fn stop_member(&self, pick: usize) -> Option<JoinHandle<()>> {
        let (slot, task) = self.take(pick)?;
        slot.leave();
        Some(task)
    }

    /// Kills a member, and returns its task.
    pub(super) fn kill_member(&self, pick: usize) -> Option<JoinHandle<()>> {
        let (slot, task) = self.take(pick)?;
        slot.crashed();
        slot.gone();
        task.abort();
        Some(task)
    }

    /// Kills a member, or makes it leave, and returns its task.
    pub(super) fn stop(&self, abrupt: bool) -> Option<JoinHandle<()>> {
        match abrupt {
            true => self.kill_member(0),
            false => self.stop_member(0),
        }
    }

    fn take(&self, pick: usize) -> Option<(Arc<MemberSlot>, JoinHandle<()>)> {
        let mut slots = lock(&self.slots);
        let place = pick.checked_rem(slots.len())?;
        Some(slots.remove(place))
    }

    pub(super) fn reads(&self, stream: &str) -> bool {
        self.plan.streams.iter().any(|read| read == stream)
    }

    /// Records the time from which the group must settle the records of a stream.
    pub(super) fn subscribed(&self, stream: Arc<str>, everything: bool) {
        self.world.record(Event::Subscribed {
            group: self.plan.name.as_str().into(),
            stream,
            everything,
        });
    }

    /// Returns the number of deletions of each of its streams.
    pub(super) fn deletions(&self) -> Vec<u64> {
        let streams = self.plan.streams.iter();
        let deletions = |stream: &String| self.world.incarnations.deletions(stream);
        streams.map(deletions).collect()
    }

    /// Returns whether a stream was deleted since `before`, or is not recreated yet.
    pub(super) fn is_deleted_since(&self, stream: &str, before: &[u64]) -> bool {
        let streams = self.plan.streams.iter().zip(before);
        let incarnations = &self.world.incarnations;
        streams
            .filter(|(read, _)| *read == stream)
            .any(|(_, before)| {
                incarnations.deletions(stream) > *before || incarnations.current(stream).is_none()
            })
    }

    /// Records a fault that is about to be injected into a member, or into the whole group.
    pub(super) fn fault(&self, member: Option<&str>, what: &str) {
        self.world.record(Event::Fault {
            group: Some(self.plan.name.as_str().into()),
            member: member.map(Into::into),
            what: what.into(),
        });
    }

    /// Counts the data losses that a member has reported.
    pub(super) fn add_data_losses(&self, gaps: u64) {
        self.data_losses.fetch_add(gaps, Relaxed);
    }

    pub(super) fn data_losses(&self) -> u64 {
        self.data_losses.load(Relaxed)
    }

    /// Adds the counters of a membership, when it has ended.
    pub(super) fn add_stats(&self, stats: &ConsumerStats) {
        self.add_data_losses(stats.data_losses);
        self.dead_letters.fetch_add(stats.dead_lettered, Relaxed);
    }

    pub(super) fn dead_letters(&self) -> u64 {
        self.dead_letters.load(Relaxed)
    }

    /// Counts a member that is frozen, until it is thawed.
    pub(super) fn freeze(&self) {
        self.frozen.fetch_add(1, Relaxed);
    }

    pub(super) fn thaw(&self) {
        self.frozen.fetch_sub(1, Relaxed);
    }

    /// Records that faults have ended, if they have: from here on, new owners keep all promises.
    pub(super) fn heal(&self) {
        if self.frozen.load(Relaxed) == 0 && self.plan.drains_fully() {
            self.world.record(Event::Healed {
                group: self.plan.name.as_str().into(),
            });
        }
    }
}

fn group(world: &World, plan: &GroupPlan) -> ConsumerGroup {
    let retry = match plan.backoff {
        Backoff::Fixed(delay) => Retry::fixed(delay),
        Backoff::Exponential(min, max) => Retry::exponential().delays(min, max.max(min)),
    };
    let last = match plan.final_action {
        FinalAction::DeadLetter => DeadLetter::stream(plan.dead_letters()).into(),
        FinalAction::Skip => OnExhausted::Skip,
        FinalAction::Stop => OnExhausted::Stop,
    };
    let group = world
        .client
        .group(&*plan.name)
        .start(plan.start)
        .concurrency(plan.concurrency)
        .max_unsettled_per_partition(plan.window)
        .buffer_bytes(plan.buffer_bytes)
        .max_poll_records(plan.fetch)
        .checkpoint_interval(plan.checkpoint_interval)
        .checkpoint_records(plan.checkpoint_records)
        .drain_timeout(plan.drain)
        .on_data_loss(plan.on_data_loss)
        .on_failure(retry.attempts(plan.attempts).then(last));
    plan.streams
        .iter()
        .fold(group, |group, stream| group.stream(&**stream))
}

const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a member whose policy is to stop stays away.
pub(super) const RESTART_DELAY: Duration = Duration::from_millis(100);
