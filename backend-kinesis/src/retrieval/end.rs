//! Shard end, and the meaning of a not-found error.

use std::time::Duration;

use millstream_core::telemetry::event;
use millstream_core::{Error, ErrorKind};
use tokio::time::sleep;

use super::ReadEvent;
use super::output::Done;
use super::shard_reader::ShardReader;
use crate::stream::Shard;

/// How often children are looked up before a shard end is doubted.
const LOOKS: u32 = 5;

/// The time between two lookups of children.
const BETWEEN: Duration = Duration::from_millis(500);

impl<T: Clone> ShardReader<T> {
    /// Ends the reader at shard end: the shard is closed, and has children. A response without a next iterator may
    /// also be wrong, and then the reader returns to its position in the shard.
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

    /// Finds out what Kinesis does not find, or does not accept.
    pub(super) async fn missing(&mut self, error: Error) -> Result<(), Done> {
        let mut shards = self.listed().await?;
        for _ in 0..LOOKS {
            let mut ids = shards.iter().map(|shard| &*shard.id);
            if ids.any(|id| id == self.settings.partition.id()) {
                return self.refused(error).await;
            }
            // A new shard may not be listed everywhere.
            sleep(BETWEEN).await;
            shards = self.listed().await?;
        }
        // Retention removed it, long after it was closed, and perhaps its children as well.
        self.cursor.doubt();
        let children = self.children(&shards);
        Err(self.ended(children, &shards).await)
    }

    async fn ended(&mut self, children: Vec<Shard>, shards: &[Shard]) -> Done {
        if let Some(after) = self.cursor.lost_with_shard() {
            // The remaining records begin with the shards that took over its hash keys.
            let heirs = match children.is_empty() {
                true => shards,
                false => &children,
            };
            let earliest = heirs.iter().map(|heir| heir.starting).min();
            if let Some(earliest) = earliest.filter(|earliest| *earliest > after) {
                let after = Some(after);
                let told = self
                    .output
                    .give(ReadEvent::DataLoss { after, earliest })
                    .await;
                if let Err(done) = told {
                    return done;
                }
            }
        }
        self.output.finish(ReadEvent::Ended { children }).await
    }

    /// Lists all shards of the stream, retried until there is a result.
    async fn listed(&mut self) -> Result<Vec<Shard>, Done> {
        loop {
            match self.source.shards().await {
                Ok(shards) => return Ok(shards),
                Err(error) => self.on_unlisted(error).await?,
            }
        }
    }

    /// Handles shards that could not be listed. Waits before the next attempt.
    pub(super) async fn on_unlisted(&mut self, error: Error) -> Result<(), Done> {
        if error.is_retryable() {
            sleep(self.pace.failed()).await;
            return Ok(());
        }
        let error = match error.kind() {
            // Not the shard but the stream is gone.
            ErrorKind::NotFound => {
                let message = "the stream was deleted";
                let gone = Error::new(ErrorKind::NotFound, "read", message);
                gone.with_partition(&self.settings.partition)
                    .with_source(error)
            }
            _ => error,
        };
        Err(self.fail(error).await)
    }

    fn children(&self, shards: &[Shard]) -> Vec<Shard> {
        let id = self.settings.partition.id();
        let is_child = |shard: &&Shard| shard.parents.iter().any(|parent| **parent == *id);
        shards.iter().filter(is_child).cloned().collect()
    }
}
