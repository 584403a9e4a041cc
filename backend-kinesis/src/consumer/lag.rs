//! The lag after a stored position, read without a burden on the shard's readers.

use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::types::{Record, ShardIteratorType};
use millstream_core::{Lag, Partition, Position};

use crate::aggregate::{Deaggregated, deaggregate};
use crate::connection::Connection;
use crate::lease::ResumePoint;
use crate::stream;

/// At most two aggregates are read: the one that contains the position, and the next.
const RECORDS: i32 = 2;

/// The lifetime of an iterator in Kinesis, less a reserve.
const ITERATOR: Duration = Duration::from_secs(270);

/// Returns the lag after `resume`, as far as Kinesis reports it at once: throttled, refused or not yet due values
/// stay unset.
pub(super) async fn lag(
    connection: &Connection,
    partition: &Partition,
    resume: &ResumePoint,
) -> Lag {
    if !connection.lag_interval.is_due(partition) {
        return Lag::default();
    }
    read_lag(connection, partition, resume)
        .await
        .unwrap_or_default()
}

async fn read_lag(
    connection: &Connection,
    partition: &Partition,
    resume: &ResumePoint,
) -> Option<Lag> {
    let iterator = iterator(connection, partition, resume).await?;
    let request = connection.kinesis.get_records();
    let request = request
        .set_stream_arn(stream::arn(partition.stream()))
        .shard_iterator(iterator)
        .limit(RECORDS);
    let response = request.send().await.ok()?;
    let oldest = response
        .records
        .iter()
        .find(|record| has_records_after(record, resume));
    match oldest {
        Some(record) => {
            let stored = SystemTime::try_from(record.approximate_arrival_timestamp?).ok()?;
            let age = SystemTime::now().duration_since(stored);
            Some(Lag {
                records: None,
                time: Some(age.unwrap_or_default()),
            })
        }
        // A response without records does not mean that there are none, unless it is from the tip.
        None => (response.millis_behind_latest == Some(0)).then_some(Lag {
            records: Some(0),
            time: Some(Duration::ZERO),
        }),
    }
}

/// Returns the iterator for `resume`. The iterator of a pin is valid for 5 minutes; after that, the pin's time gives
/// about the same position.
async fn iterator(
    connection: &Connection,
    partition: &Partition,
    resume: &ResumePoint,
) -> Option<String> {
    let (name, arn) = stream::address(partition.stream());
    let request = connection.kinesis.get_shard_iterator();
    let request = request
        .set_stream_name(name)
        .set_stream_arn(arn)
        .shard_id(partition.id());
    let at = |time: SystemTime| (ShardIteratorType::AtTimestamp, Some(time.into()), None);
    let (kind, time, number) = match resume {
        ResumePoint::After(position) => {
            let number = position.with_sub_sequence(0).to_string();
            (ShardIteratorType::AtSequenceNumber, None, Some(number))
        }
        ResumePoint::Earliest => (ShardIteratorType::TrimHorizon, None, None),
        ResumePoint::Latest(pin) if pin.at.elapsed().is_ok_and(|age| age < ITERATOR) => {
            return Some(pin.iterator.clone());
        }
        ResumePoint::Latest(pin) => at(pin.at),
        ResumePoint::At(time) => at(*time),
    };
    let request = request
        .shard_iterator_type(kind)
        .set_timestamp(time)
        .set_starting_sequence_number(number);
    request.send().await.ok()?.shard_iterator
}

/// Returns whether a part of the Kinesis record is after `resume`.
fn has_records_after(record: &Record, resume: &ResumePoint) -> bool {
    let ResumePoint::After(position) = resume else {
        return true;
    };
    let Ok(sequence) = record.sequence_number.parse::<Position>() else {
        return false;
    };
    if sequence > position.with_sub_sequence(0) {
        return true;
    }
    let data = record.data.as_ref().to_vec().into();
    match deaggregate(&data) {
        Deaggregated::UserRecords(user_records) => {
            let records = user_records.len() as u64;
            sequence == position.with_sub_sequence(0) && position.sub() + 1 < records
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_service::{ARN, FakeService};

    #[tokio::test]
    async fn the_lag_of_a_stream_named_by_its_arn_is_asked_by_the_arn() {
        let service = FakeService::start().await;
        let connection = Connection::open(service.config()).await.unwrap();
        let shard = Partition::new(ARN, "shardId-000000000000");
        let lag = lag(&connection, &shard, &ResumePoint::Earliest).await;
        assert_eq!(lag.records, Some(0));
        let operations: Vec<_> = service.operations_by_arn().into_iter().collect();
        assert_eq!(operations, ["GetRecords", "GetShardIterator"]);
    }
}
