//! A script of faults, for reproducible tests and simulations.

use std::ops::RangeInclusive;
use std::time::Duration;

use millstream_core::{ErrorKind, Partition, Result};

use crate::error::BrokerError;

/// The members that a fault affects.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Target {
    /// Every joined member with this name
    /// ([`ConsumerGroup::member`](millstream_core::ConsumerGroup::member)).
    Named(String),
    /// The n-th member that joined the broker, counted from 1 over all groups.
    Nth(u64),
}

impl Target {
    /// Returns a target of all members with a name.
    pub fn named(name: impl Into<String>) -> Self {
        Self::Named(name.into())
    }

    /// Returns a target of the n-th member that joined, from 1.
    pub const fn nth(n: u64) -> Self {
        Self::Nth(n)
    }
}

/// A script of faults, run by [`Faults::run`](crate::Faults::run).
///
/// Sends and checkpoints are counted from 1, over all streams, groups and producers, and start when
/// the script is run. Each record that a producer passes to the broker is a send, also on a retry.
/// Each partition in a checkpoint is a checkpoint. Times start at the same moment. A fault of a
/// member that has not joined when the time comes is skipped.
///
/// An exactly-once publish is one send, if it has records, and one checkpoint: it is stored as a
/// whole or not at all. Its response is never lost, because the member finds out whether it was
/// stored.
///
/// ```
/// use std::time::Duration;
/// use millstream_core::ErrorKind;
/// use millstream_memory::{FaultScript, Target};
///
/// let script = FaultScript::new()
///     .fail_sends(3..=5, ErrorKind::Unavailable)
///     .pause(Duration::from_secs(2), Target::named("slow"), Duration::from_secs(30))
///     .crash(Duration::from_secs(4), Target::nth(1));
/// script.validate()?;
/// # Ok::<(), millstream_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "a script does nothing until it is run"]
pub struct FaultScript {
    pub(crate) sends: Vec<(RangeInclusive<u64>, SendPlan)>,
    pub(crate) checkpoints: Vec<(RangeInclusive<u64>, CheckpointPlan)>,
    pub(crate) windows: Vec<(Duration, Duration, ErrorKind)>,
    pub(crate) members: Vec<(Duration, MemberPlan)>,
    pub(crate) one_in: Option<(u64, ErrorKind)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SendPlan {
    Fail(ErrorKind),
    Delay(Duration),
    ResponseLost,
}

/// A checkpoint that returns `Unavailable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CheckpointPlan {
    /// Whether it is stored anyway.
    pub(crate) stored: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MemberPlan {
    Crash(Target),
    Pause(Target, Duration),
    Steal { group: String, partition: Partition },
}

impl FaultScript {
    /// Creates an empty script.
    pub fn new() -> Self {
        Self::default()
    }

    /// Rejects these sends with `kind`. They are not stored.
    pub fn fail_sends(mut self, sends: RangeInclusive<u64>, kind: ErrorKind) -> Self {
        self.sends.push((sends, SendPlan::Fail(kind)));
        self
    }

    /// Rejects about one in `n` of all sends with `kind`, chosen by the configured seed.
    pub fn fail_one_in(mut self, n: u64, kind: ErrorKind) -> Self {
        self.one_in = Some((n, kind));
        self
    }

    /// Delays these sends by `delay` before they are stored, together with all sends of the same
    /// call.
    pub fn delay_sends(mut self, sends: RangeInclusive<u64>, delay: Duration) -> Self {
        self.sends.push((sends, SendPlan::Delay(delay)));
        self
    }

    /// Stores these sends but returns `Timeout`, as if the response was lost. A retry stores the
    /// record twice.
    pub fn time_out_sends(mut self, sends: RangeInclusive<u64>) -> Self {
        self.sends.push((sends, SendPlan::ResponseLost));
        self
    }

    /// Rejects every send with `kind` for `duration`, starting at `at`.
    pub fn fail_for(mut self, at: Duration, duration: Duration, kind: ErrorKind) -> Self {
        self.windows.push((at, duration, kind));
        self
    }

