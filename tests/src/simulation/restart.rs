//! A broker that is stopped in the middle of a run, and goes on from its folder.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::{Checkpoint, Result, StreamDescription};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::crew::Crew;
use super::script::{DEAD_LETTERS, Script};
use super::watch;
use super::world::World;

/// After so much virtual time without an end, it is stuck.
const DEADLINE: Duration = Duration::from_secs(12 * 60 * 60);

/// Stops everybody and the broker, and answers the same fleet on the reopened broker, with nobody
/// hired yet.
pub(super) async fn restart(
    world: World,
    script: &Script,
    crews: Vec<Arc<Crew>>,
    mut watching: JoinSet<()>,
    abrupt: bool,
) -> Result<(World, Vec<Arc<Crew>>)> {
    world.faults.clear();
    watching.shutdown().await;
    let mut retired = Vec::new();
    for crew in crews {
        while let Some(left) = crew.stop(abrupt) {
            if timeout(DEADLINE, left).await.is_err() {
                world.complain(format!("a member of {} does not leave", crew.plan.name));
            }
        }
        let read = watch::read(&world, &crew.group).await;
        retired.push((crew.retire().await, read));
    }
    let described = describe(&world).await?;
    let world = world.reopen(script).await?;
    if describe(&world).await? != described {
        world.complain("the streams are not the same after a restart".into());
    }
    let mut crews = Vec::new();
    for (plan, (retired, read)) in script.groups.iter().zip(retired) {
        let crew = Crew::new(&world, script, plan, Some(retired)).await?;
        compare(&world, &read, &watch::read(&world, &crew.group).await);
        crews.push(Arc::new(crew));
    }
    Ok((world, crews))
}

async fn describe(world: &World) -> Result<Vec<StreamDescription>> {
    let streams = world.client.streams();
    let mut described = Vec::new();
    for name in streams.list().await? {
        // A member that was killed may still send a dead letter in the background.
        if name == DEAD_LETTERS {
            continue;
        }
        described.push(streams.describe(&name).await?);
    }
    Ok(described)
}

/// What was read before the broker stopped is what it tells again.
fn compare(world: &World, before: &[Checkpoint], after: &[Checkpoint]) {
    fn told(found: &Checkpoint) -> impl PartialEq + '_ {
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
    let same = |(before, after)| told(before) == told(after);
    if before.len() != after.len() || !before.iter().zip(after).all(same) {
        world.complain(format!(
            "progress is not the same after a restart: {before:?} became {after:?}"
        ));
    }
}
