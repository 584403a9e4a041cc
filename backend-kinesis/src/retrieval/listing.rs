//! The shards of a stream, listed once for all readers of a member.

use std::sync::Arc;
use std::time::Duration;

use millstream_core::Result;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::source::Source;
use crate::stream::Shard;

/// How long a reader waits while another one lists the shards. Meanwhile it reads nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// The last list of the shards.
#[derive(Debug, Default)]
pub(super) struct Listing(Mutex<Option<Listed>>);

#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) shards: Arc<[Shard]>,
    /// When the shards were listed.
    pub(super) at: Instant,
}

impl Listing {
    /// Returns the shards as they were at most this long ago; `None` if another reader is still listing them.
    pub(super) async fn get(&self, source: &dyn Source, age: Duration) -> Result<Option<Listed>> {
        let Ok(mut last) = timeout(PATIENCE, self.0.lock()).await else {
            return Ok(None);
        };
        if let Some(listed) = last.as_ref().filter(|listed| listed.at.elapsed() <= age) {
            return Ok(Some(listed.clone()));
        }
        let at = Instant::now();
        let shards = source.shards().await?.into();
        let listed = last.insert(Listed { shards, at });
        Ok(Some(listed.clone()))
    }
}