    /// Rejects every send with `Throttled` for `duration`, starting at `at`.
    pub fn throttle(self, at: Duration, duration: Duration) -> Self {
        self.fail_for(at, duration, ErrorKind::Throttled)
    }

    /// Rejects these checkpoints with `Unavailable`. They are not stored.
    pub fn lose_checkpoints(mut self, checkpoints: RangeInclusive<u64>) -> Self {
        self.checkpoints
            .push((checkpoints, CheckpointPlan { stored: false }));
        self
    }

    /// Stores these checkpoints but returns `Unavailable`, as if the response was lost.
    pub fn lose_checkpoint_responses(mut self, checkpoints: RangeInclusive<u64>) -> Self {
        self.checkpoints
            .push((checkpoints, CheckpointPlan { stored: true }));
        self
    }

    /// Crashes members at `at`: every later call returns `Unavailable`, and other members take over
    /// after the session timeout.
    pub fn crash(mut self, at: Duration, member: Target) -> Self {
        self.members.push((at, MemberPlan::Crash(member)));
        self
    }

    /// Pauses members at `at` for `pause`: their calls hang and they send no heartbeat. A member that
    /// is paused for longer than the session timeout loses its partitions, gets `Lost` when the
    /// pause ends, and rejoins.
    pub fn pause(mut self, at: Duration, member: Target, pause: Duration) -> Self {
        self.members.push((at, MemberPlan::Pause(member, pause)));
        self
    }

    /// Revokes a partition from its owner at `at` without a drain, and assigns it to another member if
    /// there is one. The old owner gets `Lost`, and its calls with the old epoch are `Fenced`.
    pub fn steal(mut self, at: Duration, group: impl Into<String>, partition: &Partition) -> Self {
        let plan = MemberPlan::Steal {
            group: group.into(),
            partition: partition.clone(),
        };
        self.members.push((at, plan));
        self
    }

    /// Checks that the script has no contradictions.
    ///
    /// # Errors
    /// `Invalid` with the reason: a range that is empty or starts at 0, two faults of one send or
    /// checkpoint, an empty window, overlapping windows with different kinds, a pause of zero, a
    /// fault of a member after its crash or during its pause, one in 0.
    pub fn validate(&self) -> Result<()> {
        self.check()
            .map_err(|error| error.during("run fault script"))
    }

    pub(crate) fn check(&self) -> Result<(), BrokerError> {
        ranges("send", self.sends.iter().map(|(range, _)| range))?;
        ranges(
            "checkpoint",
            self.checkpoints.iter().map(|(range, _)| range),
        )?;
        for (range, plan) in &self.sends {
            if *plan == SendPlan::Delay(Duration::ZERO) {
                return invalid(format!(
                    "sends {range:?} are delayed by 0, use more or leave it out"
                ));
            }
        }
        if self.one_in.is_some_and(|(n, _)| n == 0) {
            return invalid("fail_one_in is 0, use at least 1".into());
        }
        self.check_windows()?;
        self.check_members()
    }

    fn check_windows(&self) -> Result<(), BrokerError> {
        let mut windows = self.windows.clone();
        windows.sort_by_key(|(at, duration, _)| (*at, *duration));
        for (at, duration, _) in &windows {
            if duration.is_zero() {
                return invalid(format!(
                    "sends fail at {at:?} for 0, use more or leave it out"
                ));
            }
        }
        for pair in windows.windows(2) {
            let ((at, duration, kind), (next, _, other)) = (pair[0], pair[1]);
            if at.saturating_add(duration) > next && kind != other {
                return invalid(format!(
                    "sends fail as {kind} from {at:?} and as {other} from {next:?}, which overlap"
                ));
            }
        }
        Ok(())
    }

