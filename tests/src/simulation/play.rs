//! A run from its beginning to its end.

use std::sync::Arc;

use millstream::{ErrorKind, Result, Start, StreamSpec};
use tokio::task::JoinSet;

use super::crew::Crew;
use super::script::{CHAINED, DEAD_LETTERS, Script};
use super::world::World;
use super::{Report, end, sending, trouble, watch};
use crate::checker;
use crate::history::{Event, History};

pub(super) async fn play(script: Script) -> Report {
    let (history, mut complaints) = match World::new(&script) {
        Ok(world) => {
            let played = live(&world, &script).await;
            world.expect("set up", played);
            (world.history.clone(), world.complaints())
        }
        Err(error) => (History::new(), vec![format!("set up: {error:?}")]),
    };
    complaints.sort();
    complaints.dedup();
    Report {
        seed: script.seed,
        verdict: checker::check(&history.entries()),
        script,
        history,
        complaints,
    }
}

async fn live(world: &World, script: &Script) -> Result<()> {
    let streams = world.client.streams();
    for plan in &script.streams {
        let spec = StreamSpec::new(&*plan.name).partitions(plan.partitions);
        streams.create(spec).await?;
    }
    streams.create(StreamSpec::new(DEAD_LETTERS)).await?;
    streams
        .create(StreamSpec::new(CHAINED).partitions(3))
        .await?;
    let mut crews = Vec::new();
    for plan in &script.groups {
        crews.push(Arc::new(Crew::new(world, script, plan).await?));
    }
    let mut beginning = JoinSet::new();
    for crew in &crews {
        beginning.spawn(begin(crew.clone()));
    }
    let mut watching = JoinSet::new();
    for crew in &crews {
        let (world, group) = (world.clone(), crew.group.clone());
        watching.spawn(watch::watch(world, group, crew.plan.watch));
    }
    let mut sending = JoinSet::new();
    for (plan, number) in script.producers.iter().zip(0..) {
        let sent = sending::send_all(world.clone(), plan.clone(), number, script.seed);
        sending.spawn(sent);
    }
    trouble::all(world, script, &crews).await;
    while sending.join_next().await.is_some() {}
    while beginning.join_next().await.is_some() {}
    end::end(world, &crews, watching).await;
    Ok(())
}

/// Brings the first members of a group in, and records from when on it owes what is sent.
async fn begin(crew: Arc<Crew>) {
    let subscribed = |everything| {
        for stream in &crew.plan.streams {
            crew.world.record(Event::Subscribed {
                group: crew.plan.name.as_str().into(),
                stream: stream.as_str().into(),
                everything,
            });
        }
    };
    let everything = crew.plan.start == Start::Earliest;
    if everything {
        subscribed(true);
    }
    if !crew.plan.drains_fully() {
        crew.fault(None, "drains may be cut short");
    }
    tokio::time::sleep(crew.plan.begins).await;
    for _ in 0..crew.plan.members {
        crew.hire();
    }
    if everything {
        return;
    }
    loop {
        match crew.group.checkpoints().await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            _ => break,
        }
    }
    subscribed(false);
}
