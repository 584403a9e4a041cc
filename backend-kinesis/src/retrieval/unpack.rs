//! Converts Kinesis records to user records: splits aggregates, and leaves out records that are in the wrong
//! shard.
//!
//! The KPL fills an aggregate with records that it takes to be of one shard, and places it by the hash key of the first
//! one. If a reshard proves it wrong, it sends the records of other shards again. So those are left out.
//!
//! Other writers (fluent-bit, Lambda functions, the aggregators of AWS's kinesis-aggregation) do not know shards, and
//! send nothing again. Their aggregates are delivered whole, unless [`ForeignAggregates::Filter`] is set. The KPL's are
//! recognized by their address: the partition key [`PARTITION_KEY`], and the hash key of the first record, so that the
//! first record is in its own shard. A stream that distributes records itself ignores the latter.
//!
//! # When a stream begins to distribute records itself
//!
//! A member learns of that up to ten minutes late. From then on nothing is left out. Until then nothing is lost either,
//! because an aggregate is filtered only in the shard to which its own address leads. There the same records are
//! left out as when the stream places by hash keys:
//!
//! * Of an aggregate by the KPL or by this crate, those are left out whose hash keys are not the shard's. Their producer
//!   compares the same hash keys with the shard in the response, and acknowledges none of these: it sends them again.
//! * An aggregate of one record is delivered in any shard: a record with headers, such as a dead letter.
//! * With [`ForeignAggregates::Filter`] the application has chosen what is left out of aggregates in their own shard.
//!   In other shards they are delivered whole.

use std::time::SystemTime;

use millstream_core::driver::{FilteredCounter, StoredRecord};
use millstream_core::telemetry::event;
use millstream_core::{Headers, Partition, Position};

use super::Settings;
use super::answer::Raw;
use super::distribution::Distribution;
use crate::aggregate::{self, Deaggregated, PARTITION_KEY, UserRecord};
use crate::config::ForeignAggregates;
use crate::stream::{HashKey, HashRange};

#[derive(Debug)]
pub(super) struct Unpacker {
    partition: Partition,
    range: Option<HashRange>,
    distribution: Distribution,
    foreign: ForeignAggregates,
    filtered: FilteredCounter,
    /// The number of aggregates that could not be parsed, and of records that belong to another partition.
    corrupt: u64,
    strayed: u64,
}

impl Unpacker {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            partition: settings.partition.clone(),
            range: settings.range,
            distribution: settings.distribution.clone(),
            foreign: settings.foreign,
            filtered: settings.filtered.clone(),
            corrupt: 0,
            strayed: 0,
        }
    }

    /// Appends the user records after `after`.
    pub(super) fn unpack(&mut self, raw: Raw, after: Option<Position>, to: &mut Vec<StoredRecord>) {
        let arrival = raw.arrival.unwrap_or_else(SystemTime::now);
        let is_new = after.is_none_or(|after| raw.position > after);
        match aggregate::deaggregate(&raw.data) {
            Deaggregated::UserRecords(records) => {
                let range = self.range_to_keep(&raw.key, &records);
                self.take(records, range, raw.position, arrival, after, to);
            }
            Deaggregated::Bare | Deaggregated::Corrupt(_) if !is_new => {}
            Deaggregated::Bare => to.push(bare(raw, arrival)),
            // As the KCL does. Its checksum is valid, so it was not damaged in transit: its writer
            // created it like this, and may know what it means.
            Deaggregated::Corrupt(reason) => {
                self.tell_corrupt(raw.position, &reason);
                to.push(bare(raw, arrival));
            }
        }
    }

    fn take(
        &mut self,
        records: Vec<UserRecord>,
        range: Option<HashRange>,
        aggregate: Position,
        arrival: SystemTime,
        after: Option<Position>,
        to: &mut Vec<StoredRecord>,
    ) {
        let mut strayed = 0;
        for record in records {
            let position = aggregate.with_sub_sequence(record.sub);
            if after.is_some_and(|after| position <= after) {
                continue;
            }
            if range.is_some_and(|range| !range.contains(record.hash)) {
                strayed += 1;
                continue;
            }
            to.push(StoredRecord {
                position,
                timestamp: record.timestamp.unwrap_or(arrival),
                key: record.key,
                payload: record.payload,
                headers: record.headers,
            });
        }
        if strayed > 0 {
            self.filtered.add(strayed);
            self.tell_strayed(aggregate, strayed);
        }
    }

    /// Returns the hash keys of the records to keep of an aggregate. `None` if all are kept.
    fn range_to_keep(&self, partition_key: &[u8], records: &[UserRecord]) -> Option<HashRange> {
        let range = self.range.filter(|_| !self.distribution.is_automatic())?;
        let [first, _, ..] = records else {
            return None;
        };
        let is_of_kpl = partition_key == PARTITION_KEY.as_bytes() && range.contains(first.hash);
        let is_filtered = match self.foreign {
            ForeignAggregates::Deliver => is_of_kpl,
            ForeignAggregates::Filter => is_addressed_to(range, partition_key, first),
        };
        is_filtered.then_some(range)
    }

    fn tell_corrupt(&mut self, position: Position, reason: &str) {
        let (stream, partition) = (self.partition.stream(), self.partition.id());
        self.corrupt += 1;
        let corrupt = self.corrupt;
        if corrupt.is_power_of_two() {
            event!(
                warn, "millstream.kinesis.aggregate.corrupt",
                stream, partition, %position, reason, corrupt,
                "an aggregate cannot be understood and is handed on as it is; the next warning comes \
                 when there are twice as many"
            );
        } else {
            event!(
                debug, "millstream.kinesis.aggregate.corrupt",
                stream, partition, %position, reason, corrupt,
                "an aggregate is handed on as it is"
            );
        }
    }

    fn tell_strayed(&mut self, position: Position, records: u64) {
        let (stream, partition) = (self.partition.stream(), self.partition.id());
        let is_first = self.strayed == 0;
        self.strayed += records;
        let strayed = self.strayed;
        if is_first {
            event!(
                warn, "millstream.kinesis.aggregate.strayed",
                stream, partition, %position, records, strayed,
                "records whose hash keys are another partition's are left out, since their producer \
                 sends them there once more; others of this partition are told as debug events"
            );
        } else {
            event!(
                debug, "millstream.kinesis.aggregate.strayed",
                stream, partition, %position, records, strayed,
                "records of another partition are left out"
            );
        }
    }
}

/// Returns whether the address of an aggregate leads to the shard with these hash keys. The explicit hash key is not
/// known, but writers that set one use that of the first record.
fn is_addressed_to(range: HashRange, partition_key: &[u8], first: &UserRecord) -> bool {
    // The address of the whole is then that of the first record, with its explicit hash key.
    let is_by_first = first.key.as_deref() == Some(partition_key);
    range.contains(first.hash) || !is_by_first && range.contains(HashKey::of(partition_key))
}

fn bare(raw: Raw, arrival: SystemTime) -> StoredRecord {
    StoredRecord {
        position: raw.position,
        timestamp: arrival,
        key: aggregate::key_of(raw.key),
        payload: Some(raw.data),
        headers: Headers::new(),
    }
}
