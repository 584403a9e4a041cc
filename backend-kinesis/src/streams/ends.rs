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
const ANSWERS: usize = 8;

/// The positions of a shard's records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) earliest: Position,
    /// `None` if it is too far from any time that was tried.
    pub(super) latest: Option<Position>,
}

/// Finds both; `None` if no record is left.
pub(super) async fn look(
    connection: &Connection,
    operation: &'static str,
    partition: &Partition,
) -> Result<Option<Ends>> {
    let look = Look {
        connection,
        operation,
        partition,
    };
    let Some(earliest) = look.first(None).await? else {
        return Ok(None);
    };
    let now = SystemTime::now();
    for ago in AGO {
        let since = now - ago;
        // If the clock is ahead of Kinesis, the time may be in the future, which is rejected.
        let first = match look.first(Some(since)).await {
            Err(error) if error.kind() == ErrorKind::Invalid => None,
            first => first?,
        };
        if first.is_some() {
            let latest = look.last(since).await?;
            return Ok(Some(Ends { earliest, latest }));
        }
    }
    Ok(Some(Ends {
        earliest,
        latest: None,
    }))
}

struct Look<'a> {
    connection: &'a Connection,
    operation: &'static str,
    partition: &'a Partition,
}

impl Look<'_> {
    /// Returns the first record, of all or since a time.
    async fn first(&self, since: Option<SystemTime>) -> Result<Option<Position>> {
        let mut iterator = Some(self.iterator(since).await?);
        for _ in 0..ANSWERS {
            let Some(from) = iterator else { break };
            let answer = self.records(&from, Some(1)).await?;
            if let Some(record) = answer.records.first() {
                return self.position(record).map(Some);
            }
            if answer.is_at_tip {
                break;
            }
            iterator = answer.next;
        }
        Ok(None)
    }

    /// Returns the last record since a time, if it is near.
    async fn last(&self, since: SystemTime) -> Result<Option<Position>> {
        let mut iterator = Some(self.iterator(Some(since)).await?);
        let mut last = None;
        for _ in 0..ANSWERS {
            let Some(from) = iterator else {
                return Ok(last);
            };
            let answer = self.records(&from, None).await?;
            if let Some(record) = answer.records.last() {
                let last_index =
                    match aggregate::deaggregate(&Bytes::copy_from_slice(record.data.as_ref())) {
                        Deaggregated::UserRecords(records) => {
                            records.last().map_or(0, |last| last.sub)
                        }
                        _ => 0,
                    };
                last = Some(self.position(record)?.with_sub_sequence(last_index));
            }
            if answer.is_at_tip {
                return Ok(last);
            }
            iterator = answer.next;
        }
        Ok(None)
    }

    async fn iterator(&self, since: Option<SystemTime>) -> Result<String> {
        let call = || async {
            let (name, arn) = stream::address(self.partition.stream());
            let ask = self.connection.kinesis.get_shard_iterator();
            let ask = ask
                .set_stream_name(name)
                .set_stream_arn(arn)
                .shard_id(self.partition.id());
            let ask = match since {
                None => ask.shard_iterator_type(ShardIteratorType::TrimHorizon),
                Some(since) => ask
                    .shard_iterator_type(ShardIteratorType::AtTimestamp)
                    .timestamp(DateTime::from(since)),
            };
            let answer = ask.send().await;
            let answer =
                answer.map_err(|e| self.locate(self.connection.error(self.operation, e)))?;
            answer.shard_iterator.ok_or_else(|| {
                let message = "the answer has no iterator";
                self.locate(Error::new(ErrorKind::Corrupt, self.operation, message))
            })
        };
        self.connection.ask(self.operation, call).await
    }

    async fn records(&self, iterator: &str, limit: Option<i32>) -> Result<Answer> {
        let call = || async {
            let ask = self.connection.kinesis.get_records();
            let ask = ask
                .set_stream_arn(stream::arn(self.partition.stream()))
                .shard_iterator(iterator)
                .set_limit(limit);
            let answer = ask.send().await;
            answer.map_err(|e| self.locate(self.connection.error(self.operation, e)))
        };
        let answer = self.connection.ask(self.operation, call).await?;
        Ok(Answer {
            is_at_tip: answer.millis_behind_latest == Some(0),
            records: answer.records,
            next: answer.next_shard_iterator,
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

struct Answer {
    records: Vec<Record>,
    /// `None` at the end of a closed shard.
    next: Option<String>,
    is_at_tip: bool,
}
