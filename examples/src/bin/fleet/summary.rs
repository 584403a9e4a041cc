//! The verdict at the end, as text and as JSON.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;

use crate::fleet::Fleet;
use crate::members::Members;
use crate::number::grouped;
use crate::stage::Stage;
use crate::status::Status;

/// The totals of the records, from the program's own history.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// Reports stored in `car-raw-events`.
    pub(crate) sent: u64,
    /// Of these, the number handled by the group that handled fewest.
    pub(crate) handled: u64,
    /// Records that a group never handled, over all groups.
    pub(crate) lost: u64,
    /// Records whose first handling came after that of a later record of the same key, over all
    /// groups.
    pub(crate) out_of_order: u64,
    /// Tombstones handled as other records or the other way round, over all groups.
    pub(crate) altered: u64,
    /// Records handled again, over all groups.
    pub(crate) duplicates: u64,
    /// Membership changes, each of which reassigns a group's partitions.
    pub(crate) rebalances: u64,
    /// The longest time that a partition with records to read made no progress, in milliseconds.
    pub(crate) max_stall_ms: u64,
    /// Members that crashed.
    pub(crate) crashes: u64,
    /// Partitions that moved from one member to another.
    pub(crate) partitions_moved: u64,
    /// Tombstones among the sent records.
    pub(crate) tombstones: u64,
    /// Unusable lines of the input.
    pub(crate) bad_lines: u64,
    /// The line numbers of the first bad lines.
    pub(crate) first_bad_lines: Vec<u64>,
    /// Reports among the bad lines that were stored first and failed in the cleaner.
    pub(crate) dead_lettered: u64,
    pub(crate) vehicles: usize,
    pub(crate) alerts: u64,
    pub(crate) highest_feet: f64,
    pub(crate) fastest_knots: f64,
    pub(crate) seconds: f64,
    pub(crate) verdict: Verdict,
    pub(crate) groups: Vec<GroupSummary>,
}

/// The conclusion from the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// Nothing lost, altered or out of order, and no duplicates where no member crashed.
    Good,
    /// One of the numbers violates a guarantee.
    NotGood,
    /// The run ended early, so that the numbers prove nothing.
    Failed,
}

/// The numbers of one group.
#[derive(Debug, Serialize)]
pub(crate) struct GroupSummary {
    pub(crate) group: &'static str,
    pub(crate) stream: &'static str,
    pub(crate) handled: u64,
    pub(crate) lost: u64,
    pub(crate) out_of_order: u64,
    pub(crate) altered: u64,
    pub(crate) duplicates: u64,
    /// Whether a member of this group or of an upstream pipeline crashed: only then may records be
    /// redelivered.
    pub(crate) crash_before: bool,
    pub(crate) crashes: u64,
    pub(crate) rebalances: u64,
    pub(crate) partitions_moved: u64,
    pub(crate) failures: u64,
    pub(crate) max_stall_ms: u64,
}

impl Summary {
    /// Summarizes the history of all groups. Members must be closed. `last` is empty for a run that failed
    /// before its first status.
    pub(crate) fn new(fleet: &Fleet, members: &Members, last: &Status) -> Self {
        let groups = Stage::ALL.map(|stage| {
            let partitions = last.partitions(stage);
            GroupSummary::new(fleet, members, stage, partitions)
        });
        let twice = |group: &GroupSummary| group.duplicates > 0 && !group.crash_before;
        let broken = |group: &GroupSummary| {
            group.lost > 0 || group.out_of_order > 0 || group.altered > 0 || twice(group)
        };
        let verdict = match groups.iter().any(broken) {
            true => Verdict::NotGood,
            false => Verdict::Good,
        };
        let sum = |part: fn(&GroupSummary) -> u64| groups.iter().map(part).sum();
        let of_reports = Stage::ALL
            .into_iter()
            .filter(|stage| !matches!(stage, Stage::Inbox | Stage::DeadLetters));
        let (bad_lines, first_bad_lines) = fleet.notes.bad_lines();
        let statistics = fleet.statistics.lock();
        Self {
            sent: fleet.reports.expected() + fleet.dead_letters(),
            handled: of_reports
                .map(|stage| groups[stage as usize].handled)
                .min()
                .unwrap_or_default(),
            lost: sum(|group| group.lost),
            out_of_order: sum(|group| group.out_of_order),
            altered: sum(|group| group.altered),
            duplicates: sum(|group| group.duplicates),
            rebalances: sum(|group| group.rebalances),
            max_stall_ms: groups
                .iter()
                .map(|group| group.max_stall_ms)
                .max()
                .unwrap_or_default(),
            crashes: sum(|group| group.crashes),
            partitions_moved: sum(|group| group.partitions_moved),
            tombstones: fleet.tombstones_sent.load(Relaxed),
            bad_lines,
            first_bad_lines,
            dead_lettered: fleet.dead_letters(),
            vehicles: fleet.positions.lock().len(),
            alerts: fleet.alerts.expected(),
            highest_feet: statistics.highest_feet,
            fastest_knots: statistics.fastest_knots,
            seconds: fleet.started.elapsed().as_secs_f64(),
            verdict,
            groups: groups.into(),
        }
    }
}

