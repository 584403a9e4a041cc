//! One run, from the first member that joins to the verdict.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use millstream::Client;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::args::Args;
use crate::chaos::{Change, Chaos};
use crate::fleet::Fleet;
use crate::input::Input;
use crate::members::Members;
use crate::progress::Progress;
use crate::recreate::RECREATE_AT;
use crate::reshard::Reshard;
use crate::send::{self, STALL_TIMEOUT};
use crate::stage::Stage;
use crate::status::{Lags, Status};
use crate::summary::Summary;
use crate::tombstones::Tombstones;

const TICK: Duration = Duration::from_millis(50);

/// Streams `input` and verifies the result. An error means that the run ended early; the summary then
/// covers what was handled so far.
pub(crate) async fn run(
    args: &Args,
    client: Client,
    input: Input,
    stop: watch::Receiver<bool>,
) -> (Summary, anyhow::Result<()>) {
    let tombstones = Tombstones::new(args.tombstones);
    let fleet = Arc::new(Fleet::new(client, tombstones));
    let mut run = Run {
        members: Members::new(fleet.clone()),
        progress: Progress::new(),
        chaos: args
            .chaos
            .then(|| Chaos::new(args.seed, args.members as usize)),
        last: Status::default(),
        lags: Lags::default(),
        fleet,
    };
    let streamed = run.stream(args, input, stop).await;
    let closed = run.members.close().await;
    for remark in run.fleet.notes.take() {
        run.progress.say(&remark);
    }
    run.progress.finish();
    let summary = Summary::new(&run.fleet, &run.members, &run.last);
    // The end of the process frees the streams at once. Freeing millions of records one by one
    // would take seconds.
    std::mem::forget(run);
    (summary, streamed.and(closed))
}

struct Run {
    fleet: Arc<Fleet>,
    members: Members,
    progress: Progress,
    chaos: Option<Chaos>,
    last: Status,
    lags: Lags,
}

impl Run {
    async fn stream(
        &mut self,
        args: &Args,
        input: Input,
        stop: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        self.fleet.create_streams().await?;
        for stage in Stage::ALL {
            for _ in 0..args.members {
                self.members.join(stage).await?;
            }
        }
        let lines = send::read(input)?;
        let reshard = match args.reshard {
            true => Reshard::begin(&self.fleet)?,
            false => Reshard::default(),
        };
        let sending = send::send(self.fleet.clone(), lines, args.clone(), stop);
        let sending = tokio::spawn(sending);
        let sent = self.while_sending(sending).await;
        let sent = sent.and(reshard.end(&self.fleet).await);
        let sent = sent.and(match args.recreate && !self.fleet.recreation.is_over() {
            true => Err(anyhow!(
                "--recreate takes an input of {RECREATE_AT} records or more"
            )),
            false => Ok(()),
        });
        // After an error, the records sent before are still handled and verified.
        sent.and(self.until_handled().await)
    }

    /// Shows the status and applies chaos until the input is sent.
    async fn while_sending(
        &mut self,
        sending: JoinHandle<anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let mut ticks = ticks();
        let mut next_change = Instant::now();
        while !sending.is_finished() {
            ticks.tick().await;
            if let Err(error) = self.look().await {
                sending.abort();
                return Err(error);
            }
            if let Some(chaos) = &mut self.chaos {
                if Instant::now() >= next_change {
                    next_change = Instant::now() + chaos.pause();
                    self.change().await?;
                }
            }
        }
        sending.await.context("the sender ended")?
    }

    /// Waits until every group has handled everything and has read to the end, so that all
    /// duplicates are counted.
    async fn until_handled(&mut self) -> anyhow::Result<()> {
        let mut ticks = ticks();
        let mut progress = (u64::MAX, Instant::now());
        loop {
            ticks.tick().await;
            self.look().await?;
            let behind: u64 = Stage::ALL
                .map(|stage| self.fleet.behind(stage))
                .iter()
                .sum();
            if behind == 0 {
                // Only checkpoints that are read from now on are evidence of the end.
                self.lags = Lags::default();
                self.look().await?;
                if self.last.at_end() {
                    return Ok(());
                }
            }
            let left = behind + self.last.groups.iter().map(|g| g.lag()).sum::<u64>();
            if left < progress.0 {
                progress = (left, Instant::now());
            } else if progress.1.elapsed() > STALL_TIMEOUT {
                bail!("no group has made progress for {STALL_TIMEOUT:?}");
            }
        }
    }

    /// Checks the members, and shows the status.
    async fn look(&mut self) -> anyhow::Result<()> {
        self.members.check().await?;
        self.members.join_again().await?;
        for remark in self.fleet.notes.take() {
            self.progress.say(&remark);
        }
        self.last = Status::take(&self.fleet, &self.members, &mut self.lags).await?;
        self.progress.show(&self.last);
        Ok(())
    }

    async fn change(&mut self) -> anyhow::Result<()> {
        let Some(chaos) = &mut self.chaos else {
            return Ok(());
        };
        let (stage, change) = chaos.next(&self.members.sizes());
        if self.fleet.recreation.is_absent(stage) {
            return Ok(());
        }
        let (name, what) = match change {
            Change::Join => (Some(self.members.join(stage).await?), "joins"),
            Change::Leave => (self.members.leave(stage), "leaves"),
            Change::Crash => (self.members.crash(stage), "crashes"),
        };
        if let Some(name) = name {
            self.fleet.notes.say(format!("chaos: {name} {what}"));
        }
        // A member must be there to take over.
        if self.members.sizes()[stage as usize] == 0 {
            let name = self.members.join(stage).await?;
            self.fleet.notes.say(format!("chaos: {name} joins instead"));
        }
        Ok(())
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
