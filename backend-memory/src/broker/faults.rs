//! Faults of members and partitions.

use millstream_core::telemetry::event;
use tokio::time::Instant;

use super::BrokerState;
use crate::coordinator::{GroupCoordinator, Presence};
use crate::error::BrokerError;
use crate::faults::script::{MemberPlan, Target};
use crate::ids::MemberId;

impl BrokerState {
    /// Applies a fault of a script. A fault without a target is skipped.
    pub(super) fn apply_fault(&mut self, plan: MemberPlan, now: Instant) {
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

    pub(crate) fn inject(&mut self, plan: &MemberPlan, now: Instant) -> Result<(), BrokerError> {
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
