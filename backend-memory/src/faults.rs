//! Faults of a live broker.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use millstream_core::{ErrorKind, Partition, Result};
use tokio::time::Instant;

use crate::broker::{Shared, State};
use crate::refusal::Refusal;
use crate::script::{CheckpointPlan, FaultScript, MemberPlan, SendPlan, Target};

/// Makes things go wrong on a live broker, from [`Memory::faults`](crate::Memory::faults). Cheap to
/// clone.
///
/// What is counted here counts from the call: `fail_sends(2, ..)` fails the next two. What the
/// methods do is said at [`FaultScript`].
#[derive(Clone)]
pub struct Faults(pub(crate) Arc<Shared>);

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}

impl Faults {
    /// Runs a script from now on, beside those that run already.
    ///
    /// # Errors
    /// As [`FaultScript::validate`].
    pub fn run(&self, script: &FaultScript) -> Result<()> {
        script.validate()?;
        self.0.with(|state, now| {
            state.faults.add(script, now);
            // What is due next may be nearer now than what the members wait for.
            state.groups.iter().for_each(crate::group::Group::wake_all);
        });
        Ok(())
    }

    /// Ends all faults that have not happened yet.
    pub fn clear(&self) {
        self.0.with(|state, _| state.faults.clear());
    }

    /// Refuses the next `sends` with `kind`.
    pub fn fail_sends(&self, sends: u64, kind: ErrorKind) {
        self.next_sends(sends, SendPlan::Fail(kind));
    }

    /// Holds the next `sends` back for `delay`.
    pub fn delay_sends(&self, sends: u64, delay: Duration) {
        self.next_sends(sends, SendPlan::Delay(delay));
    }

    /// Stores the next `sends` but answers `Timeout`.
    pub fn time_out_sends(&self, sends: u64) {
        self.next_sends(sends, SendPlan::Unanswered);
    }

    /// Refuses every send with `kind` for `duration` from now on.
    pub fn fail_for(&self, duration: Duration, kind: ErrorKind) {
        self.0
            .with(|state, now| state.faults.fail_for(now, duration, kind));
    }

    /// Answers every send `Throttled` for `duration` from now on.
    pub fn throttle(&self, duration: Duration) {
        self.fail_for(duration, ErrorKind::Throttled);
    }

    /// Answers the next `checkpoints` `Unavailable` without storing them.
    pub fn lose_checkpoints(&self, checkpoints: u64) {
        self.next_checkpoints(checkpoints, CheckpointPlan { stored: false });
    }

    /// Stores the next `checkpoints` but answers `Unavailable`.
    pub fn lose_checkpoint_answers(&self, checkpoints: u64) {
        self.next_checkpoints(checkpoints, CheckpointPlan { stored: true });
    }

    /// Crashes a member now.
    ///
    /// # Errors
    /// `NotFound` if there is no such member.
    pub fn crash(&self, member: &Target) -> Result<()> {
        self.now(MemberPlan::Crash(member.clone()))
    }

    /// Pauses a member now, for `pause`.
    ///
    /// # Errors
    /// `NotFound` if there is no such member.
    pub fn pause(&self, member: &Target, pause: Duration) -> Result<()> {
        self.now(MemberPlan::Pause(member.clone(), pause))
    }

    /// Takes a partition from its owner in `group` now, without a drain.
    ///
    /// # Errors
    /// `NotFound` if there is no such group or partition, or nobody owns it.
    pub fn steal(&self, group: &str, partition: &Partition) -> Result<()> {
        self.now(MemberPlan::Steal {
            group: group.to_owned(),
            partition: partition.clone(),
        })
    }

    fn now(&self, plan: MemberPlan) -> Result<()> {
        let done = self.0.with(|state, now| state.hit(&plan, now));
        done.map_err(|refusal| refusal.during("inject fault"))
    }

    fn next_sends(&self, count: u64, plan: SendPlan) {
        self.0.with(|state, _| state.faults.plan_sends(count, plan));
    }

    fn next_checkpoints(&self, count: u64, plan: CheckpointPlan) {
        self.0
            .with(|state, _| state.faults.plan_checkpoints(count, plan));
    }
}

impl State {
    /// Brings about a fault of a script; one whose member is not there is passed over.
    pub(crate) fn bring_about(&mut self, plan: MemberPlan, now: Instant) {
        if let Err(refusal) = self.hit(&plan, now) {
            tracing::debug!(?plan, ?refusal, "a fault found nobody to hit");
        }
    }

    fn hit(&mut self, plan: &MemberPlan, now: Instant) -> Result<(), Refusal> {
        match plan {
            MemberPlan::Crash(target) => {
                self.each(target, |group, member| group.crash(member, now))
            }
            MemberPlan::Pause(target, pause) => {
                self.each(target, |group, member| group.pause(member, *pause, now))
            }
            MemberPlan::Steal { group, partition } => {
                let slot = self.catalog.slot(partition)?;
                let group = self.group_id(group)?;
                self.groups[group].steal(slot)
            }
        }
    }

    fn each(
        &mut self,
        target: &Target,
        mut hit: impl FnMut(&mut crate::group::Group, u64),
    ) -> Result<(), Refusal> {
        let mut found = false;
        for group in &mut self.groups {
            let hits: Vec<u64> = group
                .members
                .iter()
                .filter(|(_, member)| member.presence != crate::member::Presence::Gone)
                .filter(|(_, member)| match target {
                    Target::Named(name) => member.name.as_deref() == Some(name),
                    Target::Nth(n) => member.ordinal == *n,
                })
                .map(|(id, _)| *id)
                .collect();
            found |= !hits.is_empty();
            hits.into_iter().for_each(|member| hit(group, member));
        }
        match found {
            true => Ok(()),
            false => Err(Refusal::UnknownMember),
        }
    }
}
