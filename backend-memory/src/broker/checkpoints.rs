//! The stored progress of groups.

use std::time::Duration;

use millstream_core::{Checkpoint, Epoch, Lag, Position};
use tokio::time::Instant;

use super::BrokerState;
use super::fetch::lag;
use crate::ids::{GroupId, PartitionId, StreamId};

impl BrokerState {
    pub(crate) fn read_checkpoints(&mut self, group: GroupId, now: Instant) -> Vec<Checkpoint> {
        let read: Vec<StreamId> = self.groups[group].streams().collect();
        for stream in &read {
            self.trim_stream(*stream, now);
        }
        let millis = self.clock.millis(now);
        let streams = self.catalog.names().filter(|(_, id)| read.contains(id));
        let mut checkpoints = Vec::new();
        for (_, id) in streams {
            let Some(stream) = self.catalog.get(id) else {
                continue;
            };
            for (partition, number) in stream.partitions.iter().zip(0 as PartitionId..) {
                let progress = self.groups[group].progress((id, number));
                let is_gone = !partition.open && partition.log.is_empty();
                if progress.completed && is_gone {
                    continue;
                }
                let settled = progress
                    .commit_epoch
                    .and(progress.next_offset.checked_sub(1));
                let lag = match progress.completed {
                    true => Lag {
                        records: Some(0),
                        time: Some(Duration::ZERO),
                    },
                    false => lag(&partition.log, progress.next_offset, millis),
                };
                checkpoints.push(Checkpoint {
                    partition: partition.name.clone(),
                    position: settled.map(Position::from),
                    epoch: progress.commit_epoch.map(Epoch),
                    completed: progress.completed,
                    lag,
                });
            }
        }
        checkpoints
    }
}
