//! The responses of Kinesis with records.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types;
use bytes::Bytes;
use millstream_core::{Error, ErrorKind, Position, Result};

/// A response of GetRecords, or one event of a subscription.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) records: Vec<Raw>,
    /// The start of the next records: an iterator, or the sequence number after which a subscription continues. `None`
    /// at
    /// the end of a closed shard.
    pub(super) next: Option<String>,
    /// The age of the last of these records, relative to the tip of the shard; zero at the tip.
    pub(super) behind: Option<Duration>,
    /// Whether the response names children: the shard is closed, and these are its last records.
    pub(super) has_children: bool,
}

impl Answer {
    /// Returns the bytes that count against the 2 MiB per second of a shard.
    pub(super) fn bytes(&self) -> usize {
        let sizes = self
            .records
            .iter()
            .map(|raw| raw.key.len() + raw.data.len());
        sizes.sum()
    }
}

/// One Kinesis record: an aggregate, or a user record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raw {
    pub(super) position: Position,
    pub(super) arrival: Option<SystemTime>,
    /// Empty for a record without one.
    pub(super) key: Bytes,
    pub(super) data: Bytes,
}

impl TryFrom<types::Record> for Raw {
    type Error = Error;

    fn try_from(record: types::Record) -> Result<Self> {
        let position = record.sequence_number.parse().map_err(|e: Error| {
            let message = "a record has no sequence number";
            Error::new(ErrorKind::Corrupt, "read", message).with_source(e)
        })?;
        let arrival = record.approximate_arrival_timestamp;
        Ok(Self {
            position,
            arrival: arrival.map(time),
            key: record.partition_key.unwrap_or_default().into_bytes().into(),
            data: record.data.into_inner().into(),
        })
    }
}

pub(super) fn raws(records: Vec<types::Record>) -> Result<Vec<Raw>> {
    records.into_iter().map(Raw::try_from).collect()
}

/// Returns the time in whole milliseconds, as Kinesis has it. It arrives as a binary fraction of seconds, which is
/// off by some nanoseconds.
fn time(at: DateTime) -> SystemTime {
    const NOISE: i128 = 1_000;
    let millis = (at.as_nanos() + NOISE) / 1_000_000;
    UNIX_EPOCH + Duration::from_millis(millis.try_into().unwrap_or(0))
}

/// Returns the lag; a negative value is zero.
pub(super) fn behind(millis: i64) -> Duration {
    Duration::from_millis(millis.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_milliseconds_whatever_a_fraction_in_binary_makes_of_them() {
        let exact = UNIX_EPOCH + Duration::from_millis(1_795_659_167_348);
        for noise in [-120_i128, 0, 49, 120] {
            let at = DateTime::from_nanos(1_795_659_167_348_000_000 + noise).unwrap();
            assert_eq!(time(at), exact, "{noise}");
        }
        let later = DateTime::from_nanos(1_795_659_167_348_900_000).unwrap();
        assert_eq!(time(later), exact, "never later than it was");
    }
}
