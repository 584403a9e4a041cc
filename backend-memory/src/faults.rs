//! Faults of a live broker.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use millstream::{ErrorKind, Partition, Result};
use tokio::time::Instant;

use crate::broker::{Shared, State};
use crate::group::after;
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
            .with(|state, now| state.faults.windows.push((now, after(now, duration), kind)));
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
        self.0.with(|state, _| {
            let first = state.faults.sends + 1;
            if count > 0 {
                state
                    .faults
                    .send_plans
                    .push((first..=first.saturating_add(count - 1), plan));
            }
        });
    }

    fn next_checkpoints(&self, count: u64, plan: CheckpointPlan) {
        self.0.with(|state, _| {
            let first = state.faults.checkpoints + 1;
            if count > 0 {
                let range = first..=first.saturating_add(count - 1);
                state.faults.checkpoint_plans.push((range, plan));
            }
        });
    }
}

/// What is to happen to one send.
#[derive(Debug, Clone)]
pub(crate) enum SendFault {
    /// It is not stored.
    Refused(Refusal),
    /// It is stored and answered `Timeout`.
    Unanswered,
}

/// The faults that are to come, and what was counted for them.
#[derive(Debug)]
pub(crate) struct FaultState {
    sends: u64,
    checkpoints: u64,
    send_plans: Vec<(RangeInclusive<u64>, SendPlan)>,
    checkpoint_plans: Vec<(RangeInclusive<u64>, CheckpointPlan)>,
    windows: Vec<(Instant, Instant, ErrorKind)>,
    one_in: Option<(u64, ErrorKind)>,
    timed: BTreeMap<(Instant, u64), MemberPlan>,
    added: u64,
    random: u64,
}

impl FaultState {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            sends: 0,
            checkpoints: 0,
            send_plans: Vec::new(),
            checkpoint_plans: Vec::new(),
            windows: Vec::new(),
            one_in: None,
            timed: BTreeMap::new(),
            added: 0,
            random: seed,
        }
    }

    fn add(&mut self, script: &FaultScript, now: Instant) {
        let shift = |range: &RangeInclusive<u64>, by: u64| {
            range.start().saturating_add(by)..=range.end().saturating_add(by)
        };
        let sends = script.sends.iter();
        self.send_plans
            .extend(sends.map(|(range, plan)| (shift(range, self.sends), plan.clone())));
        let checkpoints = script.checkpoints.iter();
        self.checkpoint_plans
            .extend(checkpoints.map(|(range, plan)| (shift(range, self.checkpoints), *plan)));
        self.windows
            .extend(script.windows.iter().map(|(at, duration, kind)| {
                let from = after(now, *at);
                (from, after(from, *duration), *kind)
            }));
        self.one_in = script.one_in.or(self.one_in);
        for (at, plan) in &script.members {
            self.added += 1;
            self.timed
                .insert((after(now, *at), self.added), plan.clone());
        }
    }

    fn clear(&mut self) {
        self.send_plans.clear();
        self.checkpoint_plans.clear();
        self.windows.clear();
        self.one_in = None;
        self.timed.clear();
    }

    /// Counts sends; answers the number of the first.
    pub(crate) fn count_sends(&mut self, sends: usize) -> u64 {
        let first = self.sends + 1;
        self.sends += sends as u64;
        first
    }

    /// Until when a call has to wait that has the sends from `first` on.
    pub(crate) fn delay(&self, first: u64, sends: usize, now: Instant) -> Option<Instant> {
        let last = first + (sends as u64).saturating_sub(1);
        let hit = |range: &RangeInclusive<u64>| *range.start() <= last && first <= *range.end();
        self.send_plans
            .iter()
            .filter_map(|(range, plan)| match plan {
                SendPlan::Delay(delay) if hit(range) => Some(after(now, *delay)),
                _ => None,
            })
            .max()
    }

    /// What is to happen to the n-th send.
    #[inline]
    pub(crate) fn send_fault(&mut self, n: u64, now: Instant) -> Option<SendFault> {
        if self.send_plans.is_empty() && self.windows.is_empty() && self.one_in.is_none() {
            return None;
        }
        self.planned_send_fault(n, now)
    }

    fn planned_send_fault(&mut self, n: u64, now: Instant) -> Option<SendFault> {
        let refused = |kind| match kind {
            ErrorKind::Throttled => SendFault::Refused(Refusal::ThrottleInjected),
            kind => SendFault::Refused(Refusal::Injected(kind)),
        };
        for (range, plan) in &self.send_plans {
            match plan {
                SendPlan::Fail(kind) if range.contains(&n) => return Some(refused(*kind)),
                SendPlan::Unanswered if range.contains(&n) => return Some(SendFault::Unanswered),
                _ => {}
            }
        }
        let window = self
            .windows
            .iter()
            .find(|(from, to, _)| *from <= now && now < *to);
        if let Some((_, _, kind)) = window {
            return Some(refused(*kind));
        }
        let (one_in, kind) = self.one_in?;
        (self.draw() % one_in == 0).then(|| refused(kind))
    }

    /// Splitmix64: a few lines are enough for a coin.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Counts a checkpoint; answers what is to happen to it.
    pub(crate) fn count_checkpoint(&mut self) -> Option<CheckpointPlan> {
        self.checkpoints += 1;
        let n = self.checkpoints;
        let plan = self
            .checkpoint_plans
            .iter()
            .find(|(range, _)| range.contains(&n));
        plan.map(|(_, plan)| *plan)
    }

    /// When the next fault of a member is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timed.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the next fault of a member that is due.
    pub(crate) fn due(&mut self, now: Instant) -> Option<MemberPlan> {
        let entry = self
            .timed
            .first_entry()
            .filter(|entry| entry.key().0 <= now)?;
        Some(entry.remove())
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