    fn check_members(&self) -> Result<(), BrokerError> {
        let mut plans: Vec<&(Duration, MemberPlan)> = self.members.iter().collect();
        plans.sort_by_key(|(at, _)| *at);
        for (index, (at, plan)) in plans.iter().enumerate() {
            let (Some(target), until) = (plan.target(), plan.until(*at)) else {
                continue;
            };
            if matches!(plan, MemberPlan::Pause(_, Duration::ZERO)) {
                return invalid(format!(
                    "{target:?} is paused at {at:?} for 0, use more or leave it out"
                ));
            }
            for (later, other) in &plans[index + 1..] {
                if other.target() == Some(target) && *later < until {
                    let what = match plan {
                        MemberPlan::Crash(_) => "after its crash",
                        _ => "during its pause",
                    };
                    return invalid(format!(
                        "{target:?} has a fault at {later:?}, {what} at {at:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

impl MemberPlan {
    fn target(&self) -> Option<&Target> {
        match self {
            Self::Crash(target) | Self::Pause(target, _) => Some(target),
            Self::Steal { .. } => None,
        }
    }

    /// Returns the time until which the member can have no other fault.
    fn until(&self, at: Duration) -> Duration {
        match self {
            Self::Pause(_, pause) => at.saturating_add(*pause),
            _ => Duration::MAX,
        }
    }
}

fn ranges<'a>(
    what: &str,
    ranges: impl Iterator<Item = &'a RangeInclusive<u64>>,
) -> Result<(), BrokerError> {
    let mut ranges: Vec<_> = ranges.collect();
    ranges.sort_by_key(|range| *range.start());
    for range in &ranges {
        if range.is_empty() {
            return invalid(format!(
                "{what}s {range:?} are an empty range, start with the smaller number"
            ));
        }
        if *range.start() == 0 {
            return invalid(format!("{what}s {range:?} start at 0, count from 1"));
        }
    }
    for pair in ranges.windows(2) {
        if pair[0].end() >= pair[1].start() {
            let n = pair[1].start();
            return invalid(format!(
                "{what} {n} has two faults, in {:?} and {:?}",
                pair[0], pair[1]
            ));
        }
    }
    Ok(())
}

fn invalid(reason: String) -> Result<(), BrokerError> {
    Err(BrokerError::Script(reason))
}

#[cfg(test)]
mod tests {
    use millstream_core::ErrorKind::{Throttled, Unavailable};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    #[allow(clippy::reversed_empty_ranges, reason = "the script under test")]
    fn contradictions_are_refused() {
        let a = || Target::named("a");
        let scripts = [
            FaultScript::new()
                .fail_sends(3..=3, Unavailable)
                .delay_sends(1..=5, SECOND),
            FaultScript::new().fail_sends(5..=4, Unavailable),
            FaultScript::new().time_out_sends(0..=4),
            FaultScript::new().delay_sends(1..=1, Duration::ZERO),
            FaultScript::new()
                .lose_checkpoints(1..=2)
                .lose_checkpoint_responses(2..=2),
            FaultScript::new().fail_one_in(0, Unavailable),
            FaultScript::new().throttle(SECOND, Duration::ZERO),
            FaultScript::new().throttle(SECOND, SECOND * 2).fail_for(
                SECOND * 2,
                SECOND,
                Unavailable,
            ),
            FaultScript::new()
                .crash(SECOND, a())
                .pause(SECOND * 2, a(), SECOND),
            FaultScript::new()
                .pause(SECOND * 2, a(), SECOND)
                .crash(SECOND, a()),
            FaultScript::new()
                .pause(SECOND, a(), SECOND * 2)
                .pause(SECOND * 2, a(), SECOND),
            FaultScript::new().pause(SECOND, a(), Duration::ZERO),
        ];
        for script in scripts {
            let error = script.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{script:?}");
        }
    }

    #[test]
    fn a_script_without_contradictions_is_valid() {
        let script = FaultScript::new()
            .fail_sends(1..=2, Unavailable)
            .delay_sends(3..=4, SECOND)
            .time_out_sends(5..=5)
            .throttle(SECOND, SECOND)
            .fail_for(SECOND * 2, SECOND, Unavailable)
            .fail_for(SECOND * 9, SECOND, Throttled)
            .pause(SECOND, Target::nth(1), SECOND)
            .pause(SECOND * 2, Target::nth(1), SECOND)
            .crash(SECOND * 3, Target::nth(1))
            .crash(SECOND, Target::nth(2));
        script.validate().unwrap();
    }
}
