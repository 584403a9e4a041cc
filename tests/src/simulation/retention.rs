//! What retention has taken away, and whether the groups were told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream_core::{Partition, Position};

use super::crew::Crew;
use super::world::World;
use crate::history::{Entry, Event};

/// Records what is trimmed: nobody owes that any more. Complains of what a group passed over
/// without a word.
pub(super) async fn judge(world: &World, crews: &[Arc<Crew>]) {
    let entries = world.history.entries();
    let known = places(&entries);
    for crew in crews {
        let (gaps, jumps) = (gaps(&crew.plan.name, &entries, &known), crew.jumps());
        // What an owner had settled behind an unsettled record makes two gaps of one jump.
        let least = match disturbed(&crew.plan.name, &entries) {
            true => gaps.len().min(1),
            false => gaps.len(),
        };
        if least as u64 > jumps {
            world.complain(format!(
                "{} passed over {gaps:?}, and told of {jumps} jumps",
                crew.plan.name
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

/// Whether something befell a member of the group.
fn disturbed(name: &str, entries: &[Entry]) -> bool {
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

/// The first record of each gap in what a group has settled, after its first record of the
/// partition.
fn gaps<'a>(group: &str, entries: &'a [Entry], known: &Places<'a>) -> Vec<(&'a Partition, String)> {
    let mut begun = Places::new();
    let mut settled = Places::new();
    let mut reset = BTreeSet::new();
    for Entry { event, .. } in entries {
        match event {
            Event::Began(handling) if *handling.by.group == *group => {
                let begun = begun.entry(&handling.by.partition).or_default();
                begun.insert(handling.position);
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
    for (partition, begun) in begun {
        let (Some(first), false) = (begun.first(), reset.contains(partition.stream())) else {
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
