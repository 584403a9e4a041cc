//! Reads the remaining records of the streams at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millstream_core::{Delivery, Partition, Position, Result};
use tokio::time::{Instant, timeout};

use super::sending::ProducerRun;
use super::world::World;
use crate::history::{Event, id_of_delivery};

/// The maximum virtual time that reading a stream may take.
const DEADLINE: Duration = Duration::from_secs(3 * 60 * 60);

/// Finds the records whose receipts were dropped unread. A record that is neither stored nor reported as failed was
/// lost silently. A stored one must be settled by the groups like any other.
pub(super) async fn unread(world: &World, runs: &[ProducerRun], send_faults: bool) -> Result<()> {
    let streams: BTreeSet<&str> = runs
        .iter()
        .filter(|run| !run.unread.is_empty())
        .map(|run| &*run.stream)
        .collect();
    let mut places: BTreeMap<u64, (Partition, Position)> = BTreeMap::new();
    for stream in streams {
        for delivery in read_all(world, stream).await? {
            if let Some(id) = id_of_delivery(&delivery) {
                let place = || (delivery.partition().clone(), delivery.position());
                places.entry(id).or_insert_with(place);
            }
        }
    }
    for run in runs {
        if world.incarnations.current(&run.stream).as_ref() != Some(&run.name) {
            // Stored records were deleted with the stream, and none of them is in the next one.
            for id in run.unread.iter().filter(|id| places.contains_key(id)) {
                world.report_problem(format!("record {id} of {} is in the next stream", run.name));
            }
            continue;
        }
        let mut missing = Vec::new();
        for id in &run.unread {
            match places.remove(id) {
                Some((partition, position)) => world.record(Event::Acknowledged {
                    id: *id,
                    partition: Partition::new(run.name.clone(), partition.id()),
                    position,
                }),
                None => missing.push(id),
            }
        }
        let excused = match run.reported {
            Some(reported) => missing.len() as u64 <= reported,
            // A dropped producer only logs.
            None => send_faults || missing.is_empty(),
        };
        if !excused {
            world.report_problem(format!(
                "of {} failed records were reported {:?}, but these are not stored: {missing:?}",
                run.stream, run.reported
            ));
        }
    }
    Ok(())
}

/// Reads all records of a stream, each partition in its order and parents before children.
pub(super) async fn read_all(world: &World, stream: &str) -> Result<Vec<Delivery>> {
    let group = world.client.group(format!("reader-of-{stream}"));
    let group = group.stream(stream);
    let mut consumer = group.join().await?;
    let deadline = Instant::now() + DEADLINE;
    let mut read = Vec::new();
    while group
        .checkpoints()
        .await?
        .iter()
        .any(|found| found.lag.records != Some(0))
    {
        let Ok(next) = timeout(Duration::from_secs(2), consumer.next()).await else {
            if Instant::now() > deadline {
                world.report_problem(format!("{stream} cannot be read"));
                break;
            }
            continue;
        };
        let Some(delivery) = next? else { break };
        read.push((*delivery).clone());
        delivery.ack();
    }
    consumer.close().await?;
    Ok(read)
}
