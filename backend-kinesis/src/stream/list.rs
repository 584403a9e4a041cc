use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_sdk_kinesis::types::{RecordDistributionStrategy, StreamStatus};
use millstream_core::telemetry::event;
use millstream_core::{Error, ErrorKind, Guarantee, Position, Result};

use super::{HashRange, address};
use crate::connection::Connection;

/// A shard in the response of ListShards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) id: Arc<str>,
    /// None for one of the stream's first shards, one after a split, two after a merge. Retention may have
    /// removed them.
    pub(crate) parents: Vec<Arc<str>>,
    pub(crate) range: HashRange,
    /// No record of the shard is before this position.
    pub(crate) starting: Position,
    /// Whether it still accepts records.
    pub(crate) open: bool,
}

/// The identity of a stream, which distinguishes it from another of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamInfo {
    /// Its name or its ARN, as the application wrote it.
    pub(crate) name: Arc<str>,
    pub(crate) arn: Arc<str>,
    pub(crate) created: SystemTime,
    /// The maximum record size in bytes, including its key.
    pub(crate) record_bytes: usize,
    pub(crate) status: StreamStatus,
    /// Whether the stream distributes records over its shards itself, whatever their keys are (`AUTO`). Then keys have no
    /// order, and a shard has records of any hash key.
    pub(crate) distributes: bool,
}

impl StreamInfo {
    /// Checks that the stream keeps what a program requires of it, as far as not all streams do.
    ///
    /// # Errors
    /// `Unsupported` if the order of keys is required and the stream distributes records itself.
    pub(crate) fn check_required(
        &self,
        required: &[Guarantee],
        operation: &'static str,
    ) -> Result<()> {
        if !self.distributes || !required.contains(&Guarantee::KeyOrder) {
            return Ok(());
        }
        let message = "KeyOrder is required, but the stream distributes records over its shards itself (AUTO), whatever \
                       their keys are: set its record distribution strategy to USER_PARTITION_KEY, or do not require \
                       the order of keys";
        Err(Error::new(ErrorKind::Unsupported, operation, message).with_stream(self.name.clone()))
    }

    /// Warns if records of one key have no order.
    pub(crate) fn warn_of_distribution(&self) {
        if self.distributes {
            event!(
                warn, "millstream.kinesis.stream.unordered", stream = %self.name,
                "the stream distributes records itself: those of one key have no order"
            );
        }
    }

    /// Returns the id of the stream. A later stream of the same name has another id.
    ///
    /// Rejected: using the field `StreamId` of DescribeStreamSummary. It is reserved for future use, and a
    /// stream whose id changed would be mistaken for another one.
    pub(crate) fn id(&self) -> Arc<str> {
        let created = self.created.duration_since(UNIX_EPOCH).unwrap_or_default();
        // It is received as a floating-point number of seconds.
        let millis = (created.as_micros() + 500) / 1_000;
        format!("{}@{millis}", self.arn).into()
    }
}

/// The maximum record size of a stream that does not report one: 1 MiB.
const RECORD_BYTES: i32 = 1_024;

/// Describes a stream, retried for `request_timeout`. `NotFound` if there is none.
pub(crate) async fn describe(
    connection: &Connection,
    operation: &'static str,
    stream: &str,
) -> Result<StreamInfo> {
    let call = || async {
        let (name, arn) = address(stream);
        let summary = connection.kinesis.describe_stream_summary();
        let summary = summary.set_stream_name(name).set_stream_arn(arn);
        let response = summary.send().await;
        let response = response.map_err(|e| connection.error(operation, e).with_stream(stream))?;
        let missing = || {
            let message = "the response does not describe the stream";
            Error::new(ErrorKind::Corrupt, operation, message).with_stream(stream)
        };
        let summary = response.stream_description_summary.ok_or_else(missing)?;
        let kib = summary.max_record_size_in_kib.unwrap_or(RECORD_BYTES);
        let created = SystemTime::try_from(summary.stream_creation_timestamp);
        Ok(StreamInfo {
            name: stream.into(),
            arn: summary.stream_arn.into(),
            created: created.map_err(|_| missing())?,
            record_bytes: usize::try_from(kib).unwrap_or_default().max(1) * 1_024,
            status: summary.stream_status,
            distributes: summary.record_distribution_strategy
                == Some(RecordDistributionStrategy::Auto),
        })
    };
    connection.retry(operation, call).await
}

