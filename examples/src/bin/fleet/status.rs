//! The status of the run at one moment.

use std::time::{Duration, Instant};

use millstream::ErrorKind;

use crate::fleet::Fleet;
use crate::members::{MemberStats, Members};
use crate::stage::Stage;

/// The displayed status while the program runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    pub(crate) elapsed: Duration,
    pub(crate) sent: u64,
    pub(crate) groups: Vec<Group>,
}

/// One group at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) stage: Stage,
    pub(crate) handled: u64,
    pub(crate) members: MemberStats,
    /// The records after the stored checkpoint of each partition, if the backend can count them.
    pub(crate) lags: Vec<Option<u64>>,
}

impl Group {
    /// Returns the records after the checkpoints of all partitions, as far as known.
    pub(crate) fn lag(&self) -> u64 {
        self.lags.iter().flatten().sum()
    }
}

/// The lag of all groups, cached because reading it costs requests, for which some backends charge.
#[derive(Debug, Default)]
pub(crate) struct Lags {
    asked: Option<Instant>,
    of: [Vec<Option<u64>>; Stage::ALL.len()],
}

impl Lags {
    /// The age at which the cache is refreshed.
    const OLDEST: Duration = Duration::from_millis(300);

    async fn refresh(&mut self, fleet: &Fleet) -> millstream::Result<()> {
        if self
            .asked
            .is_some_and(|asked| asked.elapsed() < Self::OLDEST)
        {
            return Ok(());
        }
        for stage in Stage::ALL {
            self.of[stage as usize] = lags(fleet, stage).await?;
        }
        self.asked = Some(Instant::now());
        Ok(())
    }
}

impl Status {
    pub(crate) async fn take(
        fleet: &Fleet,
        members: &Members,
        lags: &mut Lags,
    ) -> millstream::Result<Self> {
        // `handled` is read before the lag: a lag of zero then covers all handled records.
        let handled = Stage::ALL.map(|stage| fleet.verifier(stage).counts().handled);
        lags.refresh(fleet).await?;
        let groups = Stage::ALL.into_iter().map(|stage| Group {
            stage,
            handled: handled[stage as usize],
            members: members.stats(stage),
            lags: lags.of[stage as usize].clone(),
        });
        let groups = groups.collect();
        Ok(Self {
            elapsed: fleet.started.elapsed(),
            sent: fleet.reports.expected() + fleet.dead_letters(),
            groups,
        })
    }

    /// Returns whether every group has read its stream to the end.
    pub(crate) fn at_end(&self) -> bool {
        self.groups.iter().all(|group| group.lag() == 0)
    }

    /// Returns the number of partitions that `stage` reads, as far as known.
    pub(crate) fn partitions(&self, stage: Stage) -> usize {
        let group = self.groups.iter().find(|group| group.stage == stage);
        group.map_or(0, |group| group.lags.len())
    }

    pub(crate) fn rebalances(&self) -> u64 {
        self.groups
            .iter()
            .map(|group| group.members.rebalances)
            .sum()
    }

    pub(crate) fn live(&self) -> usize {
        self.groups.iter().map(|group| group.members.live).sum()
    }
}

async fn lags(fleet: &Fleet, stage: Stage) -> millstream::Result<Vec<Option<u64>>> {
    match fleet.client.group(stage.name()).checkpoints().await {
        // Its first member is still joining.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        checkpoints => {
            let of_stream = checkpoints?
                .into_iter()
                .filter(|checkpoint| checkpoint.partition.stream() == stage.stream());
            Ok(of_stream.map(|checkpoint| checkpoint.lag.records).collect())
        }
    }
}
