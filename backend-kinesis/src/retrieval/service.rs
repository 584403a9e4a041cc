//! The Kinesis service.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{self, ShardIteratorType, SubscribeToShardEventStream as Event};
use millstream_core::{Error, ErrorKind, Partition, Result};

use super::answer::{Answer, behind, raws};
use super::source::{Source, StartingPosition, SubscribeError, Subscription};
use crate::connection::Connection;
use crate::error;
use crate::stream::{self, Shard};

const READ: &str = "read";

/// One shard in Kinesis.
#[derive(Debug)]
pub(super) struct Service {
    connection: Arc<Connection>,
    partition: Partition,
}

impl Service {
    pub(super) fn new(connection: &Arc<Connection>, partition: &Partition) -> Self {
        Self {
            connection: connection.clone(),
            partition: partition.clone(),
        }
    }

    fn error<E>(&self, error: SdkError<E>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        self.locate(self.connection.error(READ, error))
    }

    fn locate(&self, error: Error) -> Error {
        error.with_partition(&self.partition)
    }
}

/// Returns the Kinesis terms for a position: its iterator type, a sequence number, a time.
fn words(from: &StartingPosition) -> (ShardIteratorType, Option<String>, Option<DateTime>) {
    match from {
        StartingPosition::At(position) => {
            let number = position.with_sub_sequence(0).to_string();
            (ShardIteratorType::AtSequenceNumber, Some(number), None)
        }
        StartingPosition::After(position) => {
            let number = position.with_sub_sequence(0).to_string();
            (ShardIteratorType::AfterSequenceNumber, Some(number), None)
        }
        StartingPosition::Time(time) => {
            let time = DateTime::from(*time);
            (ShardIteratorType::AtTimestamp, None, Some(time))
        }
        StartingPosition::Earliest => (ShardIteratorType::TrimHorizon, None, None),
    }
}

#[async_trait]
impl Source for Service {
    async fn iterator(&self, from: &StartingPosition) -> Result<String> {
        let (kind, number, time) = words(from);
        let (name, arn) = stream::address(self.partition.stream());
        let ask = self.connection.kinesis.get_shard_iterator();
        let ask = ask
            .set_stream_name(name)
            .set_stream_arn(arn)
            .shard_id(self.partition.id())
            .shard_iterator_type(kind)
            .set_starting_sequence_number(number)
            .set_timestamp(time);
        let answer = ask.send().await;
        let answer = answer.map_err(|e| self.error(e))?;
        answer.shard_iterator.ok_or_else(|| {
            let message = "the answer has no iterator";
            self.locate(Error::new(ErrorKind::Corrupt, READ, message))
        })
    }

    async fn records(&self, iterator: &str, most: usize) -> Result<Answer> {
        let ask = self.connection.kinesis.get_records();
        let ask = ask
            .set_stream_arn(stream::arn(self.partition.stream()))
            .shard_iterator(iterator)
            .limit(most.try_into().unwrap_or(i32::MAX));
        let answer = ask.send().await;
        let answer = answer.map_err(|e| self.error(e))?;
        Ok(Answer {
            records: raws(answer.records).map_err(|e| self.locate(e))?,
            next: answer.next_shard_iterator,
            behind: answer.millis_behind_latest.map(behind),
            has_children: answer.child_shards.is_some_and(|shards| !shards.is_empty()),
        })
    }

    async fn subscribe(
        &self,
        consumer: &str,
        from: &StartingPosition,
    ) -> Result<Box<dyn Subscription>, SubscribeError> {
        let (kind, number, time) = words(from);
        let begin = types::StartingPosition::builder()
            .r#type(kind)
            .set_sequence_number(number)
            .set_timestamp(time)
            .build();
        let begin = begin.map_err(|e| {
            let error = Error::new(ErrorKind::Invalid, READ, "no place to begin");
            self.locate(error.with_source(e))
        })?;
        let ask = self.connection.kinesis.subscribe_to_shard();
        let ask = ask
            .consumer_arn(consumer)
            .shard_id(self.partition.id())
            .starting_position(begin);
        let output = ask.send().await;
        let output = output.map_err(|e| {
            let service = e.as_service_error();
            SubscribeError {
                is_in_use: service.is_some_and(|e| e.is_resource_in_use_exception()),
                error: self.error(e),
            }
        })?;
        Ok(Box::new(Pushed {
            output,
            partition: self.partition.clone(),
        }))
    }

    async fn shards(&self) -> Result<Vec<Shard>> {
        stream::shards(&self.connection, READ, self.partition.stream()).await
    }
}

/// An active subscription.
#[derive(Debug)]
struct Pushed {
    output: SubscribeToShardOutput,
    partition: Partition,
}

#[async_trait]
impl Subscription for Pushed {
    async fn next(&mut self) -> Result<Option<Answer>, SubscribeError> {
        loop {
            let event = self.output.event_stream.recv().await;
            let event = event.map_err(|e| {
                let service = e.as_service_error();
                SubscribeError {
                    is_in_use: service.is_some_and(|e| e.is_resource_in_use_exception()),
                    error: pushed_error(e).with_partition(&self.partition),
                }
            })?;
            match event {
                None => return Ok(None),
                Some(Event::SubscribeToShardEvent(event)) => {
                    let number = event.continuation_sequence_number;
                    return Ok(Some(Answer {
                        records: raws(event.records)
                            .map_err(|e| e.with_partition(&self.partition))?,
                        next: Some(number).filter(|number| !number.is_empty()),
                        behind: Some(behind(event.millis_behind_latest)),
                        has_children: event.child_shards.is_some_and(|shards| !shards.is_empty()),
                    }));
                }
                // An event type that this version of the AWS SDK does not know, and so without records.
                Some(_) => {}
            }
        }
    }
}

/// Returns the SDK's error for an exception in a subscription, or for a broken one.
fn pushed_error<E, R>(error: SdkError<E, R>) -> Error
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let (kind, message) = match &error {
        SdkError::ServiceError(service) => {
            let code = service.err().code();
            let kind = code.and_then(error::kind).unwrap_or(ErrorKind::Unavailable);
            let message = service.err().message().unwrap_or("the subscription ended");
            (
                kind,
                format!("{}: {message}", code.unwrap_or("an unknown error")),
            )
        }
        SdkError::TimeoutError(_) => (ErrorKind::Timeout, "the subscription timed out".into()),
        _ => (ErrorKind::Unavailable, "the subscription broke off".into()),
    };
    Error::new(kind, READ, message).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_service::{ARN, FakeService};

    #[tokio::test]
    async fn reads_of_a_stream_named_by_its_arn_have_the_arn() {
        let service = FakeService::start().await;
        let connection = Connection::open(service.config()).await.unwrap();
        let shard = Partition::new(ARN, "shardId-000000000000");
        let source = Service::new(&Arc::new(connection), &shard);
        let iterator = source.iterator(&StartingPosition::Earliest).await.unwrap();
        source.records(&iterator, 10).await.unwrap();
        source.shards().await.unwrap();
        let operations = service.operations_by_arn();
        let operations: Vec<_> = operations.into_iter().collect();
        assert_eq!(operations, ["GetRecords", "GetShardIterator", "ListShards"]);
    }
}
