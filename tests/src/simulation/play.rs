//! A run from its beginning to its end.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::{ErrorKind, Result, Start, StreamSpec};
use tokio::task::JoinSet;

use super::crew::Crew;
use super::script::{CHAINED, DEAD_LETTERS, Script, Trouble};
use super::sending::{Life, Sender};
use super::world::{Complaints, World};
use super::{Report, census, end, restart, retention, trouble, watch};
use crate::checker;
use crate::history::{Event, History};

pub(super) async fn play(script: Script) -> Report {
    let (history, complaints) = (History::new(), Complaints::default());
    if let Err(error) = live(&script, &history, &complaints).await {
        complaints.add(format!("set up: {error:?}"));
    }
    Report {
        seed: script.seed,
        verdict: checker::check(&history.entries()),
        script,
        history,
        complaints: complaints.sorted(),
    }
}

async fn live(script: &Script, history: &History, complaints: &Complaints) -> Result<()> {
    let mut world = World::new(script, history, complaints)?;
    let streams = world.client.streams();
    for plan in &script.streams {
        let spec = StreamSpec::new(&*plan.name).partitions(plan.partitions);
        streams.create(spec).await?;
    }
    streams.create(StreamSpec::new(DEAD_LETTERS)).await?;
    streams
        .create(StreamSpec::new(CHAINED).partitions(3))
        .await?;
    drop(streams);
    let mut crews = Vec::new();
    for plan in &script.groups {
        crews.push(Arc::new(Crew::new(&world, script, plan, None).await?));
    }
    let mut beginning = JoinSet::new();
    for crew in &crews {
        beginning.spawn(begin(crew.clone()));
    }
    let mut senders: Vec<Sender> = (0..)
        .zip(&script.producers)
        .map(|(number, plan)| Sender::new(&world, plan, number, script.seed))
        .collect();
    let mut troubles = &script.troubles[..];
    if let Some(abrupt) = script.restart {
        let (first, second) = troubles.split_at(troubles.len() / 2);
        troubles = second;
        let watching = watch(&world, &crews);
        senders = phase(&world, script, &crews, senders, first).await;
        while beginning.join_next().await.is_some() {}
        (world, crews) = restart::restart(world, script, crews, watching, abrupt).await?;
        for crew in &crews {
            crew.hire_all();
        }
    }
    let watching = watch(&world, &crews);
    senders = phase(&world, script, &crews, senders, troubles).await;
    while beginning.join_next().await.is_some() {}
    end::end(&world, &crews, watching, script.retention.is_some()).await;
    if script.retention.is_some() {
        // What nobody read may be gone.
        retention::judge(&world, &crews).await;
        return Ok(());
    }
    let lives: Vec<Life> = senders
        .into_iter()
        .flat_map(|sender| sender.lives)
        .collect();
    census::unread(&world, &lives, script.disturbs_sends()).await
}

fn watch(world: &World, crews: &[Arc<Crew>]) -> JoinSet<()> {
    let mut watching = JoinSet::new();
    for crew in crews {
        let (world, group) = (world.clone(), crew.group.clone());
        watching.spawn(watch::watch(world, group, crew.plan.watch));
    }
    watching
}

/// Sends what is due in one life of the broker, and brings about `troubles`.
async fn phase(
    world: &World,
    script: &Script,
    crews: &[Arc<Crew>],
    senders: Vec<Sender>,
    troubles: &[(Duration, Trouble)],
) -> Vec<Sender> {
    let phases = 1 + u64::from(script.restart.is_some());
    let sending = senders
        .into_iter()
        .map(|sender| tokio::spawn(sender.send(world.clone(), phases)));
    let sending: Vec<_> = sending.collect();
    trouble::all(world, script, crews, troubles).await;
    let mut senders = Vec::new();
    for sent in sending {
        match sent.await {
            Ok(sender) => senders.push(sender),
            Err(error) => world.complain(format!("sending: {error}")),
        }
    }
    senders
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
    crew.hire_all();
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
