//! The end of a run: everything is settled, everybody leaves, and what is left is read.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::Result;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::crew::Crew;
use super::script::DEAD_LETTERS;
use super::world::World;
use super::{census, watch};
use crate::history::{Event, id_of};

/// After so much virtual time without an end, it is stuck.
const DEADLINE: Duration = Duration::from_secs(3 * 60 * 60);

pub(super) async fn end(
    world: &World,
    crews: &[Arc<Crew>],
    mut watching: JoinSet<()>,
    trims: bool,
) {
    world.faults.clear();
    for crew in crews {
        crew.heal();
        if crew.size() == 0 {
            crew.hire();
        }
    }
    let deadline = Instant::now() + DEADLINE;
    while !is_settled(world, crews).await {
        if Instant::now() > deadline {
            stuck(world, crews).await;
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // One who watches may be between asking and recording: it is not asked any more before the last
    // read.
    watching.shutdown().await;
    for crew in crews {
        while let Some(left) = crew.dismiss(0) {
            if timeout(DEADLINE, left).await.is_err() {
                world.complain(format!("a member of {} does not leave", crew.plan.name));
            }
        }
    }
    if !is_settled(world, crews).await {
        world.complain("the members left, and not everything is settled".into());
    }
    for crew in crews {
        watch::read(world, &crew.group).await;
        if let Some(chain) = &crew.chain {
            world.expect(
                "close the producer of the chain",
                chain.producer.close().await,
            );
            let entries = world.history.entries();
            for complaint in chain.judge(&crew.plan.name, trims, &entries) {
                world.complain(complaint);
            }
        }
    }
    let dug = dead_letters(world).await;
    world.expect("read the dead letters", dug);
}

/// Whether all groups have settled all that is stored.
async fn is_settled(world: &World, crews: &[Arc<Crew>]) -> bool {
    for crew in crews {
        let Some(read) = world.expect("read checkpoints", crew.group.checkpoints().await) else {
            return true;
        };
        if !read.iter().all(|found| found.lag.records == Some(0)) {
            return false;
        }
    }
    true
}

async fn stuck(world: &World, crews: &[Arc<Crew>]) {
    for crew in crews {
        let read = crew.group.checkpoints().await;
        for found in read.into_iter().flatten() {
            if found.lag.records != Some(0) {
                world.complain(format!(
                    "stuck: {} has {:?} records left in {} after {:?}, epoch {:?}",
                    crew.plan.name,
                    found.lag.records,
                    found.partition,
                    found.position.map(|position| position.to_string()),
                    found.epoch.map(|epoch| epoch.0),
                ));
            }
        }
    }
}

/// Records what is in the stream of dead letters.
async fn dead_letters(world: &World) -> Result<()> {
    for delivery in census::read_all(world, DEAD_LETTERS).await? {
        let group = delivery.headers().get("millstream-dead-group");
        match (group, id_of(delivery.payload())) {
            (Some(group), Some(id)) => world.record(Event::DeadLettered {
                group: String::from_utf8_lossy(group).into(),
                id,
            }),
            _ => world.complain(format!("a dead letter without a name: {delivery:?}")),
        }
    }
    Ok(())
}
