//! Stops the broker in the middle of a run, and reopens it from its folder.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::{Checkpoint, Result, StreamDescription};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::script::{DEAD_LETTERS, Script};
use super::sim_group::SimGroup;
use super::watch;
use super::world::World;

/// The maximum virtual time that a member may take to leave.
const DEADLINE: Duration = Duration::from_secs(12 * 60 * 60);

/// Stops all members and the broker, and returns the same groups on the reopened broker, without members.
pub(super) async fn restart(
    world: World,
    script: &Script,
    sim_groups: Vec<Arc<SimGroup>>,
    mut watching: JoinSet<()>,
    abrupt: bool,
) -> Result<(World, Vec<Arc<SimGroup>>)> {
    world.faults.clear();
    watching.shutdown().await;
    let mut group_state = Vec::new();
    for sim_group in sim_groups {
        while let Some(left) = sim_group.stop(abrupt) {
            if timeout(DEADLINE, left).await.is_err() {
                world.report_problem(format!(
                    "a member of {} does not leave",
                    sim_group.plan.name
                ));
            }
        }
        let read = watch::read(&world, &sim_group.group).await;
        group_state.push((sim_group.close().await, read));
    }
    let described = describe(&world).await?;
    let world = world.reopen(script).await?;
    if describe(&world).await? != described {
        world.report_problem("the streams are not the same after a restart".into());
    }
    let mut sim_groups = Vec::new();
    for (plan, (group_state, read)) in script.groups.iter().zip(group_state) {
        let sim_group = SimGroup::new(&world, script, plan, Some(group_state)).await?;
        compare(&world, &read, &watch::read(&world, &sim_group.group).await);
        sim_groups.push(Arc::new(sim_group));
    }
    Ok((world, sim_groups))
}

async fn describe(world: &World) -> Result<Vec<StreamDescription>> {
    let streams = world.client.streams();
    let mut described = Vec::new();
    for name in streams.list().await? {
        // A killed member may still send a dead letter in the background.
        if name.starts_with(DEAD_LETTERS) {
            continue;
        }
        described.push(streams.describe(&name).await?);
    }
    Ok(described)
}

/// Checks that the checkpoints are the same as before the broker stopped.
fn compare(world: &World, before: &[Checkpoint], after: &[Checkpoint]) {
    fn reported(found: &Checkpoint) -> impl PartialEq + '_ {
        let Checkpoint {
            partition,
            position,
            epoch,
            completed,
            lag,
            ..
        } = found;
        (partition, position, epoch, completed, lag.records)
    }
    let same = |(before, after)| reported(before) == reported(after);
    if before.len() != after.len() || !before.iter().zip(after).all(same) {
        world.report_problem(format!(
            "progress is not the same after a restart: {before:?} became {after:?}"
        ));
    }
}