/// Lists all shards of a stream, including the closed ones that still hold records, in the order of their
/// ids. Retried for `request_timeout`.
pub(crate) async fn shards(
    connection: &Connection,
    operation: &'static str,
    stream: &str,
) -> Result<Vec<Shard>> {
    let mut shards = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let call = || async {
            let list = connection.kinesis.list_shards();
            let list = match &token {
                // It identifies the stream, which must not be named again.
                Some(token) => list.next_token(token),
                None => {
                    let (name, arn) = address(stream);
                    list.set_stream_name(name).set_stream_arn(arn)
                }
            };
            let response = list.send().await;
            response.map_err(|e| connection.error(operation, e).with_stream(stream))
        };
        let response = connection.retry(operation, call).await?;
        for shard in response.shards.unwrap_or_default() {
            shards.push(read(operation, shard).map_err(|e| e.with_stream(stream))?);
        }
        token = response.next_token;
        if token.is_none() {
            shards.sort_by(|one: &Shard, other| one.id.cmp(&other.id));
            return Ok(shards);
        }
    }
}

fn read(operation: &'static str, shard: aws_sdk_kinesis::types::Shard) -> Result<Shard> {
    let corrupt = |what: &str| {
        let message = format!("shard {} has no {what}", shard.shard_id);
        Error::new(ErrorKind::Corrupt, operation, message)
    };
    let range = shard.hash_key_range.as_ref();
    let range = range.and_then(|range| {
        Some(HashRange {
            first: range.starting_hash_key.parse().ok()?,
            last: range.ending_hash_key.parse().ok()?,
        })
    });
    let sequences = shard.sequence_number_range.as_ref();
    let sequences = sequences.ok_or_else(|| corrupt("range of sequence numbers"))?;
    let parents = [&shard.parent_shard_id, &shard.adjacent_parent_shard_id];
    Ok(Shard {
        id: shard.shard_id.as_str().into(),
        parents: parents
            .into_iter()
            .flatten()
            .map(|id| id.as_str().into())
            .collect(),
        range: range.ok_or_else(|| corrupt("range of hash keys"))?,
        starting: sequences
            .starting_sequence_number
            .parse()
            .map_err(|_| corrupt("starting sequence number"))?,
        open: sequences.ending_sequence_number.is_none(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn info(distributes: bool, nanos: u64) -> StreamInfo {
        StreamInfo {
            name: "s".into(),
            arn: "arn:aws:kinesis:eu-west-1:123456789012:stream/s".into(),
            created: UNIX_EPOCH + Duration::from_nanos(nanos),
            record_bytes: 1,
            status: StreamStatus::Active,
            distributes,
        }
    }

    #[test]
    fn key_order_is_refused_only_where_it_is_required_and_missing() {
        use Guarantee::{Durable, KeyOrder, OrderedReshard};
        let check =
            |distributes, required: &[_]| info(distributes, 0).check_required(required, "join");
        for required in [&[][..], &[Durable, OrderedReshard]] {
            assert!(check(true, required).is_ok(), "{required:?}");
        }
        assert!(check(false, &[KeyOrder]).is_ok());
        let error = check(true, &[Durable, KeyOrder]).unwrap_err();
        assert_eq!(
            (error.kind(), error.stream()),
            (ErrorKind::Unsupported, Some("s"))
        );
        for part in ["KeyOrder", "AUTO", "USER_PARTITION_KEY"] {
            assert!(error.message().contains(part), "{error} lacks {part}");
        }
    }

    #[test]
    fn an_id_has_the_time_of_creation() {
        let id = |nanos| info(false, nanos).id();
        let expected = "arn:aws:kinesis:eu-west-1:123456789012:stream/s@1700000000123";
        assert_eq!(&*id(1_700_000_000_123_000_000), expected);
        assert_eq!(&*id(1_700_000_000_122_999_906), expected);
        assert_ne!(&*id(1_700_000_000_124_000_000), expected);
    }
}
