//! Streams that are deleted, and recreated after a while, under groups and producers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use millstream_core::{ErrorKind, Start, StreamSpec};
use tokio::time::Instant;

use super::sim_group::SimGroup;
use super::world::World;
use crate::history::Event;

/// The initial interval of polling a condition. It doubles up to the maximum.
const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_millis(500);

/// The maximum virtual time until the members of a group have detected the deletion, and have rejoined.
const DEADLINE: Duration = Duration::from_secs(3 * 60 * 60);

/// The recreation of a stream.
pub(super) struct Recreation {
    pub(super) stream: String,
    /// The partitions of the next stream.
    pub(super) partitions: usize,
    /// The time until it is recreated.
    pub(super) absent: Duration,
    /// Whether the groups that read it have no members meanwhile.
    pub(super) stopped: bool,
}

impl Recreation {
    pub(super) async fn apply(self, world: World, sim_groups: Vec<Arc<SimGroup>>) {
        let readers = sim_groups.into_iter();
        let readers = readers.filter(|sim_group| sim_group.reads(&self.stream));
        let readers: Vec<Arc<SimGroup>> = readers.collect();
        if self.stopped {
            stop_all(&readers).await;
        }
        // Otherwise the previous recreation is not complete yet.
        if world.incarnations.current(&self.stream).is_some() {
            let memberships: Vec<_> = readers.iter().map(|it| it.memberships.names()).collect();
            self.recreate(&world, &readers).await;
            for (sim_group, ended) in readers.iter().zip(memberships) {
                self.noticed(&world, sim_group, &ended).await;
            }
        }
        for sim_group in &readers {
            if self.stopped {
                sim_group.add_planned_members();
            }
            if sim_group.plan.start != Start::Earliest {
                subscribed_from_now(sim_group, &self.stream).await;
            }
        }
    }

    async fn recreate(&self, world: &World, readers: &[Arc<SimGroup>]) {
        for sim_group in readers {
            // Its memberships end without a drain, also in its other streams.
            sim_group.fault(None, "a stream is deleted");
        }
        let (deleted, next) = world.incarnations.delete(&self.stream);
        world.record(Event::Deleted {
            stream: deleted,
            next: next.clone(),
        });
        for sim_group in readers {
            if sim_group.plan.start == Start::Earliest {
                sim_group.subscribed(next.clone(), true);
            }
        }
        let streams = world.client.streams();
        world.expect("delete", streams.delete(&self.stream).await);
        tokio::time::sleep(self.absent).await;
        let spec = StreamSpec::new(&*self.stream).partitions(self.partitions);
        world.expect("create again", streams.create(spec).await);
        world.incarnations.created(&self.stream);
    }

    /// Waits until the members at the time of the deletion have ended.
    async fn noticed(&self, world: &World, sim_group: &SimGroup, members: &BTreeSet<String>) {
        let mut wait = Wait::new();
        while sim_group.memberships.has_any(members) && wait.goes_on().await {}
        if wait.is_over() {
            let (group, stream) = (&sim_group.plan.name, &self.stream);
            world.report_problem(format!("a member of {group} reads on in {stream}"));
        }
        sim_group.heal();
    }
}

async fn stop_all(sim_groups: &[Arc<SimGroup>]) {
    for sim_group in sim_groups {
        while let Some(left) = sim_group.stop_member(0) {
            // Only an aborted task fails.
            let _ = left.await;
        }
    }
}

/// Waits until a group has joined with a stream and so has stored its start, and records that it must
/// settle records that are sent from now on.
pub(super) async fn subscribed_from_now(sim_group: &SimGroup, stream: &str) {
    let mut wait = Wait::new();
    while wait.goes_on().await {
        let read = match sim_group.group.checkpoints().await {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            read => read.unwrap_or_default(),
        };
        let has_joined = read.iter().any(|found| found.partition.stream() == stream);
        let name = sim_group.world.incarnations.current(stream);
        if let Some(name) = name.filter(|_| has_joined) {
            sim_group.subscribed(name, false);
            return;
        }
    }
    let group = &sim_group.plan.name;
    let problem = format!("{group} does not join with {stream}");
    sim_group.world.report_problem(problem);
}

/// A wait that polls a condition.
struct Wait {
    deadline: Instant,
    tick: Duration,
}

impl Wait {
    fn new() -> Self {
        Self {
            deadline: Instant::now() + DEADLINE,
            tick: SHORT,
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() > self.deadline
    }

    /// Waits until the next poll of the condition. Returns `false` when it took too long.
    async fn goes_on(&mut self) -> bool {
        tokio::time::sleep(self.tick).await;
        self.tick = (self.tick * 2).min(LONG);
        !self.is_over()
    }
}
