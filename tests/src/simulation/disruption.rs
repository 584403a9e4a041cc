//! Applies the disruptions of a script at their times.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::{ErrorKind, Partition, Start};
use millstream_memory::Target;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::recreation::Recreation;
use super::script::{Disruption, ResetTo, Script};
use super::sim_group::SimGroup;
use super::world::World;
use crate::history::Event;

/// Applies all disruptions, and waits until they are over.
pub(super) async fn all(
    world: &World,
    script: &Script,
    sim_groups: &[Arc<SimGroup>],
    disruptions: &[(Duration, Disruption)],
) {
    let mut running = JoinSet::new();
    for (at, disruption) in disruptions {
        // After a restart, all are late.
        tokio::time::sleep_until(world.began + *at).await;
        apply(world, script, sim_groups, disruption, &mut running).await;
    }
    while running.join_next().await.is_some() {}
}

async fn apply(
    world: &World,
    script: &Script,
    sim_groups: &[Arc<SimGroup>],
    disruption: &Disruption,
    running: &mut JoinSet<()>,
) {
    let streams = world.client.streams();
    match *disruption {
        Disruption::Replace {
            group,
            pick,
            overlap,
        } => {
            let sim_group = sim_groups[group].clone();
            let left = sim_group.stop_member(pick);
            if overlap {
                sim_group.add_member();
            }
            running.spawn(async move {
                if let Some(left) = left {
                    let _ = left.await;
                }
                if !overlap {
                    sim_group.add_member();
                }
            });
        }
        Disruption::Join { group } => sim_groups[group].add_member(),
        Disruption::Leave { group, pick } => {
            if sim_groups[group].size() > 1 {
                if let Some(left) = sim_groups[group].stop_member(pick) {
                    running.spawn(async move { drop(left.await) });
                }
            }
        }
        Disruption::Crash {
            group,
            pick,
            back_after,
        } => {
            let sim_group = sim_groups[group].clone();
            drop(sim_group.kill_member(pick));
            running.spawn(async move {
                tokio::time::sleep(back_after).await;
                sim_group.add_member();
            });
        }
        Disruption::Disconnect { group, pick } => {
            if let Some(slot) = sim_groups[group].slot(pick) {
                slot.crashed();
                if let Some(name) = slot.mark_faulted() {
                    present(world, world.faults.crash(&Target::named(name)));
                }
            }
        }
        Disruption::Freeze { group, pick, lasts } => {
            freeze(world, &sim_groups[group], pick, lasts, script, running)
        }
        Disruption::Steal { group, pick } => {
            let sim_group = &sim_groups[group];
            let stream = &sim_group.plan.streams[pick % sim_group.plan.streams.len()];
            let partitions = partitions(world, stream, false).await;
            if let Some(pick) = pick.checked_rem(partitions.len()) {
                sim_group.fault(None, "a partition is stolen");
                let stolen = world.faults.steal(&sim_group.plan.name, &partitions[pick]);
                present(world, stolen);
                sim_group.heal();
            }
        }
        Disruption::Pause {
            group,
            pick,
            partition,
            lasts,
        } => {
            let control = sim_groups[group].slot(pick).and_then(|slot| slot.handle());
            if let Some(control) = control {
                let owned = control.partitions();
                let chosen = owned.into_keys().nth(pick % 3).filter(|_| partition);
                match &chosen {
                    Some(partition) => control.pause(partition),
                    None => control.pause_all(),
                }
                running.spawn(async move {
                    tokio::time::sleep(lasts).await;
                    match &chosen {
                        Some(partition) => control.resume(partition),
                        None => control.resume_all(),
                    }
                });
            }
        }
        Disruption::FailSends { sends, kind } => world.faults.fail_sends(sends, kind),
        Disruption::FailFor { lasts, kind } => world.faults.fail_for(lasts, kind),
        Disruption::DelaySends { sends, delay } => world.faults.delay_sends(sends, delay),
        Disruption::TimeOutSends { sends } => {
            world.record(Event::Fault {
                group: None,
                member: None,
                what: "sends are stored and time out".into(),
            });
            world.faults.time_out_sends(sends);
        }
        Disruption::LoseCheckpoints {
            checkpoints,
            stored: true,
        } => world.faults.lose_checkpoint_responses(checkpoints),
        Disruption::LoseCheckpoints {
            checkpoints,
            stored: false,
        } => world.faults.lose_checkpoints(checkpoints),
        Disruption::Split { stream, pick } => {
            let open = partitions(world, &script.streams[stream].name, true).await;
            if let Some(pick) = pick.checked_rem(open.len()) {
                let split = streams.split(&open[pick]);
                allowed(world, "split", split.await);
            }
        }
        Disruption::Merge {
            stream,
            pick,
            other,
        } => {
            let mut open = partitions(world, &script.streams[stream].name, true).await;
            let Some(pick) = pick.checked_rem(open.len()) else {
                return;
            };
            let one = open.swap_remove(pick);
            if let Some(other) = other.checked_rem(open.len()) {
                let merge = streams.merge(&one, &open[other]);
                allowed(world, "merge", merge.await);
            }
        }
        Disruption::AddPartitions { stream, more } => {
            let name = &*script.streams[stream].name;
            let Some(stream) = world.incarnations.current(name) else {
                return;
            };
            world.record(Event::Remapped { stream });
            let all = partitions(world, name, true).await.len() + more;
            let added = streams.add_partitions(name, all);
            allowed(world, "add partitions", added.await);
        }
        Disruption::Recreate {
            stream,
            partitions,
            absent,
            stopped,
        } => {
            let recreation = Recreation {
                stream: script.streams[stream].name.clone(),
                partitions,
                absent,
                stopped,
            };
            running.spawn(recreation.apply(world.clone(), sim_groups.to_vec()));
        }
        Disruption::Reset { group, pick, to } => {
            reset(world, &sim_groups[group], pick, to, running)
        }
    }
}

