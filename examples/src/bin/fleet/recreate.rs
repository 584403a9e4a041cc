//! Deletes and recreates `car-raw-events` while its group runs.
//!
//! The sender waits until the group has settled everything in the stream, so no record is lost with it.
//! The members then end with `NotFound` and rejoin, which takes a moment. Records that are sent meanwhile must not be
//! skipped: a group that continued at its old position in the new stream would lose them.

use std::time::Duration;

use anyhow::bail;
use millstream::{Error, ErrorKind, StreamSpec};
use tokio::time::{Instant, sleep};

use crate::fleet::{Fleet, PARTITIONS, RAW, Shared};
use crate::send::STALL_TIMEOUT;
use crate::stage::Stage;

/// The number of sent records at which the stream is deleted.
pub(crate) const RECREATE_AT: u64 = 8_000;

const TICK: Duration = Duration::from_millis(20);

/// The stage of the recreation.
#[derive(Debug, Default)]
pub(crate) struct Recreation(Shared<Phase>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Before,
    /// The stream is deleted, and not recreated yet.
    Absent,
    Over,
}

impl Recreation {
    /// Returns whether members of `stage` cannot join now.
    pub(crate) fn is_absent(&self, stage: Stage) -> bool {
        stage.stream() == RAW && *self.0.lock() == Phase::Absent
    }

    pub(crate) fn is_over(&self) -> bool {
        *self.0.lock() == Phase::Over
    }

    /// Returns whether a member of `stage` may have ended with this error: its stream was deleted.
    pub(crate) fn explains(&self, stage: Stage, error: &Error) -> bool {
        stage.stream() == RAW
            && error.kind() == ErrorKind::NotFound
            && error.stream() == Some(RAW)
            && *self.0.lock() != Phase::Before
    }
}

/// Deletes and recreates the stream. Nothing may be sent to it meanwhile.
pub(crate) async fn recreate(fleet: &Fleet) -> anyhow::Result<()> {
    settled(fleet).await?;
    let streams = fleet.client.streams();
    *fleet.recreation.0.lock() = Phase::Absent;
    streams.delete(RAW).await?;
    let deleted = Instant::now();
    loop {
        let spec = StreamSpec::new(RAW).partitions(PARTITIONS);
        match streams.create(spec).await {
            // Some brokers delete in the background.
            Err(error)
                if error.kind() == ErrorKind::AlreadyExists
                    && deleted.elapsed() < STALL_TIMEOUT =>
            {
                sleep(TICK).await;
            }
            created => break created?,
        }
    }
    *fleet.recreation.0.lock() = Phase::Over;
    let note = format!("recreate: {RAW} is deleted and created again");
    fleet.notes.say(note);
    Ok(())
}

/// Waits until the group has settled everything, and has stored its checkpoints.
async fn settled(fleet: &Fleet) -> anyhow::Result<()> {
    let group = fleet.client.group(Stage::Cleaner.name());
    let began = Instant::now();
    loop {
        let read = group.checkpoints().await?;
        let read = read.iter().filter(|found| found.partition.stream() == RAW);
        let lags: Option<Vec<u64>> = read.map(|found| found.lag.records).collect();
        match lags {
            None => bail!("this backend does not count what is left to read: leave --recreate out"),
            Some(lags) if lags.iter().all(|lag| *lag == 0) => return Ok(()),
            Some(_) if began.elapsed() > STALL_TIMEOUT => {
                bail!("{} does not read {RAW} to its end", Stage::Cleaner.name())
            }
            Some(_) => sleep(TICK).await,
        }
    }
}
