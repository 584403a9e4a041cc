//! The stored progress of one group.

use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::{Checkpoint, Epoch, Lag, Position, Result, Start, driver};
use tokio::time::{Instant, timeout_at};

use crate::broker::{Shared, State};
use crate::ids::{GroupId, PartitionId, StreamId};
use crate::refusal::Refusal;
use crate::session::lag;

#[derive(Debug)]
pub(crate) struct Checkpoints {
    pub(crate) shared: Arc<Shared>,
    pub(crate) group: Arc<str>,
}

#[async_trait]
impl driver::Checkpoints for Checkpoints {
    async fn read(&self) -> Result<Vec<Checkpoint>> {
        let read = self.shared.with(|state, now| {
            let group = state.group_id(&self.group)?;
            Ok(state.read_checkpoints(group, now))
        });
        read.map_err(|refusal: Refusal| {
            refusal
                .during("read checkpoints")
                .with_group(self.group.clone())
        })
    }

    /// A dropped call leaves the reset under way: the coordinator ends it when the stream is
    /// drained.
    async fn reset(&self, stream: &str, to: Start) -> Result<()> {
        let error = |refusal: Refusal| {
            refusal
                .during("reset")
                .with_group(self.group.clone())
                .with_stream(stream)
        };
        let begun = self.shared.with(|state, now| {
            let group = state.group_id(&self.group)?;
            let stream = state.catalog.id(stream)?;
            let places = state.places(stream, to, now);
            let number = state.groups[group].begin_reset(stream, places, now);
            Ok((
                group,
                stream,
                number,
                state.groups[group].reset_done.clone(),
            ))
        });
        let (group, stream_id, number, done) = begun.map_err(error)?;
        loop {
            // Made before looking, so that it hears of everything that happens after the look.
            let notified = done.notified();
            let (outcome, until) = self.shared.with(|state, _| {
                let outcome = state.groups[group].reset_outcome(stream_id, number);
                (outcome, state.deadline(group))
            });
            match (outcome, until) {
                (Some(outcome), _) => return outcome.map_err(error),
                (None, None) => notified.await,
                (None, Some(until)) => {
                    // Whether told or late: look again.
                    let _ = timeout_at(until, notified).await;
                }
            }
        }
    }
}

impl State {
    fn read_checkpoints(&mut self, group: GroupId, now: Instant) -> Vec<Checkpoint> {
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
                let gone = !partition.open && partition.log.is_empty();
                if progress.completed && gone {
                    continue;
                }
                let settled = progress.written.and(progress.next.checked_sub(1));
                let left = match progress.completed {
                    true => Lag {
                        records: Some(0),
                        time: Some(std::time::Duration::ZERO),
                    },
                    false => lag(&partition.log, progress.next, millis),
                };
                checkpoints.push(Checkpoint {
                    partition: partition.name.clone(),
                    position: settled.map(Position::from),
                    epoch: progress.written.map(Epoch),
                    completed: progress.completed,
                    lag: left,
                });
            }
        }
        checkpoints
    }
}
