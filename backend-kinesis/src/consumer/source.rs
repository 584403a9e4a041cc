use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use aws_sdk_kinesis::types::ShardIteratorType;
use millstream_core::{Error, ErrorKind, Result};

use crate::connection::Connection;
use crate::lease::{Pin, ShardSource};
use crate::stream::{self, Shard, StreamInfo};

/// The streams as Kinesis reports them.
#[derive(Debug)]
pub(super) struct Source(pub(super) Arc<Connection>);

#[async_trait]
impl ShardSource for Source {
    async fn info(&self, stream: &str) -> Result<StreamInfo> {
        stream::describe(&self.0, "describe stream", stream).await
    }

    async fn shards(&self, stream: &str) -> Result<Vec<Shard>> {
        stream::shards(&self.0, "list shards", stream).await
    }

    async fn latest(&self, stream: &str, shard: &str) -> Result<Pin> {
        // Taken before the request: records that are stored during it are not skipped.
        let at = SystemTime::now();
        let call = || async {
            let asked = self.0.kinesis.get_shard_iterator().stream_name(stream);
            let asked = asked
                .shard_id(shard)
                .shard_iterator_type(ShardIteratorType::Latest);
            let answer = asked.send().await;
            let answer = answer.map_err(|e| self.0.error("pin latest", e).with_stream(stream))?;
            answer.shard_iterator.ok_or_else(|| {
                let message = "the answer has no iterator";
                Error::new(ErrorKind::Corrupt, "pin latest", message).with_stream(stream)
            })
        };
        let iterator = self.0.ask("pin latest", call).await?;
        Ok(Pin { iterator, at })
    }
}
