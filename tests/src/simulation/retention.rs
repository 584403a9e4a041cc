//! Checks the records that retention has removed, and the reports to the groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream_core::{Partition, Position};

use super::sim_group::SimGroup;
use super::world::World;
use crate::history::{Entry, Event};

/// Records the trimmed records, which groups need not settle. Reports records that a group skipped without
/// reporting a data loss.
pub(super) async fn check(world: &World, sim_groups: &[Arc<SimGroup>]) {
    let entries = world.history.entries();
    let known = places(&entries);
    for sim_group in sim_groups {
        let (gaps, data_losses) = (
            gaps(&sim_group.plan.name, &entries, &known),
            sim_group.data_losses(),
        );
        // Records that an owner had settled after an unsettled record split one jump into two gaps.
        let least = match was_faulted(&sim_group.plan.name, &entries) {
            true => gaps.len().min(1),
            false => gaps.len(),
        };
        if least as u64 > data_losses {
            world.report_problem(format!(
                "{} passed over {gaps:?}, and reported {data_losses} data losses",
                sim_group.plan.name
            ));
        }
    }
    let streams: BTreeSet<&str> = known.keys().map(|partition| partition.stream()).collect();
    for stream in streams {
        let described = world.client.streams().describe(stream).await;
        let Some(described) = world.expect("describe", described) else {
            continue;
        };
        for found in described.partitions {
            if let Some(earliest) = found.earliest {
                world.record(Event::DataLoss {
                    partition: found.partition,
                    earliest,
                });
            }
        }
    }
}

/// Returns whether a fault was injected into a member of the group.
fn was_faulted(name: &str, entries: &[Entry]) -> bool {
    entries.iter().any(|entry| match &entry.event {
        Event::Crashed { group, .. }
        | Event::Fault {
            group: Some(group), ..
        } => **group == *name,
        _ => false,
    })
}

type Places<'a> = BTreeMap<&'a Partition, BTreeSet<Position>>;

fn places(entries: &[Entry]) -> Places<'_> {
    let mut places = Places::new();
    for Entry { event, .. } in entries {
        let (partition, position) = match event {
            Event::Acknowledged {
                partition,
                position,
                ..
            } => (partition, *position),
            Event::Began(handling) => (&handling.by.partition, handling.position),
            _ => continue,
        };
        places.entry(partition).or_default().insert(position);
    }
    places
}

/// Returns the first record of each gap in the records that a group has settled, after its first record of the
/// partition.
fn gaps<'a>(group: &str, entries: &'a [Entry], known: &Places<'a>) -> Vec<(&'a Partition, String)> {
    let mut started = Places::new();
    let mut settled = Places::new();
    let mut reset = BTreeSet::new();
    for Entry { event, .. } in entries {
        match event {
            Event::Began(handling) if *handling.by.group == *group => {
                let started = started.entry(&handling.by.partition).or_default();
                started.insert(handling.position);
            }
            Event::Ended { handling, outcome }
                if *handling.by.group == *group && outcome.settles() =>
            {
                let settled = settled.entry(&handling.by.partition).or_default();
                settled.insert(handling.position);
            }
            Event::Reset {
                group: moved,
                stream,
                ..
            } if **moved == *group => {
                reset.insert(&**stream);
            }
            _ => {}
        }
    }
    let mut gaps = Vec::new();
    for (partition, started) in started {
        let (Some(first), false) = (started.first(), reset.contains(partition.stream())) else {
            continue;
        };
        let settled = settled.remove(partition).unwrap_or_default();
        let mut within = false;
        for position in known[partition].range(first..) {
            let missing = !settled.contains(position);
            if missing && !within {
                gaps.push((partition, position.to_string()));
            }
            within = missing;
        }
    }
    gaps
}
