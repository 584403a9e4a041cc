//! The driver: one connection that opens everything else.

use std::sync::Arc;

use async_trait::async_trait;
use millstream_core::{Guarantee, Guarantees, Result, driver};

use crate::config::Config;
use crate::connection::Connection;
use crate::stream::check_name;
use crate::streams::Streams;
use crate::{consumer, producer};

/// A connection to Amazon Kinesis. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Kinesis {
    connection: Arc<Connection>,
}

impl Kinesis {
    /// Connects like [`Config::connect`], and returns the driver itself.
    ///
    /// # Errors
    /// As [`Config::connect`].
    ///
    /// # Cancel safety
    /// As [`Config::connect`].
    pub async fn connect(config: Config) -> Result<Self> {
        let connection = Connection::open(config).await?;
        connection.check_credentials().await?;
        Ok(Self {
            connection: Arc::new(connection),
        })
    }
}

#[async_trait]
impl driver::Backend for Kinesis {
    fn name(&self) -> &'static str {
        "kinesis"
    }

    fn guarantees(&self) -> Guarantees {
        Guarantees {
            durable: true,
            exactly_once: false,
            ordered_reshard: true,
            add_partitions: false,
            // Streams that distribute records themselves are refused one by one.
            key_order: true,
        }
    }

    /// Checks the name of a stream, or its ARN. Requests go to one region, so that of the ARN must be the connection's.
    fn check_stream_name(&self, name: &str) -> Result<(), String> {
        check_name(name, self.connection.region())
    }

    async fn open_producer(
        &self,
        stream: &str,
        required: &[Guarantee],
    ) -> Result<Arc<dyn driver::Producer>> {
        producer::open(&self.connection, stream, required).await
    }

    fn check_group_name(&self, name: &str) -> Result<(), String> {
        driver::check_group_name(name)
    }

    fn consumer_group(&self, group: &str) -> Arc<dyn driver::ConsumerGroup> {
        Arc::new(consumer::Group::new(&self.connection, group))
    }

    fn checkpoints(&self, group: &str) -> Arc<dyn driver::Checkpoints> {
        Arc::new(consumer::Checkpoints::new(&self.connection, group))
    }

    fn streams(&self) -> Arc<dyn driver::Streams> {
        Arc::new(Streams::new(&self.connection))
    }
}

#[cfg(test)]
mod tests {
    use millstream_core::{Client, ErrorKind, Partition, Record, Start};
    use tokio::join;

    use super::*;
    use crate::fake_service::{ARN, FakeService};

    #[tokio::test]
    async fn requests_for_a_stream_named_by_its_arn_have_the_arn() {
        let service = FakeService::start().await;
        let client = Client::new(Kinesis::connect(service.config()).await.unwrap());
        let producer = client.producer(ARN).open().await.unwrap();
        let receipt = producer.send(Record::new("50").key("car")).await.unwrap();
        let stored = receipt.await.unwrap().partition;
        assert_eq!(stored, Partition::new(ARN, "shardId-000000000000"));
        producer.close().await.unwrap();
        let streams = client.streams();
        let described = streams.describe(ARN).await.unwrap();
        assert_eq!(described.name, ARN);
        let [one, other] = [0, 1].map(|shard| described.partitions[shard].partition.clone());
        // The shards of the fake do not change, so these wait in vain.
        let (split, merged, deleted) = join!(
            streams.split(&one),
            streams.merge(&one, &other),
            streams.delete(ARN)
        );
        for done in [split, merged, deleted] {
            assert_eq!(done.unwrap_err().kind(), ErrorKind::Timeout);
        }
        let operations: Vec<_> = service.operations_by_arn().into_iter().collect();
        let expected = [
            "DeleteStream",
            "DescribeStreamSummary",
            "GetRecords",
            "GetShardIterator",
            "ListShards",
            "MergeShards",
            "PutRecords",
            "SplitShard",
        ];
        assert_eq!(operations, expected);
    }

    #[tokio::test]
    async fn a_stream_of_another_region_is_refused_without_a_request() {
        let service = FakeService::start().await;
        let client = Client::new(Kinesis::connect(service.config()).await.unwrap());
        let arn = ARN.replace("eu-west-1", "us-east-1");
        let shard = Partition::new(&*arn, "shardId-000000000000");
        let group = client.group("g").stream(&*arn).start(Start::Earliest);
        let streams = client.streams();
        for refused in [
            client.producer(&arn).open().await.map(drop),
            group.join().await.map(drop),
            group.reset(&arn, Start::Earliest).await,
            streams.describe(&arn).await.map(drop),
            streams.split(&shard).await,
            streams.merge(&shard, &shard).await,
            streams.delete(&arn).await,
        ] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            for region in ["us-east-1", "eu-west-1"] {
                assert!(error.message().contains(region), "{error}");
            }
        }
        let created = streams.create(millstream_core::StreamSpec::new(ARN)).await;
        assert_eq!(created.unwrap_err().kind(), ErrorKind::Invalid);
        assert!(service.noted().is_empty(), "{:?}", service.noted());
    }
}
