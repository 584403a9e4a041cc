//! The members of all groups: how they join, leave and crash.

use std::future::Future;
use std::sync::Arc;

use millstream::{ConsumerHandle, ConsumerStats, Producer, Result, RunFuture};
use tokio::task::{JoinError, JoinHandle};

use crate::fleet::Fleet;
use crate::stage::Stage;

/// One running member.
#[derive(Debug)]
pub(crate) struct Member {
    control: ConsumerHandle,
    task: JoinHandle<Result<()>>,
}

impl Member {
    /// Runs a handler, and closes the producer that it feeds, if there is one.
    pub(crate) fn start(run: RunFuture, producer: Option<Producer>) -> Self {
        let control = run.handle();
        let task = async move {
            let ran = run.await;
            let closed = match producer {
                Some(producer) => producer.close().await,
                None => Ok(()),
            };
            ran.and(closed)
        };
        Self::spawn(control, task)
    }

    /// Runs `task` until `control` shuts it down.
    pub(crate) fn spawn(
        control: ConsumerHandle,
        task: impl Future<Output = Result<()>> + Send + 'static,
    ) -> Self {
        let task = tokio::spawn(task);
        Self { control, task }
    }
}

/// All members, group by group.
#[derive(Debug)]
pub(crate) struct Members {
    fleet: Arc<Fleet>,
    crews: Vec<Crew>,
}

#[derive(Debug, Default)]
struct Crew {
    live: Vec<(String, Member)>,
    /// Members that were told to leave and are draining.
    leaving: Vec<(String, Member)>,
    /// What the members that are gone have counted.
    gone: Vec<ConsumerHandle>,
    joined: u64,
    left: u64,
    crashed: u64,
}

/// What became of the members of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CrewStats {
    pub(crate) live: usize,
    pub(crate) crashed: u64,
    /// How often the members changed after the first one joined, each of which deals the partitions
    /// anew.
    pub(crate) rebalances: u64,
    /// Partitions assigned, in all.
    pub(crate) assigned: u64,
    /// Failed attempts of handlers.
    pub(crate) failures: u64,
}

impl Members {
    pub(crate) fn new(fleet: Arc<Fleet>) -> Self {
        let crews = Stage::ALL.iter().map(|_| Crew::default()).collect();
        Self { fleet, crews }
    }

    /// Adds a member and answers with its name.
    pub(crate) async fn join(&mut self, stage: Stage) -> Result<String> {
        let crew = &mut self.crews[stage as usize];
        crew.joined += 1;
        let name = format!("{}-{}", stage.name(), crew.joined);
        let member = stage.join(self.fleet.clone(), &name).await?;
        crew.live.push((name.clone(), member));
        Ok(name)
    }

    /// Tells the member that is there longest to leave: it drains, checkpoints and hands over.
    /// Answers with its name.
    pub(crate) fn leave(&mut self, stage: Stage) -> Option<String> {
        let crew = &mut self.crews[stage as usize];
        let (name, member) = crew.take_oldest()?;
        member.control.shutdown();
        crew.left += 1;
        crew.leaving.push((name.clone(), member));
        Some(name)
    }

    /// Ends the member that is there longest in the middle of what it does, as the end of its
    /// process would. Answers with its name.
    pub(crate) fn crash(&mut self, stage: Stage) -> Option<String> {
        let crew = &mut self.crews[stage as usize];
        let (name, member) = crew.take_oldest()?;
        member.task.abort();
        crew.crashed += 1;
        crew.gone.push(member.control);
        Some(name)
    }

    /// How many members of each group are there.
    pub(crate) fn sizes(&self) -> [usize; Stage::ALL.len()] {
        Stage::ALL.map(|stage| self.crews[stage as usize].live.len())
    }

    pub(crate) fn stats(&self, stage: Stage) -> CrewStats {
        let crew = &self.crews[stage as usize];
        let counted = |count: fn(&ConsumerStats) -> u64| -> u64 {
            crew.controls().map(|control| count(&control.stats())).sum()
        };
        CrewStats {
            live: crew.live.len(),
            crashed: crew.crashed,
            rebalances: (crew.joined + crew.left + crew.crashed).saturating_sub(1),
            assigned: counted(|stats| stats.assigned),
            failures: counted(|stats| stats.failures),
        }
    }

    /// Whether `stage` or a chain before it had a crash: then records may come again.
    pub(crate) fn crashed_before(&self, stage: Stage) -> bool {
        let mut at = Some(stage);
        while let Some(stage) = at {
            if self.crews[stage as usize].crashed > 0 {
                return true;
            }
            at = stage.follows();
        }
        false
    }

    /// Lets go of the members that have left, and fails if one stopped by itself or could not leave
    /// in order.
    pub(crate) async fn check(&mut self) -> anyhow::Result<()> {
        for crew in &mut self.crews {
            while let Some(index) = crew.finished() {
                let (name, member) = match index {
                    Finished::Live(index) => crew.live.remove(index),
                    Finished::Leaving(index) => crew.leaving.remove(index),
                };
                crew.gone.push(member.control);
                told(&name, member.task.await)?;
            }
        }
        Ok(())
    }

    /// Shuts all members down, group by group from the source, and waits for them.
    pub(crate) async fn close(&mut self) -> anyhow::Result<()> {
        let mut result = Ok(());
        for crew in &mut self.crews {
            for (_, member) in &crew.live {
                member.control.shutdown();
            }
            for (name, member) in crew.live.drain(..).chain(crew.leaving.drain(..)) {
                crew.gone.push(member.control);
                result = result.and(told(&name, member.task.await));
            }
        }
        result
    }
}

enum Finished {
    Live(usize),
    Leaving(usize),
}

impl Crew {
    fn take_oldest(&mut self) -> Option<(String, Member)> {
        (!self.live.is_empty()).then(|| self.live.remove(0))
    }

    fn finished(&self) -> Option<Finished> {
        let finished = |(_, member): &(String, Member)| member.task.is_finished();
        let live = self.live.iter().position(finished).map(Finished::Live);
        live.or_else(|| {
            let leaving = self.leaving.iter().position(finished);
            leaving.map(Finished::Leaving)
        })
    }

    fn controls(&self) -> impl Iterator<Item = &ConsumerHandle> {
        let members = self.live.iter().chain(&self.leaving);
        members.map(|(_, member)| &member.control).chain(&self.gone)
    }
}

fn told(name: &str, end: Result<Result<()>, JoinError>) -> anyhow::Result<()> {
    match end {
        Ok(result) => result.map_err(|error| anyhow::anyhow!("{name} stopped: {error:?}")),
        Err(error) => Err(anyhow::anyhow!("{name} stopped: {error}")),
    }
}
