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
pub(super) struct KinesisShardSource(pub(super) Arc<Connection>);

#[async_trait]
impl ShardSource for KinesisShardSource {
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
            let (name, arn) = stream::address(stream);
            let request = self.0.kinesis.get_shard_iterator();
            let request = request
                .set_stream_name(name)
                .set_stream_arn(arn)
                .shard_id(shard)
                .shard_iterator_type(ShardIteratorType::Latest);
            let response = request.send().await;
            let response =
                response.map_err(|e| self.0.error("pin latest", e).with_stream(stream))?;
            response.shard_iterator.ok_or_else(|| {
                let message = "the response has no iterator";
                Error::new(ErrorKind::Corrupt, "pin latest", message).with_stream(stream)
            })
        };
        let iterator = self.0.retry("pin latest", call).await?;
        Ok(Pin { iterator, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_service::{ARN, FakeService};

    #[tokio::test]
    async fn requests_of_members_for_a_stream_named_by_its_arn_have_the_arn() {
        let service = FakeService::start().await;
        let source =
            KinesisShardSource(Arc::new(Connection::open(service.config()).await.unwrap()));
        assert_eq!(&*source.info(ARN).await.unwrap().name, ARN);
        let shards = source.shards(ARN).await.unwrap();
        source.latest(ARN, &shards[0].id).await.unwrap();
        let operations: Vec<_> = service.operations_by_arn().into_iter().collect();
        let expected = ["DescribeStreamSummary", "GetShardIterator", "ListShards"];
        assert_eq!(operations, expected);
    }
}
