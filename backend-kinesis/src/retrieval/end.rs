//! The end of a shard, and what it means that something is not found.

use std::time::Duration;

use millstream_core::telemetry::event;
use millstream_core::{Error, ErrorKind};
use tokio::time::sleep;

use super::ReadEvent;
use super::hand::Done;
use super::reading::Reading;
use crate::stream::Shard;

/// How long children are waited for before an end is doubted.
const LOOKS: u32 = 5;

/// The time between two looks for children.
const BETWEEN: Duration = Duration::from_millis(500);

impl<T: Clone> Reading<T> {
    /// Ends, if the shard has ended: it is closed, and others go on. An answer without a next place may
    /// also be none at all, and then the shard is looked at again.
    pub(super) async fn end(&mut self) -> Result<(), Done> {
        for _ in 0..LOOKS {
            let shards = self.listed().await?;
            let children = self.children(&shards);
            if !children.is_empty() {
                return Err(self.ended(children, &shards).await);
            }
            sleep(BETWEEN).await;
        }
        let (stream, partition) = self.names();
        event!(
            warn,
            "millstream.kinesis.partition.childless",
            stream,
            partition,
            "a partition says that it ended, but none goes on: it is read again"
        );
        Ok(())
    }

    /// Finds out what it is that Kinesis does not find, or does not take.
    pub(super) async fn missing(&mut self, error: Error) -> Result<(), Done> {
        let mut shards = self.listed().await?;
        for _ in 0..LOOKS {
            let mut ids = shards.iter().map(|shard| &*shard.id);
            if ids.any(|id| id == self.settings.partition.id()) {
                return self.refused(error).await;
            }
            // One that was just made may not be listed everywhere.
            sleep(BETWEEN).await;
            shards = self.listed().await?;
        }
        // It went by retention, long after it was closed, and its children may have gone as well.
        let children = self.children(&shards);
        Err(self.ended(children, &shards).await)
    }

    async fn ended(&mut self, children: Vec<Shard>, shards: &[Shard]) -> Done {
        if let Some(after) = self.place.lost_with_shard() {
            // What is left begins with the ones that took over.
            let heirs = match children.is_empty() {
                true => shards,
                false => &children,
            };
            let earliest = heirs.iter().map(|heir| heir.starting).min();
            if let Some(earliest) = earliest.filter(|earliest| *earliest > after) {
                let after = Some(after);
                let told = self
                    .hand
                    .give(ReadEvent::DataLoss { after, earliest })
                    .await;
                if let Err(done) = told {
                    return done;
                }
            }
        }
        self.hand.finish(ReadEvent::Ended { children }).await
    }

    /// All shards of the stream, asked for until there is an answer.
    pub(super) async fn listed(&mut self) -> Result<Vec<Shard>, Done> {
        loop {
            match self.source.shards().await {
                Ok(shards) => return Ok(shards),
                Err(error) if error.is_retryable() => sleep(self.pace.failed()).await,
                // Not the shard is gone but the stream.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let message = "the stream was deleted";
                    let gone = Error::new(ErrorKind::NotFound, "read", message);
                    let gone = gone
                        .with_partition(&self.settings.partition)
                        .with_source(error);
                    return Err(self.fail(gone).await);
                }
                Err(error) => return Err(self.fail(error).await),
            }
        }
    }

    fn children(&self, shards: &[Shard]) -> Vec<Shard> {
        let id = self.settings.partition.id();
        let is_child = |shard: &&Shard| shard.parents.iter().any(|parent| **parent == *id);
        shards.iter().filter(is_child).cloned().collect()
    }
}
