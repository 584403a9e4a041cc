//! The unfinished work of a fleet, for the message of a wait that timed out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};

use millstream_core::{Epoch, Partition, Position};

use crate::checker::{RecordLocation, Rules, Verdict, Violation};
use crate::history::{Event, History};

/// The maximum number of records that a report names.
const SHOWN: usize = 20;

/// The state of a group, according to its history.
#[derive(Debug)]
pub(super) struct Report {
    /// Without the records that are not settled yet, because the run is not complete.
    verdict: Verdict,
    unsettled: Vec<RecordLocation>,
    /// The last checkpoint of each partition that was read.
    checkpoints: BTreeMap<Partition, (Option<Position>, Option<Epoch>)>,
}

impl Report {
    /// Reads the history of a group. `unsettled` are the ids of the records that the group has not settled yet.
    pub(super) fn new(history: &History, group: &str, unsettled: &BTreeSet<u64>) -> Self {
        let mut verdict = Rules::default().check(&history.entries());
        verdict
            .violations
            .retain(|violation| !matches!(violation, Violation::Lost { gave_up: false, .. }));
        verdict.summary.lost = 0;
        verdict.summary.violations = verdict.violations.len() as u64;
        let mut records = Vec::new();
        let mut checkpoints = BTreeMap::new();
        history.each(|event| match event {
            Event::Acknowledged {
                id,
                partition,
                position,
            } if unsettled.contains(id) => records.push(RecordLocation {
                id: *id,
                partition: partition.clone(),
                position: *position,
            }),
            Event::Checkpointed {
                group: of,
                partition,
                position,
                epoch,
            } if **of == *group => {
                checkpoints.insert(partition.clone(), (*position, *epoch));
            }
            _ => {}
        });
        Self {
            verdict,
            unsettled: records,
            checkpoints,
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "the checker so far: {}", self.verdict)?;
        writeln!(f, "{} records are not settled", self.unsettled.len())?;
        for record in self.unsettled.iter().take(SHOWN) {
            writeln!(f, "  {record}")?;
        }
        if let more @ 1.. = self.unsettled.len().saturating_sub(SHOWN) {
            writeln!(f, "  and {more} more")?;
        }
        f.write_str("checkpoints, as last read:")?;
        if self.checkpoints.is_empty() {
            return f.write_str(" none");
        }
        for (partition, (position, epoch)) in &self.checkpoints {
            let position = position.map_or("nothing settled".to_owned(), |at| at.to_string());
            let epoch = epoch.map_or("no epoch".to_owned(), |epoch| format!("epoch {epoch}"));
            write!(f, "\n  {partition}: {position} ({epoch})")?;
        }
        Ok(())
    }
}
