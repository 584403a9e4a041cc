//! The end of a run: everything is settled, all members leave, and the remaining records are read.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::sim_group::SimGroup;
use super::world::World;
use super::{dead_letters, watch};

/// The maximum virtual time until everything is settled.
const DEADLINE: Duration = Duration::from_secs(3 * 60 * 60);

pub(super) async fn end(
    world: &World,
    sim_groups: &[Arc<SimGroup>],
    mut watching: JoinSet<()>,
    trims: bool,
) {
    world.faults.clear();
    for sim_group in sim_groups {
        sim_group.heal();
        if sim_group.size() == 0 {
            sim_group.add_member();
        }
    }
    let deadline = Instant::now() + DEADLINE;
    while !is_settled(world, sim_groups).await {
        if Instant::now() > deadline {
            stuck(world, sim_groups).await;
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // A watching task may be between a read and its recording. It is stopped before the last
    // read.
    watching.shutdown().await;
    for sim_group in sim_groups {
        while let Some(left) = sim_group.stop_member(0) {
            if timeout(DEADLINE, left).await.is_err() {
                world.report_problem(format!(
                    "a member of {} does not leave",
                    sim_group.plan.name
                ));
            }
        }
    }
    if !is_settled(world, sim_groups).await {
        world.report_problem("the members left, and not everything is settled".into());
    }
    for sim_group in sim_groups {
        watch::read(world, &sim_group.group).await;
        if let Some(pipeline) = &sim_group.pipeline {
            world.expect(
                "close the producer of the pipeline",
                pipeline.producer.close().await,
            );
            let entries = world.history.entries();
            for problem in pipeline.check(&sim_group.plan.name, trims, &entries) {
                world.report_problem(problem);
            }
        }
    }
    for sim_group in sim_groups {
        let checked = dead_letters::check(world, sim_group).await;
        world.expect("read the dead letters", checked);
    }
}

/// Returns whether all groups have settled all stored records.
async fn is_settled(world: &World, sim_groups: &[Arc<SimGroup>]) -> bool {
    for sim_group in sim_groups {
        let Some(read) = world.expect("read checkpoints", sim_group.group.checkpoints().await)
        else {
            return true;
        };
        // A recreated stream has no progress until a member has joined with it.
        let has_joined = |stream: &String| {
            let mut read = read.iter();
            read.any(|found| found.partition.stream() == stream)
        };
        if !sim_group.plan.streams.iter().all(has_joined)
            || !read.iter().all(|found| found.lag.records == Some(0))
        {
            return false;
        }
    }
    true
}

async fn stuck(world: &World, sim_groups: &[Arc<SimGroup>]) {
    for sim_group in sim_groups {
        let read = sim_group.group.checkpoints().await;
        for found in read.into_iter().flatten() {
            if found.lag.records != Some(0) {
                world.report_problem(format!(
                    "stuck: {} has {:?} records left in {} after {:?}, epoch {:?}",
                    sim_group.plan.name,
                    found.lag.records,
                    found.partition,
                    found.position.map(|position| position.to_string()),
                    found.epoch.map(|epoch| epoch.0),
                ));
            }
        }
    }
}
