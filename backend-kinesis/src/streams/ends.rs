//! The first and the last record of a shard.
//!
//! Kinesis reports neither. The first record is where the oldest iterator points. The last record is searched
//! from earlier and earlier times until a record is found, and from there to the tip: a few requests, of
//! which all but the last read one record.

use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{Record, ShardIteratorType};
use bytes::Bytes;
use millstream_core::{Error, ErrorKind, Partition, Position, Result};

use crate::aggregate::{self, Deaggregated};
use crate::connection::Connection;
use crate::stream;

/// The times before now from which the last record is searched.
const AGO: [Duration; 5] = [
    Duration::from_secs(2),
    Duration::from_secs(60),
    Duration::from_secs(3_600),
    Duration::from_secs(86_400),
    Duration::from_secs(30 * 86_400),
];

/// The maximum number of responses that are read from one iterator. A shard with many deleted records may return none
/// of them and yet not be at its tip.
const MAX_RESPONSES: usize = 8;

/// The positions of a shard's records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) earliest: Position,
    /// `None` if it is too far from any time that was tried.
    pub(super) latest: Option<Position>,
}

/// Finds both; `None` if no record is left.
pub(super) async fn find(
    connection: &Connection,
    operation: &'static str,
    partition: &Partition,
) -> Result<Option<Ends>> {
    let search = Search {
        connection,
        operation,
        partition,
    };
    let Some(earliest) = search.first(None).await? else {
        return Ok(None);
    };
    let now = SystemTime::now();
    for ago in AGO {
        let since = now - ago;
        // If the clock is ahead of Kinesis, the time may be in the future, which is rejected.
        let first = match search.first(Some(since)).await {
            Err(error) if error.kind() == ErrorKind::Invalid => None,
            first => first?,
        };
        if first.is_some() {
            let latest = search.last(since).await?;
            return Ok(Some(Ends { earliest, latest }));
        }
    }
    Ok(Some(Ends {
        earliest,
        latest: None,
    }))
}

struct Search<'a> {
    connection: &'a Connection,
    operation: &'static str,
    partition: &'a Partition,
}

impl Search<'_> {
    /// Returns the first record, of all or since a time.
    async fn first(&self, since: Option<SystemTime>) -> Result<Option<Position>> {
        let mut iterator = Some(self.iterator(since).await?);
        for _ in 0..MAX_RESPONSES {
            let Some(from) = iterator else { break };
            let response = self.records(&from, Some(1)).await?;
            if let Some(record) = response.records.first() {
                return self.position(record).map(Some);
            }
            if response.is_at_tip {
                break;
            }
            iterator = response.next;
        }
        Ok(None)
    }

    /// Returns the last record since a time, if it is near.
    async fn last(&self, since: SystemTime) -> Result<Option<Position>> {
        let mut iterator = Some(self.iterator(Some(since)).await?);
        let mut last = None;
        for _ in 0..MAX_RESPONSES {
            let Some(from) = iterator else {
                return Ok(last);
            };
            let response = self.records(&from, None).await?;
            if let Some(record) = response.records.last() {
                let last_index =
                    match aggregate::deaggregate(&Bytes::copy_from_slice(record.data.as_ref())) {
                        Deaggregated::UserRecords(records) => {
                            records.last().map_or(0, |last| last.sub)
                        }
                        _ => 0,
                    };
                last = Some(self.position(record)?.with_sub_sequence(last_index));
            }
            if response.is_at_tip {
                return Ok(last);
            }
            iterator = response.next;
        }
        Ok(None)
    }

    async fn iterator(&self, since: Option<SystemTime>) -> Result<String> {
        let call = || async {
            let (name, arn) = stream::address(self.partition.stream());
            let request = self.connection.kinesis.get_shard_iterator();
            let request = request
                .set_stream_name(name)
                .set_stream_arn(arn)
                .shard_id(self.partition.id());
            let request = match since {
                None => request.shard_iterator_type(ShardIteratorType::TrimHorizon),
                Some(since) => request
                    .shard_iterator_type(ShardIteratorType::AtTimestamp)
                    .timestamp(DateTime::from(since)),
            };
            let response = request.send().await;
            let response =
                response.map_err(|e| self.locate(self.connection.error(self.operation, e)))?;
            response.shard_iterator.ok_or_else(|| {
                let message = "the response has no iterator";
                self.locate(Error::new(ErrorKind::Corrupt, self.operation, message))
            })
        };
        self.connection.retry(self.operation, call).await
    }

    async fn records(&self, iterator: &str, limit: Option<i32>) -> Result<Page> {
        let call = || async {
            let request = self.connection.kinesis.get_records();
            let request = request
                .set_stream_arn(stream::arn(self.partition.stream()))
                .shard_iterator(iterator)
                .set_limit(limit);
            let response = request.send().await;
            response.map_err(|e| self.locate(self.connection.error(self.operation, e)))
        };
        let response = self.connection.retry(self.operation, call).await?;
        Ok(Page {
            is_at_tip: response.millis_behind_latest == Some(0),
            records: response.records,
            next: response.next_shard_iterator,
        })
    }

    fn position(&self, record: &Record) -> Result<Position> {
        let position = record.sequence_number.parse();
        position.map_err(|e: Error| {
            let message = "a record has no sequence number";
            let error = Error::new(ErrorKind::Corrupt, self.operation, message);
            self.locate(error.with_source(e))
        })
    }

    fn locate(&self, error: Error) -> Error {
        error.with_partition(self.partition)
    }
}

struct Page {
    records: Vec<Record>,
    /// `None` at the end of a closed shard.
    next: Option<String>,
    is_at_tip: bool,
}
