//! The members of all groups: joins, leaves and crashes.

use std::future::Future;
use std::sync::Arc;

use millstream::{ConsumerHandle, ConsumerStats, Producer, Result, RunFuture};
use tokio::task::{JoinError, JoinHandle};

use crate::fleet::Fleet;
use crate::stage::Stage;

/// One running member.
#[derive(Debug)]
pub(crate) struct Member {
    handle: ConsumerHandle,
    task: JoinHandle<Result<()>>,
}

impl Member {
    /// Runs a handler, and then closes the producer that it publishes to.
    pub(crate) fn start(run: RunFuture, producer: Option<Producer>) -> Self {
        let handle = run.handle();
        let task = async move {
            let ran = run.await;
            let closed = match producer {
                Some(producer) => producer.close().await,
                None => Ok(()),
            };
            ran.and(closed)
        };
        Self::spawn(handle, task)
    }

    /// Runs `task` until `handle` shuts it down.
    pub(crate) fn spawn(
        handle: ConsumerHandle,
        task: impl Future<Output = Result<()>> + Send + 'static,
    ) -> Self {
        let task = tokio::spawn(task);
        Self { handle, task }
    }
}

/// The result of a member's task.
type End = std::result::Result<Result<()>, JoinError>;

/// All members, group by group.
#[derive(Debug)]
pub(crate) struct Members {
    fleet: Arc<Fleet>,
    groups: Vec<GroupMembers>,
    /// Groups with a member that ended because its stream was deleted, one entry per member.
    ended: Vec<Stage>,
}

#[derive(Debug, Default)]
struct GroupMembers {
    live: Vec<(String, Member)>,
    /// Members that are shutting down: they drain.
    leaving: Vec<(String, Member)>,
    /// Handles of ended members, for their counters.
    gone: Vec<ConsumerHandle>,
    joined: u64,
    left: u64,
    crashed: u64,
}

/// Counters of a group's members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct MemberStats {
    pub(crate) live: usize,
    pub(crate) crashed: u64,
    /// Membership changes after the first member joined, each of which reassigns partitions.
    pub(crate) rebalances: u64,
    /// Partitions assigned in total.
    pub(crate) assigned: u64,
    /// Failed attempts of handlers.
    pub(crate) failures: u64,
}

impl Members {
    pub(crate) fn new(fleet: Arc<Fleet>) -> Self {
        let groups = Stage::ALL.iter().map(|_| GroupMembers::default()).collect();
        Self {
            fleet,
            groups,
            ended: Vec::new(),
        }
    }

    /// Adds a member and returns its name.
    pub(crate) async fn join(&mut self, stage: Stage) -> Result<String> {
        let group = &mut self.groups[stage as usize];
        group.joined += 1;
        let name = format!("{}-{}", stage.name(), group.joined);
        let member = stage.join(self.fleet.clone(), &name).await?;
        group.live.push((name.clone(), member));
        Ok(name)
    }

    /// Shuts down the oldest member: it drains, checkpoints and releases its partitions. Returns its name.
    pub(crate) fn leave(&mut self, stage: Stage) -> Option<String> {
        let group = &mut self.groups[stage as usize];
        let (name, member) = group.take_oldest()?;
        member.handle.shutdown();
        group.left += 1;
        group.leaving.push((name.clone(), member));
        Some(name)
    }

    /// Aborts the oldest member, like the end of its process. Returns its name.
    pub(crate) fn crash(&mut self, stage: Stage) -> Option<String> {
        let group = &mut self.groups[stage as usize];
        let (name, member) = group.take_oldest()?;
        member.task.abort();
        group.crashed += 1;
        group.gone.push(member.handle);
        Some(name)
    }

    /// Returns the number of live members of each group.
    pub(crate) fn sizes(&self) -> [usize; Stage::ALL.len()] {
        Stage::ALL.map(|stage| self.groups[stage as usize].live.len())
    }

    pub(crate) fn stats(&self, stage: Stage) -> MemberStats {
        let group = &self.groups[stage as usize];
        let counted = |count: fn(&ConsumerStats) -> u64| -> u64 {
            group.handles().map(|handle| count(&handle.stats())).sum()
        };
        MemberStats {
            live: group.live.len(),
            crashed: group.crashed,
            rebalances: (group.joined + group.left + group.crashed).saturating_sub(1),
            assigned: counted(|stats| stats.assigned),
            failures: counted(|stats| stats.failures),
        }
    }

    /// Returns whether a member of `stage` or of an upstream pipeline crashed, so that records may be
    /// redelivered.
    pub(crate) fn crashed_before(&self, stage: Stage) -> bool {
        let mut at = Some(stage);
        while let Some(stage) = at {
            if self.groups[stage as usize].crashed > 0 {
                return true;
            }
            at = stage.follows();
        }
        false
    }

    /// Removes the members that have ended, and fails if one stopped by itself or with an error.
    pub(crate) async fn check(&mut self) -> anyhow::Result<()> {
        for stage in Stage::ALL {
            let group = &mut self.groups[stage as usize];
            while let Some(index) = group.finished() {
                let ((name, member), was_live) = match index {
                    Finished::Live(index) => (group.live.remove(index), true),
                    Finished::Leaving(index) => (group.leaving.remove(index), false),
                };
                group.gone.push(member.handle);
                let end = member.task.await;
                if is_explained(&self.fleet, stage, &end) {
                    self.fleet.notes.say(format!("recreate: {name} ended"));
                    self.ended.extend(was_live.then_some(stage));
                } else {
                    outcome(&name, end)?;
                }
            }
        }
        Ok(())
    }

    /// Replaces the members that ended because their stream was deleted, once it exists again.
    pub(crate) async fn join_again(&mut self) -> Result<()> {
        for stage in std::mem::take(&mut self.ended) {
            if self.fleet.recreation.is_absent(stage) {
                self.ended.push(stage);
            } else {
                let name = self.join(stage).await?;
                self.fleet.notes.say(format!("recreate: {name} joins"));
            }
        }
        Ok(())
    }

    /// Shuts down all members, group by group from the source, and waits for them.
    pub(crate) async fn close(&mut self) -> anyhow::Result<()> {
        let mut result = Ok(());
        for stage in Stage::ALL {
            let group = &mut self.groups[stage as usize];
            for (_, member) in &group.live {
                member.handle.shutdown();
            }
            for (name, member) in group.live.drain(..).chain(group.leaving.drain(..)) {
                group.gone.push(member.handle);
                let end = member.task.await;
                if !is_explained(&self.fleet, stage, &end) {
                    result = result.and(outcome(&name, end));
                }
            }
        }
        result
    }
}

enum Finished {
    Live(usize),
    Leaving(usize),
}

impl GroupMembers {
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

    fn handles(&self) -> impl Iterator<Item = &ConsumerHandle> {
        let members = self.live.iter().chain(&self.leaving);
        members.map(|(_, member)| &member.handle).chain(&self.gone)
    }
}

fn outcome(name: &str, end: End) -> anyhow::Result<()> {
    match end {
        Ok(result) => result.map_err(|error| anyhow::anyhow!("{name} stopped: {error:?}")),
        Err(error) => Err(anyhow::anyhow!("{name} stopped: {error}")),
    }
}

/// Returns whether a member ended because its stream was deleted.
fn is_explained(fleet: &Fleet, stage: Stage, end: &End) -> bool {
    matches!(end, Ok(Err(error)) if fleet.recreation.explains(stage, error))
}
