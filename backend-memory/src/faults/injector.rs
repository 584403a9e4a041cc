//! Injects faults into a live broker.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use millstream_core::{ErrorKind, Partition, Result};

use super::script::{CheckpointPlan, FaultScript, MemberPlan, SendPlan, Target};
use crate::broker::Broker;
use crate::coordinator::GroupCoordinator;

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