fn freeze(
    world: &World,
    sim_group: &Arc<SimGroup>,
    pick: usize,
    lasts: Duration,
    script: &Script,
    running: &mut JoinSet<()>,
) {
    let Some(slot) = sim_group.slot(pick) else {
        return;
    };
    let Some(name) = slot.mark_faulted() else {
        return;
    };
    if lasts >= script.session_timeout {
        sim_group.fault(Some(&name), "frozen");
    }
    present(world, world.faults.pause(&Target::named(name), lasts));
    sim_group.freeze();
    let (sim_group, until) = (sim_group.clone(), Instant::now() + lasts);
    running.spawn(async move {
        tokio::time::sleep_until(until).await;
        sim_group.thaw();
    });
}

fn reset(
    world: &World,
    sim_group: &Arc<SimGroup>,
    pick: usize,
    to: ResetTo,
    running: &mut JoinSet<()>,
) {
    let stream = sim_group.plan.streams[pick % sim_group.plan.streams.len()].clone();
    let skips = !matches!(to, ResetTo::Earliest);
    let to = match to {
        ResetTo::Earliest => Start::Earliest,
        ResetTo::Latest => Start::Latest,
        ResetTo::Ago(ago) => Start::At(world.time() - ago),
    };
    let (world, group) = (world.clone(), sim_group.group.clone());
    running.spawn(async move {
        let Some(name) = world.incarnations.current(&stream) else {
            return;
        };
        world.record(Event::Reset {
            group: group.name().into(),
            stream: name,
            skips,
        });
        match group.reset(&stream, to).await {
            Ok(()) => {}
            // The group was never joined yet, or the stream was deleted.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => world.report_problem(format!("reset: {error:?}")),
        }
    });
}

/// Returns the partitions of a stream, or only the open ones. Returns none while the stream is deleted.
async fn partitions(world: &World, stream: &str, open: bool) -> Vec<Partition> {
    if world.incarnations.current(stream).is_none() {
        return Vec::new();
    }
    let described = world.client.streams().describe(stream).await;
    let described = world.expect("describe", described);
    let partitions = described.into_iter().flat_map(|stream| stream.partitions);
    partitions
        .filter(|found| found.open || !open)
        .map(|found| found.partition)
        .collect()
}

/// Reports an error of a fault, unless it had no target.
fn present(world: &World, mark_faulted: millstream_core::Result<()>) {
    match mark_faulted {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            world.report_problem(format!("inject a fault: {error:?}"));
        }
        _ => {}
    }
}

/// Reports an error of a reshard, unless it was impossible: a partition may be as small as one hash.
fn allowed(world: &World, what: &str, done: millstream_core::Result<()>) {
    match done {
        Err(error) if error.kind() != ErrorKind::Invalid => {
            world.report_problem(format!("{what}: {error:?}"));
        }
        _ => {}
    }
}
