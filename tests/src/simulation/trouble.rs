//! What befalls the fleet, when its time has come.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::{ErrorKind, Partition, Start};
use millstream_memory::Target;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::crew::Crew;
use super::script::{ResetTo, Script, Trouble};
use super::world::World;
use crate::history::Event;

/// Brings about all troubles, and waits until they are over.
pub(super) async fn all(
    world: &World,
    script: &Script,
    crews: &[Arc<Crew>],
    troubles: &[(Duration, Trouble)],
) {
    let mut under_way = JoinSet::new();
    for (at, trouble) in troubles {
        // After a restart all are late.
        tokio::time::sleep_until(world.began + *at).await;
        befall(world, script, crews, trouble, &mut under_way).await;
    }
    while under_way.join_next().await.is_some() {}
}

async fn befall(
    world: &World,
    script: &Script,
    crews: &[Arc<Crew>],
    trouble: &Trouble,
    under_way: &mut JoinSet<()>,
) {
    let streams = world.client.streams();
    match *trouble {
        Trouble::Replace {
            group,
            pick,
            overlap,
        } => {
            let crew = crews[group].clone();
            let left = crew.dismiss(pick);
            if overlap {
                crew.hire();
            }
            under_way.spawn(async move {
                if let Some(left) = left {
                    let _ = left.await;
                }
                if !overlap {
                    crew.hire();
                }
            });
        }
        Trouble::Join { group } => crews[group].hire(),
        Trouble::Leave { group, pick } => {
            if crews[group].size() > 1 {
                if let Some(left) = crews[group].dismiss(pick) {
                    under_way.spawn(async move { drop(left.await) });
                }
            }
        }
        Trouble::Crash {
            group,
            pick,
            back_after,
        } => {
            let crew = crews[group].clone();
            drop(crew.kill(pick));
            under_way.spawn(async move {
                tokio::time::sleep(back_after).await;
                crew.hire();
            });
        }
        Trouble::Disconnect { group, pick } => {
            if let Some(seat) = crews[group].seat(pick) {
                seat.crashed();
                if let Some(name) = seat.hit() {
                    present(world, world.faults.crash(&Target::named(name)));
                }
            }
        }
        Trouble::Freeze { group, pick, lasts } => {
            freeze(world, &crews[group], pick, lasts, script, under_way)
        }
        Trouble::Steal { group, pick } => {
            let crew = &crews[group];
            let stream = &crew.plan.streams[pick % crew.plan.streams.len()];
            let partitions = partitions(world, stream, false).await;
            crew.fault(None, "a partition is stolen");
            let partition = &partitions[pick % partitions.len()];
            present(world, world.faults.steal(&crew.plan.name, partition));
            crew.heal();
        }
        Trouble::Pause {
            group,
            pick,
            partition,
            lasts,
        } => {
            let control = crews[group].seat(pick).and_then(|seat| seat.handle());
            if let Some(control) = control {
                let owned = control.partitions();
                let chosen = owned.into_keys().nth(pick % 3).filter(|_| partition);
                control.pause(chosen.as_ref());
                under_way.spawn(async move {
                    tokio::time::sleep(lasts).await;
                    control.resume(chosen.as_ref());
                });
            }
        }
        Trouble::FailSends { sends, kind } => world.faults.fail_sends(sends, kind),
        Trouble::FailFor { lasts, kind } => world.faults.fail_for(lasts, kind),
        Trouble::DelaySends { sends, delay } => world.faults.delay_sends(sends, delay),
        Trouble::TimeOutSends { sends } => {
            world.record(Event::Fault {
                group: None,
                member: None,
                what: "sends are stored and not answered".into(),
            });
            world.faults.time_out_sends(sends);
        }
        Trouble::LoseCheckpoints {
            checkpoints,
            stored: true,
        } => world.faults.lose_checkpoint_responses(checkpoints),
        Trouble::LoseCheckpoints {
            checkpoints,
            stored: false,
        } => world.faults.lose_checkpoints(checkpoints),
        Trouble::Split { stream, pick } => {
            let open = partitions(world, &script.streams[stream].name, true).await;
            let split = streams.split(&open[pick % open.len()]);
            allowed(world, "split", split.await);
        }
        Trouble::Merge {
            stream,
            pick,
            other,
        } => {
            let mut open = partitions(world, &script.streams[stream].name, true).await;
            let one = open.swap_remove(pick % open.len());
            if let Some(other) = other.checked_rem(open.len()) {
                let merge = streams.merge(&one, &open[other]);
                allowed(world, "merge", merge.await);
            }
        }
        Trouble::AddPartitions { stream, more } => {
            let name = &*script.streams[stream].name;
            world.record(Event::Remapped {
                stream: name.into(),
            });
            let all = partitions(world, name, true).await.len() + more;
            let added = streams.add_partitions(name, all);
            allowed(world, "add partitions", added.await);
        }
        Trouble::Reset { group, pick, to } => reset(world, &crews[group], pick, to, under_way),
    }
}

fn freeze(
    world: &World,
    crew: &Arc<Crew>,
    pick: usize,
    lasts: Duration,
    script: &Script,
    under_way: &mut JoinSet<()>,
) {
    let Some(seat) = crew.seat(pick) else {
        return;
    };
    let Some(name) = seat.hit() else {
        return;
    };
    if lasts >= script.session_timeout {
        crew.fault(Some(&name), "frozen");
    }
    present(world, world.faults.pause(&Target::named(name), lasts));
    crew.freeze();
    let (crew, until) = (crew.clone(), Instant::now() + lasts);
    under_way.spawn(async move {
        tokio::time::sleep_until(until).await;
        crew.thaw();
    });
}

fn reset(world: &World, crew: &Arc<Crew>, pick: usize, to: ResetTo, under_way: &mut JoinSet<()>) {
    let stream = crew.plan.streams[pick % crew.plan.streams.len()].clone();
    world.record(Event::Reset {
        group: crew.plan.name.as_str().into(),
        stream: stream.as_str().into(),
        skips: !matches!(to, ResetTo::Earliest),
    });
    let to = match to {
        ResetTo::Earliest => Start::Earliest,
        ResetTo::Latest => Start::Latest,
        ResetTo::Ago(ago) => Start::At(world.time() - ago),
    };
    let (world, group) = (world.clone(), crew.group.clone());
    under_way.spawn(async move {
        match group.reset(&stream, to).await {
            Ok(()) => {}
            // The group was never joined yet.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => world.complain(format!("reset: {error:?}")),
        }
    });
}

/// The partitions of a stream, or the open ones of them.
async fn partitions(world: &World, stream: &str, open: bool) -> Vec<Partition> {
    let described = world.client.streams().describe(stream).await;
    let described = world.expect("describe", described);
    let partitions = described.into_iter().flat_map(|stream| stream.partitions);
    partitions
        .filter(|found| found.open || !open)
        .map(|found| found.partition)
        .collect()
}

/// A fault that finds nobody to hit is none.
fn present(world: &World, hit: millstream_core::Result<()>) {
    match hit {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            world.complain(format!("inject a fault: {error:?}"));
        }
        _ => {}
    }
}

/// A reshard that cannot be is none: a partition may be as small as one hash.
fn allowed(world: &World, what: &str, done: millstream_core::Result<()>) {
    match done {
        Err(error) if error.kind() != ErrorKind::Invalid => {
            world.complain(format!("{what}: {error:?}"));
        }
        _ => {}
    }
}
