//! The planned faults, and the counters that they depend on.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use millstream_core::ErrorKind;
use tokio::time::Instant;

use super::script::{CheckpointPlan, FaultScript, MemberPlan, SendPlan};
use crate::coordinator::after;
use crate::error::BrokerError;

/// A fault of one send.
#[derive(Debug, Clone)]
pub(crate) enum SendFault {
    /// It is not stored.
    Refused(BrokerError),
    /// It is stored, but `Timeout` is returned.
    ResponseLost,
}

/// The faults that have not happened yet, and the sends and checkpoints counted so far.
#[derive(Debug)]
pub(crate) struct FaultPlan {
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

impl FaultPlan {
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

    /// Adds a script that starts now.
    pub(crate) fn add(&mut self, script: &FaultScript, now: Instant) {
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

    /// Plans a fault for the next `count` sends.
    pub(crate) fn plan_sends(&mut self, count: u64, plan: SendPlan) {
        self.send_plans
            .retain(|(range, _)| *range.end() > self.sends);
        self.send_plans
            .extend(next(self.sends, count).map(|range| (range, plan)));
    }

    /// Plans a fault for the next `count` checkpoints.
    pub(crate) fn plan_checkpoints(&mut self, count: u64, plan: CheckpointPlan) {
        self.checkpoint_plans
            .retain(|(range, _)| *range.end() > self.checkpoints);
        self.checkpoint_plans
            .extend(next(self.checkpoints, count).map(|range| (range, plan)));
    }

    /// Rejects every send for `duration`, starting now.
    pub(crate) fn fail_for(&mut self, now: Instant, duration: Duration, kind: ErrorKind) {
        self.windows.retain(|(_, to, _)| *to > now);
        self.windows.push((now, after(now, duration), kind));
    }

    /// Removes all faults that have not happened yet.
    pub(crate) fn clear(&mut self) {
        self.send_plans.clear();
        self.checkpoint_plans.clear();
        self.windows.clear();
        self.one_in = None;
        self.timed.clear();
    }

    /// Counts sends and returns the number of the first.
    pub(crate) fn count_sends(&mut self, sends: usize) -> u64 {
        let first = self.sends + 1;
        self.sends += sends as u64;
        first
    }

    /// Returns when a call with the `sends` sends from `first` on may be stored, if it is delayed.
    pub(crate) fn delay(&self, first: u64, sends: usize, now: Instant) -> Option<Instant> {
        let last = first + (sends as u64).saturating_sub(1);
        let overlaps =
            |range: &RangeInclusive<u64>| *range.start() <= last && first <= *range.end();
        self.send_plans
            .iter()
            .filter_map(|(range, plan)| match plan {
                SendPlan::Delay(delay) if overlaps(range) => Some(after(now, *delay)),
                _ => None,
            })
            .max()
    }

    /// Returns the fault of the n-th send.
    #[inline]
    pub(crate) fn send_fault(&mut self, n: u64, now: Instant) -> Option<SendFault> {
        if self.send_plans.is_empty() && self.windows.is_empty() && self.one_in.is_none() {
            return None;
        }
        self.planned_send_fault(n, now)
    }

    fn planned_send_fault(&mut self, n: u64, now: Instant) -> Option<SendFault> {
        let refused = |kind| match kind {
            ErrorKind::Throttled => SendFault::Refused(BrokerError::ThrottleInjected),
            kind => SendFault::Refused(BrokerError::Injected(kind)),
        };
        for (range, plan) in &self.send_plans {
            match plan {
                SendPlan::Fail(kind) if range.contains(&n) => return Some(refused(*kind)),
                SendPlan::ResponseLost if range.contains(&n) => {
                    return Some(SendFault::ResponseLost);
                }
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

    /// Returns a random number (Splitmix64).
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Counts a checkpoint and returns its fault.
    pub(crate) fn count_checkpoint(&mut self) -> Option<CheckpointPlan> {
        self.checkpoints += 1;
        let n = self.checkpoints;
        let plan = self
            .checkpoint_plans
            .iter()
            .find(|(range, _)| range.contains(&n));
        plan.map(|(_, plan)| *plan)
    }

    /// Counts a publish as one checkpoint and returns whether it is rejected. A lost response has no
    /// effect: the member finds out whether the publish was stored.
    pub(crate) fn refuses_publish(&mut self) -> bool {
        self.count_checkpoint().is_some_and(|plan| !plan.stored)
    }

    /// Returns when the next fault of a member is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timed.first_key_value().map(|((at, _), _)| *at)
    }

    /// Removes and returns the next fault of a member that is due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<MemberPlan> {
        let entry = self
            .timed
            .first_entry()
            .filter(|entry| entry.key().0 <= now)?;
        Some(entry.remove())
    }
}

/// Returns the next `count` numbers after `counted`, or `None` for a count of 0.
fn next(counted: u64, count: u64) -> Option<RangeInclusive<u64>> {
    let first = counted + 1;
    (count > 0).then(|| first..=first.saturating_add(count - 1))
}