impl GroupSummary {
    fn new(fleet: &Fleet, members: &Members, stage: Stage, partitions: usize) -> Self {
        let verifier = fleet.verifier(stage);
        let counts = verifier.counts();
        let stats = members.stats(stage);
        Self {
            group: stage.name(),
            stream: stage.stream(),
            handled: counts.handled,
            lost: verifier.lost(fleet.sent_log(stage)),
            out_of_order: counts.out_of_order,
            altered: counts.altered,
            duplicates: counts.duplicates,
            crash_before: members.crashed_before(stage),
            crashes: stats.crashed,
            rebalances: stats.rebalances,
            // The first assignment of each partition is not a move.
            partitions_moved: stats.assigned.saturating_sub(partitions as u64),
            failures: stats.failures,
            max_stall_ms: counts.max_stall.as_millis() as u64,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slowest = self.groups.iter().max_by_key(|group| group.max_stall_ms);
        let rows: [(&str, u64, String); 9] = [
            (
                "sent",
                self.sent,
                format!(
                    "records of {} vehicles in {:.1} s",
                    self.vehicles, self.seconds
                ),
            ),
            (
                "handled",
                self.handled,
                match self.dead_lettered {
                    0 => "by every group".into(),
                    letters => format!("by every group; {letters} went to the dead letters"),
                },
            ),
            ("lost", self.lost, String::new()),
            (
                "out of order",
                self.out_of_order,
                "by the first time that a record is handled".into(),
            ),
            (
                "altered",
                self.altered,
                match self.tombstones {
                    0 => String::new(),
                    sent => format!("of {} tombstones", grouped(sent)),
                },
            ),
            (
                "duplicates",
                self.duplicates,
                match self.crashes {
                    0 => "no member crashed".into(),
                    crashes => format!(
                        "crashes: {crashes}; records that were not checkpointed are delivered again, also to groups downstream"
                    ),
                },
            ),
            (
                "rebalances",
                self.rebalances,
                format!("{} partitions moved", self.partitions_moved),
            ),
            (
                "longest stall",
                self.max_stall_ms,
                slowest.map_or(String::new(), |group| format!("ms, in {}", group.group)),
            ),
            ("bad lines", self.bad_lines, self.bad_line_numbers()),
        ];
        for (name, number, remark) in rows {
            writeln!(f, "{name:<14} {:>10}  {remark}", grouped(number))?;
        }
        writeln!(
            f,
            "{:<14} {:>10}  highest {:.0} ft, fastest {:.0} kt",
            "alerts",
            grouped(self.alerts),
            self.highest_feet,
            self.fastest_knots
        )?;
        writeln!(
            f,
            "\n{:<14} {:>10} {:>6} {:>12} {:>10} {:>7} {:>10} {:>8}",
            "group",
            "handled",
            "lost",
            "out of order",
            "duplicates",
            "crashes",
            "rebalances",
            "stall ms"
        )?;
        for group in &self.groups {
            writeln!(
                f,
                "{:<14} {:>10} {:>6} {:>12} {:>10} {:>7} {:>10} {:>8}",
                group.group,
                grouped(group.handled),
                group.lost,
                group.out_of_order,
                group.duplicates,
                group.crashes,
                group.rebalances,
                grouped(group.max_stall_ms)
            )?;
        }
        let verdict = match self.verdict {
            Verdict::Good => {
                "good: nothing lost, altered or out of order, nothing twice without a crash"
            }
            Verdict::NotGood => "NOT GOOD: see the numbers above",
            Verdict::Failed => "FAILED: the run ended early, the numbers above prove nothing",
        };
        write!(f, "\n{verdict}")
    }
}

impl Summary {
    fn bad_line_numbers(&self) -> String {
        if self.bad_lines == 0 {
            return String::new();
        }
        let numbers: Vec<_> = self.first_bad_lines.iter().map(u64::to_string).collect();
        let more = match self.bad_lines as usize > numbers.len() {
            true => ", ...",
            false => "",
        };
        format!(
            "in {}: line {}{more}",
            Stage::DeadLetters.stream(),
            numbers.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tombstones::Tombstones;

    #[tokio::test]
    async fn a_run_that_failed_before_its_first_snapshot_has_a_summary() -> millstream::Result<()> {
        let client = millstream::Settings::default().connect().await?;
        let fleet = Arc::new(Fleet::new(client, Tombstones::default()));
        let members = Members::new(fleet.clone());
        let summary = Summary::new(&fleet, &members, &Status::default());
        assert_eq!(summary.groups.len(), Stage::ALL.len());
        assert_eq!((summary.sent, summary.handled, summary.lost), (0, 0, 0));
        Ok(())
    }
}
