use std::time::Duration;

use millstream_core::{Checkpoint, ConsumerGroup, ErrorKind, Partition};

use super::world::World;
use crate::history::Event;

/// The maximum interval: while nothing changes, the interval grows up to this.
const MAX_INTERVAL: Duration = Duration::from_secs(2);

/// Reads the stored checkpoint of a group into the history periodically.
pub(super) async fn watch(world: World, group: ConsumerGroup, every: Duration) {
    let mut before = Vec::new();
    let mut wait = every;
    loop {
        tokio::time::sleep(wait).await;
        let read = read(&world, &group).await;
        let moved = |(one, other): (&Checkpoint, &Checkpoint)| {
            (one.position, one.epoch) != (other.position, other.epoch)
        };
        wait = match read.len() != before.len() || read.iter().zip(&before).any(moved) {
            true => every,
            false => (wait * 2).min(MAX_INTERVAL),
        };
        before = read;
    }
}

/// Reads it once. Returns nothing if the group was never joined.
pub(super) async fn read(world: &World, group: &ConsumerGroup) -> Vec<Checkpoint> {
    let version = world.incarnations.version();
    let read = match group.checkpoints().await {
        Ok(read) => read,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            world.report_problem(format!("read checkpoints: {error:?}"));
            Vec::new()
        }
    };
    if world.incarnations.version() != version {
        // It may belong to a deleted stream, or to the next one.
        return read;
    }
    for checkpoint in &read {
        let Checkpoint { partition, .. } = checkpoint;
        let Some(stream) = world.incarnations.current(partition.stream()) else {
            continue;
        };
        world.record(Event::Checkpointed {
            group: group.name().into(),
            partition: Partition::new(stream, partition.id()),
            position: checkpoint.position,
            epoch: checkpoint.epoch,
        });
    }
    read
}
