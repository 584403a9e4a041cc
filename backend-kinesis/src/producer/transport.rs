//! The Kinesis requests of a producer.

use std::sync::Arc;

use aws_sdk_kinesis::operation::put_records::PutRecordsOutput;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry};
use millstream_core::{Error, ErrorKind, Position, Result};

use crate::aggregate::Entry;
use crate::connection::Connection;
use crate::error;
use crate::stream::{self, Shard};

/// Where an entry was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShardPosition {
    pub(super) shard: String,
    pub(super) position: Position,
}

/// Kinesis, or its fake in tests.
pub(super) trait Transport: Send + Sync + 'static {
    /// Sends one request to store the entries. Returns one result for each. An error applies to all of them;
    /// a retryable error does not mean that none is stored.
    fn put(
        &self,
        entries: Arc<Vec<Entry>>,
    ) -> impl Future<Output = Result<Vec<Result<ShardPosition>>>> + Send;

    /// Lists all shards.
    fn shards(&self) -> impl Future<Output = Result<Vec<Shard>>> + Send;
}

#[derive(Debug)]
pub(super) struct Aws {
    connection: Connection,
    stream: Arc<str>,
}

impl Aws {
    pub(super) fn new(connection: Connection, stream: Arc<str>) -> Self {
        Self { connection, stream }
    }

    fn unknown_position(&self, message: &'static str) -> Error {
        Error::new(ErrorKind::Timeout, "send", message).with_stream(self.stream.clone())
    }

    fn read(&self, result: PutRecordsResultEntry) -> Result<ShardPosition> {
        if let Some(code) = result.error_code {
            let kind = error::kind(&code).unwrap_or(ErrorKind::Unavailable);
            let message = result.error_message.unwrap_or_default();
            let error = Error::new(kind, "send", format!("{code}: {message}"));
            return Err(error.with_stream(self.stream.clone()));
        }
        let stored_at = result.shard_id.zip(result.sequence_number);
        let (shard, number) = stored_at
            .ok_or_else(|| self.unknown_position("stored, but the response does not say where"))?;
        let position = number.parse().map_err(|_| {
            self.unknown_position("stored, but its sequence number is not a number")
        })?;
        Ok(ShardPosition { shard, position })
    }
}

impl Transport for Aws {
    async fn put(&self, entries: Arc<Vec<Entry>>) -> Result<Vec<Result<ShardPosition>>> {
        let entries: Vec<_> = entries
            .iter()
            .map(|entry| self.entry(entry))
            .collect::<Result<_>>()?;
        let (name, arn) = stream::address(&self.stream);
        let put = self.connection.kinesis.put_records();
        let put = put
            .set_stream_name(name)
            .set_stream_arn(arn)
            .set_records(Some(entries));
        let response = put.send().await;
        let response: PutRecordsOutput = response.map_err(|e| {
            self.connection
                .error("send", e)
                .with_stream(self.stream.clone())
        })?;
        Ok(response.records.into_iter().map(|r| self.read(r)).collect())
    }

    async fn shards(&self) -> Result<Vec<Shard>> {
        stream::shards(&self.connection, "send", &self.stream).await
    }
}

impl Aws {
    fn entry(&self, entry: &Entry) -> Result<PutRecordsRequestEntry> {
        let key = std::str::from_utf8(&entry.partition_key);
        let key = key.map_err(|e| self.invalid("a key that is not UTF-8").with_source(e))?;
        let hash = entry.explicit_hash_key.map(|hash| hash.0.to_string());
        let entry = PutRecordsRequestEntry::builder()
            .partition_key(key)
            .set_explicit_hash_key(hash)
            .data(Blob::new(&*entry.data));
        let entry = entry.build();
        entry.map_err(|e| self.invalid("the request cannot be built").with_source(e))
    }

    fn invalid(&self, message: &'static str) -> Error {
        Error::new(ErrorKind::Invalid, "send", message).with_stream(self.stream.clone())
    }
}
