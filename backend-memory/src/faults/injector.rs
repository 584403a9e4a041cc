//! Injects faults into a live broker.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use millstream_core::telemetry::event;
use millstream_core::{ErrorKind, Partition, Result};
use tokio::time::Instant;

use super::script::{CheckpointPlan, FaultScript, MemberPlan, SendPlan, Target};
use crate::broker::{Broker, BrokerState};
use crate::coordinator::{GroupCoordinator, Presence};
use crate::error::BrokerError;
use crate::ids::MemberId;

/// Injects faults into a live broker. Returned by [`Memory::faults`](crate::Memory::faults). Cheap
/// to clone.
///
/// Counts start at the call: `fail_sends(2, ..)` fails the next two sends. [`FaultScript`] documents
/// the effects.
#[derive(Clone)]
pub struct Faults(pub(crate) Arc<Broker>);

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}

impl Faults {
    /// Starts a script. Scripts that are already running continue.
    ///
    /// # Errors
    /// As [`FaultScript::validate`].
    pub fn run(&self, script: &FaultScript) -> Result<()> {
        script.validate()?;
        self.0.with(|state, now| {
            state.faults.add(script, now);
            // The next deadline may now be earlier than the one that members wait for.
            state.groups.iter().for_each(GroupCoordinator::wake_all);
        });
        Ok(())
    }

    /// Removes all faults that have not happened yet.
    pub fn clear(&self) {
        self.0.with(|state, _| state.faults.clear());
    }

    /// Rejects the next `sends` with `kind`.
    pub fn fail_sends(&self, sends: u64, kind: ErrorKind) {
        self.next_sends(sends, SendPlan::Fail(kind));
    }

    /// Delays the next `sends` by `delay`.
    pub fn delay_sends(&self, sends: u64, delay: Duration) {
        self.next_sends(sends, SendPlan::Delay(delay));
    }

    /// Stores the next `sends` but returns `Timeout`.
    pub fn time_out_sends(&self, sends: u64) {
        self.next_sends(sends, SendPlan::ResponseLost);
    }

    /// Rejects every send with `kind` for `duration`, starting now.
    pub fn fail_for(&self, duration: Duration, kind: ErrorKind) {
        self.0
            .with(|state, now| state.faults.fail_for(now, duration, kind));
    }

    /// Rejects every send with `Throttled` for `duration`, starting now.
    pub fn throttle(&self, duration: Duration) {
        self.fail_for(duration, ErrorKind::Throttled);
    }

    /// Rejects the next `checkpoints` with `Unavailable`.
    pub fn lose_checkpoints(&self, checkpoints: u64) {
        self.next_checkpoints(checkpoints, CheckpointPlan { stored: false });
    }

    /// Stores the next `checkpoints` but returns `Unavailable`.
    pub fn lose_checkpoint_responses(&self, checkpoints: u64) {
        self.next_checkpoints(checkpoints, CheckpointPlan { stored: true });
    }

    /// Crashes members now.
    ///
    /// # Errors
    /// `NotFound` if there is no such member.
    pub fn crash(&self, member: &Target) -> Result<()> {
        self.inject_now(MemberPlan::Crash(member.clone()))
    }

    /// Pauses members now, for `pause`. This replaces an earlier pause; a pause of zero ends it.
    ///
    /// # Errors
    /// `NotFound` if there is no such member.
    pub fn pause(&self, member: &Target, pause: Duration) -> Result<()> {
        self.inject_now(MemberPlan::Pause(member.clone(), pause))
    }

    /// Revokes a partition from its owner in `group` now, without a drain.
    ///
    /// # Errors
    /// `NotFound` if there is no such group or partition, or nobody owns it.
    pub fn steal(&self, group: &str, partition: &Partition) -> Result<()> {
        self.inject_now(MemberPlan::Steal {
            group: group.to_owned(),
            partition: partition.clone(),
        })
    }

    fn inject_now(&self, plan: MemberPlan) -> Result<()> {
        let done = self.0.with(|state, now| state.inject(&plan, now));
        done.map_err(|error| error.during("inject fault"))
    }

    fn next_sends(&self, count: u64, plan: SendPlan) {
        self.0.with(|state, _| state.faults.plan_sends(count, plan));
    }

    fn next_checkpoints(&self, count: u64, plan: CheckpointPlan) {
        self.0
            .with(|state, _| state.faults.plan_checkpoints(count, plan));
    }
}

impl BrokerState {
    /// Applies a fault of a script. A fault without a target is skipped.
    pub(crate) fn apply_fault(&mut self, plan: MemberPlan, now: Instant) {
        if let Err(error) = self.inject(&plan, now) {
            event!(
                debug,
                "millstream.memory.fault.skipped",
                ?plan,
                ?error,
                "a fault has no target"
            );
        }
    }

    fn inject(&mut self, plan: &MemberPlan, now: Instant) -> Result<(), BrokerError> {
        match plan {
            MemberPlan::Crash(target) => {
                self.each(target, |group, member| group.crash(member, now))
            }
            MemberPlan::Pause(target, pause) => {
                self.each(target, |group, member| group.pause(member, *pause, now))
            }
            MemberPlan::Steal { group, partition } => {
                let partition = self.catalog.partition_ref(partition)?;
                let group = self.group_id(group)?;
                self.groups[group].steal(partition)
            }
        }
    }

    fn each(
        &mut self,
        target: &Target,
        mut inject: impl FnMut(&mut GroupCoordinator, MemberId),
    ) -> Result<(), BrokerError> {
        let mut found = false;
        for group in &mut self.groups {
            let targets: Vec<MemberId> = group
                .members
                .iter()
                .filter(|(_, member)| member.presence != Presence::Gone)
                .filter(|(_, member)| match target {
                    Target::Named(name) => member.name.as_deref() == Some(name),
                    Target::Nth(n) => member.ordinal == *n,
                })
                .map(|(id, _)| *id)
                .collect();
            found |= !targets.is_empty();
            targets.into_iter().for_each(|member| inject(group, member));
        }
        match found {
            true => Ok(()),
            false => Err(BrokerError::UnknownMember),
        }
    }
}
