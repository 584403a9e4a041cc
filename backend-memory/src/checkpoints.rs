//! Reads and resets the stored progress of one group.

use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::{Checkpoint, Result, Start, driver};
use tokio::time::timeout_at;

use crate::broker::Broker;
use crate::error::BrokerError;

#[derive(Debug)]
pub(crate) struct MemoryCheckpoints {
    pub(crate) broker: Arc<Broker>,
    pub(crate) group: Arc<str>,
}

#[async_trait]
impl driver::Checkpoints for MemoryCheckpoints {
    async fn read(&self) -> Result<Vec<Checkpoint>> {
        let read = self.broker.with(|state, now| {
            let group = state.group_id(&self.group)?;
            Ok(state.read_checkpoints(group, now))
        });
        read.map_err(|error: BrokerError| {
            error
                .during("read checkpoints")
                .with_group(self.group.clone())
        })
    }

    /// Dropping the future leaves the reset in progress: the coordinator ends it when the stream is
    /// drained.
    async fn reset(&self, stream: &str, to: Start) -> Result<()> {
        let with_context = |error: BrokerError| {
            error
                .during("reset")
                .with_group(self.group.clone())
                .with_stream(stream)
        };
        let started = self.broker.with(|state, now| {
            let group = state.group_id(&self.group)?;
            let stream = state.catalog.id(stream)?;
            let offsets = state.start_offsets(stream, to, now)?;
            let number = state.groups[group].begin_reset(stream, offsets, now);
            let done = state.groups[group].reset_done.clone();
            Ok((group, stream, number, done))
        });
        let (group, stream_id, number, done) = started.map_err(with_context)?;
        loop {
            // Created before the check, so that no notification after the check is missed.
            let notified = done.notified();
            let (outcome, until) = self.broker.with(|state, _| {
                let outcome = state.groups[group].reset_outcome(stream_id, number);
                (outcome, state.deadline(group))
            });
            match (outcome, until) {
                (Some(outcome), _) => return outcome.map_err(with_context),
                (None, None) => notified.await,
                (None, Some(until)) => {
                    // Notified or timed out: check again.
                    let _ = timeout_at(until, notified).await;
                }
            }
        }
    }
}
