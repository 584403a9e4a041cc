//! One run from start to end.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::{Result, Start, StreamSpec};
use tokio::task::JoinSet;

use super::recreation::subscribed_from_now;
use super::script::{Disruption, PIPELINE_OUTPUT, Script};
use super::sending::{ProducerRun, Sender};
use super::sim_group::SimGroup;
use super::world::{Problems, World};
use super::{Report, disruption, end, restart, retention, stream_contents, watch};
use crate::checker;
use crate::history::History;

pub(super) async fn run(script: Script) -> Report {
    let (history, problems) = (History::new(), Problems::default());
    if let Err(error) = live(&script, &history, &problems).await {
        problems.add(format!("set up: {error:?}"));
    }
    Report {
        seed: script.seed,
        verdict: checker::check(&history.entries()),
        script,
        history,
        problems: problems.sorted(),
    }
}

async fn live(script: &Script, history: &History, problems: &Problems) -> Result<()> {
    let mut world = World::new(script, history, problems)?;
    let streams = world.client.streams();
    for plan in &script.streams {
        let spec = StreamSpec::new(&*plan.name).partitions(plan.partitions);
        streams.create(spec).await?;
    }
    for plan in &script.groups {
        streams.create(StreamSpec::new(plan.dead_letters())).await?;
    }
    streams
        .create(StreamSpec::new(PIPELINE_OUTPUT).partitions(3))
        .await?;
    drop(streams);
    let mut sim_groups = Vec::new();
    for plan in &script.groups {
        sim_groups.push(Arc::new(SimGroup::new(&world, script, plan, None).await?));
    }
    let mut beginning = JoinSet::new();
    for sim_group in &sim_groups {
        beginning.spawn(begin(sim_group.clone()));
    }
    let mut senders: Vec<Sender> = (0..)
        .zip(&script.producers)
        .map(|(number, plan)| Sender::new(&world, script, plan, number))
        .collect();
    let mut disruptions = &script.disruptions[..];
    if let Some(abrupt) = script.restart {
        let (first, second) = disruptions.split_at(disruptions.len() / 2);
        disruptions = second;
        let watching = watch(&world, &sim_groups);
        senders = phase(&world, script, &sim_groups, senders, first).await;
        while beginning.join_next().await.is_some() {}
        (world, sim_groups) = restart::restart(world, script, sim_groups, watching, abrupt).await?;
        for sim_group in &sim_groups {
            sim_group.add_planned_members();
        }
    }
    let watching = watch(&world, &sim_groups);
    senders = phase(&world, script, &sim_groups, senders, disruptions).await;
    while beginning.join_next().await.is_some() {}
    end::end(&world, &sim_groups, watching, script.retention.is_some()).await;
    if script.retention.is_some() {
        // Records that nobody read may be removed.
        retention::check(&world, &sim_groups).await;
        return Ok(());
    }
    let runs: Vec<ProducerRun> = senders.into_iter().flat_map(|sender| sender.runs).collect();
    stream_contents::unread(&world, &runs, script.has_send_faults()).await
}

fn watch(world: &World, sim_groups: &[Arc<SimGroup>]) -> JoinSet<()> {
    let mut watching = JoinSet::new();
    for sim_group in sim_groups {
        let (world, group) = (world.clone(), sim_group.group.clone());
        watching.spawn(watch::watch(world, group, sim_group.plan.watch));
    }
    watching
}

/// Sends the planned records until the broker is stopped, and applies `disruptions`.
async fn phase(
    world: &World,
    script: &Script,
    sim_groups: &[Arc<SimGroup>],
    senders: Vec<Sender>,
    disruptions: &[(Duration, Disruption)],
) -> Vec<Sender> {
    let phases = 1 + u64::from(script.restart.is_some());
    let sending = senders
        .into_iter()
        .map(|sender| tokio::spawn(sender.send(world.clone(), phases)));
    let sending: Vec<_> = sending.collect();
    disruption::all(world, script, sim_groups, disruptions).await;
    let mut senders = Vec::new();
    for sent in sending {
        match sent.await {
            Ok(sender) => senders.push(sender),
            Err(error) => world.report_problem(format!("sending: {error}")),
        }
    }
    senders
}

/// Adds the first members of a group, and records the time from which the group must settle records.
async fn begin(sim_group: Arc<SimGroup>) {
    let everything = sim_group.plan.start == Start::Earliest;
    if everything {
        for stream in &sim_group.plan.streams {
            sim_group.subscribed(stream.as_str().into(), true);
        }
    }
    if !sim_group.plan.drains_fully() {
        sim_group.fault(None, "drains may be cut short");
    }
    tokio::time::sleep(sim_group.plan.begins).await;
    sim_group.add_planned_members();
    if !everything {
        for stream in &sim_group.plan.streams {
            subscribed_from_now(&sim_group, stream).await;
        }
    }
}
