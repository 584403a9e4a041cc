//! A broker that rejects some results of exactly-once pipelines when they are published.

use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::driver::{CheckpointUpdate, ConsumerGroup, JoinOptions, Membership};
use millstream_core::{Error, ErrorKind, Record, Result};
use millstream_memory::Memory;

use crate::layer::{Layer, Layered, LayeredMembership, MembershipLayer};

/// The header of records that are rejected when they are published. Its value is the kind of the error.
pub(super) const REFUSED: &str = "refused";

/// Wraps the memory backend.
pub(super) fn refusing(memory: Memory) -> Layered<Memory, impl Layer + Clone> {
    Layered {
        driver: memory,
        layer: RefusesResults,
    }
}

#[derive(Debug, Clone)]
struct RefusesResults;

#[async_trait]
impl Layer for RefusesResults {
    async fn join(
        &self,
        group: &dyn ConsumerGroup,
        _: &str,
        options: JoinOptions,
    ) -> Result<Arc<dyn Membership>> {
        Ok(Arc::new(LayeredMembership(Member(
            group.join(options).await?,
        ))))
    }
}

#[derive(Debug)]
struct Member(Arc<dyn Membership>);

#[async_trait]
impl MembershipLayer for Member {
    fn inner(&self) -> &dyn Membership {
        &*self.0
    }

    async fn publish(
        &self,
        stream: &str,
        records: &[Record],
        updates: &[CheckpointUpdate],
    ) -> Result<()> {
        let refused = records.iter().find_map(|r| r.headers.get_str(REFUSED));
        if let Some(kind) = refused {
            let kind = match kind {
                "invalid" => ErrorKind::Invalid,
                _ => ErrorKind::TooLarge,
            };
            return Err(Error::new(kind, "publish", "refused").with_stream(stream));
        }
        self.0.publish(stream, records, updates).await
    }
}
